"""What a Rails application says of its workers is read as text and as data; what only Ruby can tell is not guessed."""

import json
from pathlib import Path

import pytest

from solidjq import Database
from solidjq.doctor import examine as doctor
from solidjq.doctor.checks import DoctorTerms, Severity
from solidjq.errors import UsageError
from solidjq.rails.settings import (
    CONNECTS_TO,
    HEARTBEAT,
    SHUTDOWN,
    SKIP_LOCKED,
    THRESHOLD,
    RailsConfig,
    RailsSetting,
    RailsWorker,
    queue_url,
    read_config,
    read_settings,
)
from support.processes import add_process, silence
from support.program import Shell
from support.queue import add_jobs, plain_jobs

APPLICATION = """
require_relative "boot"

module Shop
  class Application < Rails::Application
    # config.solid_queue.process_alive_threshold = 1.minute
    config.solid_queue.process_alive_threshold = 7.minutes
    config.solid_queue.shutdown_timeout = 25
  end
end
"""
PRODUCTION = """
Rails.application.configure do
  config.solid_queue.connects_to = { database: { writing: :queue } }
LINES
end
"""


def application(folder: Path, **files: str) -> Path:
    """Write the files of a folder config; two underscores stand for a slash."""
    for name, text in files.items():
        kind = "yml" if name in {"queue", "database"} else "rb"
        path = folder / "config" / f"{name.replace('__', '/')}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def threshold(folder: Path, environment: str | None = None, **variables: str) -> RailsSetting | None:
    return read_settings(folder, environment, variables=variables).get(THRESHOLD)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("5.minutes", 300),
        ("1.minute # a comment", 60),
        ("600", 600),
        ("1_200.0", 1200),
        ("90.seconds", 90),
        ("2.5.hours", 9000),
        ("1.day", 86400),
    ],
)
def test_a_literal_is_read(tmp_path: Path, written: str, seconds: float) -> None:
    line = f"  config.solid_queue.process_alive_threshold = {written}"
    found = threshold(application(tmp_path, environments__production=PRODUCTION.replace("LINES", line)))
    assert found is not None
    assert (found.value, found.place) == (seconds, "config/environments/production.rb:4")


@pytest.mark.parametrize(
    "written",
    [
        "  config.solid_queue.process_alive_threshold = ENV.fetch('T', 600).to_i.seconds",
        "  config.solid_queue.process_alive_threshold = 5 * 60",
        "  config.solid_queue.process_alive_threshold = 5.minutes if ENV['T']",
        "  config.solid_queue.process_alive_threshold = 5\n    .minutes",
        "  config.solid_queue.process_alive_threshold =\n    5.minutes",
        "  config.solid_queue.process_alive_threshold ||= 5.minutes",
        "  config.solid_queue.process_alive_threshold = 0",
        "  if ENV['T']\n    config.solid_queue.process_alive_threshold = 5.minutes\n  end",
        "  config.after_initialize do\n    SolidQueue.process_alive_threshold = 5.minutes\n  end",
        "  x = <<~RUBY\n    config.solid_queue.process_alive_threshold = 5.minutes\n  RUBY",
        "  config.solid_queue[:process_alive_threshold] = 5.minutes",
        "  SolidQueue.process_alive_threshold = 5.minutes; x",
        "  config.solid_queue.process_alive_threshold = 5.minutes\n  config.solid_queue.process_alive_threshold = t",
    ],
)
def test_what_only_ruby_can_tell_is_not_guessed(tmp_path: Path, written: str) -> None:
    found = threshold(
        application(tmp_path, environments__production=PRODUCTION.replace("LINES", written), application=APPLICATION)
    )
    assert found is not None
    assert found.value is None


@pytest.mark.parametrize(
    "written",
    [
        "# config.solid_queue.process_alive_threshold = 5.minutes",
        "=begin\nconfig.solid_queue.process_alive_threshold = 5.minutes\n=end",
        "__END__\nSolidQueue.process_alive_threshold = 5.minutes",
        "SolidQueue.my_process_alive_threshold_of_old = 5",
    ],
)
def test_what_is_no_code_says_nothing(tmp_path: Path, written: str) -> None:
    assert threshold(application(tmp_path, initializers__solid_queue=written)) is None


def test_what_may_run_later_wins_over_all(tmp_path: Path) -> None:
    written = "  config.after_initialize do\n    SolidQueue.process_alive_threshold = 5.minutes\n  end"
    folder = application(
        tmp_path,
        environments__production=PRODUCTION.replace("LINES", written),
        initializers__solid_queue="SolidQueue.process_alive_threshold = 9.minutes\n",
    )
    found = threshold(folder)
    assert found is not None
    assert (found.value, found.place) == (None, "config/environments/production.rb:5")


