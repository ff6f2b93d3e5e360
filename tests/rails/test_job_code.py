"""What the text of a Rails application says of its classes, and of handlers that never run."""

import os
from pathlib import Path

import pytest

from solidjq.rails import job_code
from solidjq.rails.job_code import read_job_code

FILES = {
    "app/jobs/reports/monthly_revenue_export_job.rb": """
        module Reports
          class MonthlyRevenueExportJob < ApplicationJob
            retry_on Net::OpenTimeout, wait: 5.seconds
            retry_on(
              SolidQueue::Processes::ProcessPrunedError,
              SolidQueue::Processes::ProcessExitError, attempts: 3
            )
            # retry_on SolidQueue::Processes::ProcessMissingError

            def perform
            rescue SolidQueue::Processes::ProcessPrunedError => e
              raise unless e.message.include?("ProcessExitError")
            end

            class Part < ApplicationJob; end
          end

          class Other < ApplicationJob
            discard_on ProcessMissingError
          end
        end
    """,
    "app/jobs/api/v1/sync_job.rb": "eval('nothing to see here')",
    "app/models/concerns/auditable.rb": "module Auditable\nend\nAuditJob = Class.new(ApplicationJob)\n",
    "packs/billing/app/jobs/billing/charge_job.rb": "class Billing::ChargeJob < ApplicationJob\nend\n",
    "lib/tasks/solid.rb": 'Failed.where("error LIKE ?", "%ProcessPrunedError%").each(&:retry)\n',
    "config/initializers/jobs.rb": "class Hidden; end\n",
    "app/jobs/.cache/cached_job.rb": "class CachedJob; end\n",
}


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("\n        ", "\n"))
    return folder


def test_classes_by_definition_and_by_file_name(tmp_path: Path) -> None:
    code = read_job_code(written(tmp_path, FILES))
    there = [
        *(
            "Reports::MonthlyRevenueExportJob",
            "::Reports::MonthlyRevenueExportJob",
            "Reports::Other",
            "Billing::ChargeJob",
        ),
        *("Reports::MonthlyRevenueExportJob::Part", "API::V1::SyncJob", "V1::SyncJob", "AuditJob", "Auditable"),
    ]
    gone = [
        "MonthlyExportJob",
        "Reports::SyncJob",
        "Other",
        "Hidden",
        "CachedJob",
        "ChargeInvoiceJob",
        "Reports::Part",
        "",
    ]
    assert [name for name in (*there, *gone) if code.has(name)] == there
    assert code.complete


def test_handlers_of_errors_that_no_job_raises(tmp_path: Path) -> None:
    place, name = "app/jobs/reports/monthly_revenue_export_job.rb", "Reports::MonthlyRevenueExportJob"
    assert read_job_code(written(tmp_path, FILES)).idle_handlers == (
        (f"{place}:5", name, "retry_on", "ProcessPrunedError"),
        (f"{place}:5", name, "retry_on", "ProcessExitError"),
        (f"{place}:12", name, "rescue", "ProcessPrunedError"),
        (f"{place}:20", "Reports::Other", "discard_on", "ProcessMissingError"),
    )


def test_what_others_may_have_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links in circles, pipes, binary files, long lines and too many files end the reading without an error."""
    written(tmp_path, {"app/jobs/a_job.rb": "class A" + "::B" * 100_000, "app/jobs/b_job.rb": "\0\xff" * 1000})
    (tmp_path / "app" / "circle").symlink_to(tmp_path / "app", target_is_directory=True)
    os.mkfifo(tmp_path / "app" / "jobs" / "c_job.rb")
    code = read_job_code(tmp_path)
    assert [code.has(name) for name in ("AJob", "BJob", "CJob", "DJob")] == [True, True, True, False]
    monkeypatch.setattr(job_code, "MOST_FILES", 2)
    assert not read_job_code(tmp_path).complete
    assert read_job_code(tmp_path / "nowhere").names == frozenset()