def test_the_later_file_wins_as_in_rails(tmp_path: Path) -> None:
    folder = application(tmp_path, application=APPLICATION)
    assert threshold(folder) == RailsSetting(
        420, "config/application.rb:7", "config.solid_queue.process_alive_threshold = 7.minutes"
    )
    line = "  config.solid_queue.process_alive_threshold = 8.minutes\n  SolidQueue.process_alive_threshold = 1"
    application(folder, environments__staging=PRODUCTION.replace("LINES", line))
    (production, staging) = (threshold(folder), threshold(folder, "staging"))
    assert (production and production.value, staging and staging.value) == (420, 480)
    assert threshold(folder, RAILS_ENV="staging") == staging


@pytest.mark.parametrize("name", [THRESHOLD, SHUTDOWN])
def test_config_wins_over_the_module_wherever_either_stands(tmp_path: Path, name: str) -> None:
    # Solid Queue's engine copies config.solid_queue when the application's initializers have run.
    folder = application(tmp_path, initializers__solid_queue=f"SolidQueue.{name} = 9.minutes\n")
    assert read_settings(folder, variables={})[name].value == 540
    environment = PRODUCTION.replace("LINES", f"  config.solid_queue.{name} = 8.minutes")
    application(folder, environments__production=environment)
    assert read_settings(folder, variables={})[name].value == 480
    application(folder, initializers__a=f"Rails.application.config.solid_queue.{name} = 10.minutes\n")
    found = read_settings(folder, variables={})[name]
    assert (found.value, found.place) == (600, "config/initializers/a.rb:1")


def test_the_other_settings(tmp_path: Path) -> None:
    lines = "  config.solid_queue.use_skip_locked = false\n  config.solid_queue.process_heartbeat_interval = 30.seconds"
    folder = application(tmp_path, application=APPLICATION, environments__production=PRODUCTION.replace("LINES", lines))
    found = {name: setting.value for name, setting in read_settings(folder, variables={}).items()}
    assert found == {CONNECTS_TO: "queue", THRESHOLD: 420, SKIP_LOCKED: False, HEARTBEAT: 30, SHUTDOWN: 25}
    assert read_settings(tmp_path / "nowhere", variables={}) == {}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("  config.solid_queue.shutdown_timeout = 1.minute", 60),
        ("  SolidQueue.shutdown_timeout = 0", 0),
        ("  config.solid_queue.shutdown_timeout = ENV.fetch('T').to_i", None),
        ("  config.good_job.shutdown_timeout = 300", 5),
        ("  # nothing", 5),
    ],
)
def test_how_long_a_supervisor_waits_for_its_jobs(tmp_path: Path, written: str, seconds: float | None) -> None:
    folder = application(tmp_path, environments__production=PRODUCTION.replace("LINES", written))
    assert read_config(folder, variables={}).shutdown_timeout == seconds


SEVERAL = """
production:
  primary: {adapter: postgresql, database: shop}
  queue: {adapter: postgresql, database: q}
  jobs: {adapter: postgresql, database: j, pool: 9}
"""


@pytest.mark.parametrize(
    ("line", "database"),
    [
        ("  config.solid_queue.connects_to = { database: { writing: :jobs } }", "j"),
        ("  config.solid_queue.connects_to = {database: {writing: :jobs, reading: :jobs}}", "j"),
        ("  config.solid_queue.connects_to = { database: { writing: :primary } }", "shop"),
        ("  config.solid_queue.connects_to = { database: { writing: ENV['Q'].to_sym } }", "q"),
        ("  connects_to database: { writing: :jobs }", "q"),  # a model's
        ("  # nothing", "q"),
    ],
)
def test_the_database_that_it_connects_to(tmp_path: Path, line: str, database: str) -> None:
    text = PRODUCTION.replace("LINES", line).replace(
        "  config.solid_queue.connects_to = { database: { writing: :queue } }\n", "", 1
    )
    folder = application(tmp_path, environments__production=text, database=SEVERAL, queue="workers: []")
    assert queue_url(folder, variables={}).database == database
    assert read_config(folder, variables={}).pool == (9 if database == "j" else 5)


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    line = "  config.solid_queue.connects_to = { database: { writing: :lost } }"
    folder = application(tmp_path, environments__production=PRODUCTION.replace("LINES", line), database=SEVERAL)
    with pytest.raises(UsageError, match="Solid Queue connects to :lost, but production has no such database"):
        queue_url(folder, variables={})


# -- queue.yml --------------------------------------------------------------------------------------------------------

DATABASE = "production: {adapter: sqlite3, database: 'DATABASE', pool: 5}\n"
QUEUE = """
default: &default
  dispatchers:
    - polling_interval: 1
      batch_size: 500
  workers:
    - queues: [ real_time, "report*" ]
      threads: 3
      processes: <%= ENV.fetch("JOB_CONCURRENCY", 1) %>
    - queues: <%= ENV["MORE"] || "low" %>
      threads: <%= Etc.nprocessors %>
production:
  <<: *default
"""


@pytest.mark.parametrize(
    ("text", "variables", "workers"),
    [
        (QUEUE, {}, (RailsWorker(("real_time", "report*"), 3), RailsWorker(("low",), None))),
        (QUEUE, {"MORE": "*"}, (RailsWorker(("real_time", "report*"), 3), RailsWorker(("*",), None))),
        ("workers:\n  - threads: 8\n", {}, (RailsWorker(("*",), 8),)),
        ("workers:\n  - fibers: 100\n", {}, (RailsWorker(("*",), None),)),
        ("production:\n  dispatchers:\n    - batch_size: 5\n", {}, ()),
        ("staging:\n  workers: []\n", {}, (RailsWorker(("*",)),)),
        ("", {}, (RailsWorker(("*",)),)),
    ],
)
def test_the_workers(tmp_path: Path, text: str, variables: dict[str, str], workers: tuple[RailsWorker, ...]) -> None:
    found = read_config(application(tmp_path, queue=text, database=DATABASE), variables=variables)
    assert (found.workers, found.problem, found.pool) == (workers, None, 5)


def test_another_file_that_a_variable_names(tmp_path: Path) -> None:
    folder = application(tmp_path, queue="workers: [{queues: a}]", database="production: {adapter: postgresql}")
    (folder / "config" / "other.yml").write_text("workers: [{queues: b}]")
    found = read_config(folder, variables={"SOLID_QUEUE_CONFIG": "config/other.yml"})
    assert (found.workers, found.pool) == ((RailsWorker(("b",)),), 5)
    gone = read_config(folder, variables={"SOLID_QUEUE_CONFIG": "gone.yml"})
    assert gone.workers is None
    assert gone.problem is not None
    assert "cannot read" in gone.problem
    (folder / "config" / "queue.yml").unlink()
    assert read_config(folder, variables={}).problem is None  # bin/jobs may be told any file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers:\n  - queues: <%= `id` %>\n", "workers[0].queues is Ruby that jq does not evaluate: <%= `id` %>"),
        ("<% if x %>\nworkers: []\n<% end %>", "line 1 is Ruby"),
        ("workers: [", "is not YAML"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str, words: str) -> None:
    found = read_config(application(tmp_path, queue=text, database=DATABASE), variables={})
    assert found.workers is None
    assert found.problem is not None
    assert words in found.problem


# -- what doctor makes of it ------------------------------------------------------------------------------------------


def findings(database: Database, configured: RailsConfig | None, **terms: float) -> list[tuple[Severity, str]]:
    checks = doctor.choose(["application"])
    (result,) = doctor.examine(database, checks, DoctorTerms(application=configured, **terms))
    assert result.skipped is None
    return [(finding.severity, finding.what) for finding in result.findings]


def test_a_queue_that_no_worker_is_set_up_for(database: Database) -> None:
    add_jobs(database, *plain_jobs(2, queue_name="mail"), *plain_jobs(1, queue_name="reports_daily"))
    assert findings(database, None) == []
    assert findings(database, RailsConfig("queue.yml", (RailsWorker(("mail", "report*")),))) == []
    assert findings(database, RailsConfig("queue.yml", (RailsWorker(("*",)),))) == []
    assert findings(database, RailsConfig("queue.yml")) == []
    half = RailsConfig("queue.yml", (RailsWorker(("report*",)),))
    words = "2 jobs wait in queue 'mail', and no worker of queue.yml takes it"
    assert findings(database, half) == [(Severity.ERROR, words)]
    add_process(database)  # which polls every queue, as far as it tells
    assert findings(database, half) == [(Severity.NOTE, f"{words}; another live worker does")]


def test_a_list_that_is_one_name(database: Database) -> None:
    add_process(database)
    add_jobs(database, *plain_jobs(1, queue_name="a"))
    found = findings(database, RailsConfig("queue.yml", (RailsWorker(("a,b",)),)))
    assert found == [
        (Severity.ERROR, "1 job waits in queue 'a', and no worker of queue.yml takes it"),
        (Severity.ERROR, "a worker of queue.yml polls 'a,b': that is one queue with a comma in its name"),
    ]


def test_numbers_that_do_not_fit(database: Database) -> None:
    def told(threads: int, pool: int, **settings: float | None) -> list[str]:
        each = {name: RailsSetting(value, "x.rb:1", "code") for name, value in settings.items()}
        return [
            what
            for _, what in findings(database, RailsConfig("queue.yml", (RailsWorker(("*",), threads),), pool, each))
        ]

    assert told(3, 5) == []
    assert told(4, 5) == [
        "a worker of queue.yml with 4 threads needs 6 connections, and config/database.yml gives a process 5"
    ]
    assert told(3, 5, process_heartbeat_interval=160.0) == [
        "a heartbeat every 160 s does not fit the application's process_alive_threshold of 300 s"
    ]
    assert told(3, 5, process_alive_threshold=600.0) == [
        "jq counts a process as dead after 300 s, the application's own supervisors after 600 s"
    ]
    assert told(3, 5, use_skip_locked=True) == []
    assert told(3, 5, use_skip_locked=False) == [
        "x.rb:1 switches use_skip_locked off: workers wait for each other's locks"
    ]
    assert told(3, 5, process_alive_threshold=None) == ["x.rb:1 holds what only Ruby can read: code"]


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_the_threshold_of_the_commands(database: Database, shell: Shell, tmp_path: Path) -> None:
    """Option, variable, profile, application, Solid Queue's own: the first that says something counts."""
    worker = add_process(database)
    silence(database, worker, 400)
    line = "  config.solid_queue.process_alive_threshold = 10.minutes"
    text = DATABASE.replace("DATABASE", str(database.url.database))
    folder = application(tmp_path / "shop", environments__production=PRODUCTION.replace("LINES", line), database=text)
    profiles = f'[profiles.a]\nrails = "{folder}"\nalive_threshold = "6m"\n[profiles.b]\nrails = "{folder}"\n'
    shell.environment["JQ_CONFIG"] = "own.toml"
    (shell.folder / "own.toml").write_text(profiles)

    def alive(*before: str, options: tuple[str, ...] = ()) -> bool:
        listed = shell.run(*before, "processes", "list", "-o", "json", *options)
        assert (listed.returncode, listed.stderr) == (0, "")
        return bool(json.loads(listed.stdout)[0]["alive"])

    assert not alive()
    assert alive("--rails", str(folder))
    assert alive("--profile", "b")
    assert not alive("--profile", "a")
    assert not alive("--rails", str(folder), options=("--alive-threshold", "350"))
    shell.environment["JQ_ALIVE_THRESHOLD"] = "500"
    assert alive()
    assert alive("--profile", "a")
    assert not alive("--profile", "a", options=("--alive-threshold", "350"))


@pytest.mark.sqlite_only
def test_a_threshold_that_only_ruby_can_read(database: Database, shell: Shell, tmp_path: Path) -> None:
    """What only shows says so; what would act on a guess does nothing."""
    worker = add_process(database)
    silence(database, worker, 400)
    line = "  config.solid_queue.process_alive_threshold = ENV.fetch('T', 600).to_i.seconds"
    text = DATABASE.replace("DATABASE", str(database.url.database))
    folder = str(
        application(tmp_path / "shop", environments__production=PRODUCTION.replace("LINES", line), database=text)
    )
    told = (
        f"config/environments/production.rb:4 sets process_alive_threshold in a way that only Ruby can read: {line[2:]}"
    )
    for showing in (["processes", "list"], ["prune", "--dry-run"], ["recover", "--dry-run"], ["doctor"]):
        shown = shell.run("--rails", folder, *showing)
        assert shown.returncode in {0, 6}
        assert f"{told}; 300 s is taken instead: give --alive-threshold" in shown.stderr
    for acting in (["prune"], ["recover"], ["work"], ["doctor", "--fix", "--yes"]):
        refused = shell.run("--rails", folder, *acting)
        assert (refused.returncode, f"{told}; give --alive-threshold" in refused.stderr) == (2, True), refused.stderr
    pruned = shell.run("--rails", folder, "prune", "--alive-threshold", "350")
    assert pruned.returncode == 0, pruned.stderr
    assert "1 process" in pruned.stderr


@pytest.mark.sqlite_only
def test_doctor_looks_at_the_application(database: Database, shell: Shell, tmp_path: Path) -> None:
    add_jobs(database, *plain_jobs(1, queue_name="mail"))
    text = DATABASE.replace("DATABASE", str(database.url.database))
    folder = str(application(tmp_path / "shop", queue=QUEUE, database=text))
    found = shell.run("--rails", folder, "doctor", "application", "-o", "json")
    assert found.returncode == 6, found.stderr
    (finding,) = json.loads(found.stdout)
    assert "'mail', and no worker of" in finding["finding"]
    without = shell.run("doctor", "application")
    assert (without.returncode, "needs a Rails application" in without.stderr) == (2, True)
    assert "application" not in {each["check"] for each in json.loads(shell.run("doctor", "-o", "json").stdout)}
