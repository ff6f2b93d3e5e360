"""What makes two failures the same, and that no text whatever gets in the way."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from solidjq.diff import signatures
from solidjq.diff.signatures import MESSAGE_LENGTH, READ, hides_digits, normalize, outline, signature_of
from solidjq.rails.error_text import Death, error_json, exit_error, missing_error, pruned_error

UUIDS = ("0b8e9c1a-0f6a-4c0e-9d56-2f7c2f6d5a10", "FFBECB90-fb57-475a-aed3-97e1d498b6a6")

SAME = [
    ("Couldn't find User with 'id'=123", "Couldn't find User with 'id'=4", "Couldn't find User with 'id'=<n>"),
    (f"job {UUIDS[0]} is gone", f"job {UUIDS[1]} is gone", "job <uuid> is gone"),
    ("<User object at 0x7f00aa12> failed", "<User object at 0x7fbb0000> failed", "<User object at <hex>> failed"),
    (
        '#<User id: 1, name: "Ann"> is invalid',
        '#<User id: 22, name: "Bob, the 2nd"> is invalid',
        "#<User> is invalid",
    ),
    ("commit a1b2c3d4e5f6 is missing", "commit ffee00112233 is missing", "commit <hex> is missing"),
    (
        "[Errno 2] No such file or directory: '/tmp/x/report-42.csv'",
        "[Errno 2] No such file or directory: '/var/y.csv'",
        "[Errno 2] No such file or directory: '<text>'",
    ),
    (
        "No such file or directory @ rb_sysopen - /tmp/a/b.csv",
        "No such file or directory @ rb_sysopen - /srv/c",
        "No such file or directory @ rb_sysopen - <path>",
    ),
    ("GET https://api.example.com/v1/users/1?x=2 failed", "GET http://other.example/ failed", "GET <url> failed"),
    ("mail to ann@example.com bounced", "mail to bob.b+1@mail.example.org bounced", "mail to <email> bounced"),
    ("from 10.0.0.3:5432 refused", "from 192.168.17.200:80 refused", "from <ip> refused"),
    ("from 2001:db8::8a2e:370:7334 refused", "from ::1 refused", "from <ip> refused"),
    (
        "expired at 2026-11-23 04:40:22.022096 UTC here",
        "expired at 2026-11-23T04:40:22Z here",
        "expired at <time> here",
    ),
    ("on Mon, 23 Nov 2026 04:40:22 +0000 it", "on Tue, 1 Dec 2026 14:00:00 +0000 it", None),
    ("ids 1, 2, 3 are bad", "ids 17, 4 are bad", "ids <n> are bad"),
    ("ids [1, 2, 3] are bad", "ids [7] are bad", "ids [<n>] are bad"),
    ("key sk_live_abcdEFGH12345678 is bad", "key sk_live_1234zzzzYYYY9999 is bad", "key <id> is bad"),
    ('invalid value for Integer(): "abc"', 'invalid value for Integer(): "x y"', None),
    ("invalid literal for int() with base 10: 'a'", "invalid literal for int() with base 10: '1.5'", None),
    (
        'duplicate key value violates unique constraint "i_email"\nDETAIL:  Key (email)=(ann@x.org) already exists.',
        'duplicate key value violates unique constraint "i_email"\nDETAIL:  Key (email)=(b, c) already exists.',
        "duplicate key value violates unique constraint 'i_email' DETAIL: Key (email)=(<text>) already exists.",
    ),
    ("Duplicate entry 'bob-12' for key 'index_x'", "Duplicate entry 'ann 7' for key 'index_x'", None),
    ("undefined method `name' for nil", "undefined method 'name' for nil", "undefined method 'name' for nil"),
    ("execution expired after 30.5s", "execution expired after 1,200.75s", "execution expired after <n>s"),
    ("worker-3 is gone", "worker-17 is gone", "worker-<n> is gone"),
    ("limit=5 remaining=0", "limit=500 remaining=17", "limit=<n> remaining=<n>"),
    ("two\n lines", "two lines", "two lines"),
]

DIFFERENT = [
    ("the server responded with status 503", "the server responded with status 404"),
    ("HTTP 500", "HTTP 502"),
    ("exit code 137", "exit code 1"),
    ("killed by signal 9", "killed by signal 11"),
    ("SQLSTATE[23505]: it failed", "SQLSTATE[40001]: it failed"),
    ("[Errno 111] it failed", "[Errno 104] it failed"),
    ("(1205, 'Lock wait timeout exceeded; try again')", "(2013, 'Lost connection to server during query')"),
    ("undefined method 'name' for nil", "undefined method 'total' for nil"),
    ("uninitialized constant Foo::Bar", "uninitialized constant Foo::Baz"),
    ("'user_id'", "'order_id'"),
    ("S3 said no", "EC2 said no"),
    ("'NoneType' object has no attribute 'a'", "'NoneType' object has no attribute 'b'"),
    ('relation "users" does not exist', 'relation "orders" does not exist'),
]


@pytest.mark.parametrize(("one", "other", "told"), SAME, ids=[one[:30] for one, _, _ in SAME])
def test_what_varies_is_taken_out(one: str, other: str, told: str | None) -> None:
    assert normalize(one) == normalize(other)
    assert told is None or normalize(one) == told


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=[one[:30] for one, _ in DIFFERENT])
def test_what_tells_failures_apart_stays(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)


@pytest.mark.parametrize(
    "message",
    [
        "customer's order isn't 'paid'",
        "Validation failed: Name can't be blank, Email has already been taken",
        "utf8 and Base64 and S3 are names",
        "comparison of Integer with nil failed",
        "wrong constant name: Foo::Bar",
        "",
    ],
)
def test_words_stay(message: str) -> None:
    assert normalize(message) == message


GEMS = "/usr/local/bundle/ruby/3.3.0/gems/"
RUBY = [
    f"{GEMS}faraday-2.9.0/lib/faraday/adapter.rb:44:in `call'",
    "/usr/local/lib/ruby/3.3.0/net/protocol.rb:229:in `rbuf_fill'",
    "<internal:kernel>:187:in `loop'",
    "/app/releases/20261101123000/app/services/stripe/client.rb:40:in `block (2 levels) in charge'",
    "/app/releases/20261101123000/app/services/stripe/client.rb:38:in `charge'",
    "/app/releases/20261101123000/app/jobs/charge_job.rb:12:in `perform'",
    f"{GEMS}activejob-7.1.3/lib/active_job/execution.rb:53:in `perform_now'",
    "bin/jobs:6:in `<main>'",
]
PYTHON = [
    "/venv/lib/python3.11/site-packages/requests/api.py:59:in `request'",
    "/usr/lib/python3.11/json/decoder.py:355:in `raw_decode'",
    "<frozen importlib._bootstrap>:1:in `_find'",
    "/srv/shop/mail/send.py:12:in `deliver'",
    "/srv/shop/jobs.py:7:in `send_mail'",
]


def test_frames_are_the_applications_own_without_line_numbers() -> None:
    found = signature_of(error_json("Net::ReadTimeout", "timeout", RUBY))
    assert found.frames == ("services/stripe/client.rb:charge", "app/jobs/charge_job.rb:perform")
    assert signature_of(error_json("E", "m", PYTHON)).frames == (
        "shop/mail/send.py:deliver",
        "srv/shop/jobs.py:send_mail",
    )
    assert signature_of(error_json("E", "m", ['File "/srv/shop/jobs.py", line 7, in run'])).frames == (
        "srv/shop/jobs.py:run",
    )
    assert signature_of(error_json("E", "m", ["app/a.rb", "no frame at all", ""])).frames == ()
    assert signature_of(error_json("E", "m", [f"/app/f{n}.rb:1:in `m'" for n in range(9)])).frames == (
        "app/f0.rb:m",
        "app/f1.rb:m",
        "app/f2.rb:m",
    )


def test_another_release_line_and_ruby_give_the_same_signature() -> None:
    newer = [
        frame.replace("20261101123000", "20261124080000")
        .replace(":40:", ":41:")
        .replace("`", "'")
        .replace("3.3.0", "3.4.1")
        for frame in RUBY
    ]
    newer = [frame.replace("'perform'", "'ChargeJob#perform'") for frame in newer]
    one, other = (signature_of(error_json("E", "id 1", frames)) for frames in (RUBY, newer))
    assert one == other
    assert one.name == other.name


def test_a_signature_has_a_name_that_stays() -> None:
    found = signature_of(error_json("ArgumentError", "id 17", ["/app/jobs/a.rb:1:in `perform'"]))
    assert (found.name, found.title) == ("ga9cf5fc", "ArgumentError: id <n>")
    assert signature_of(error_json("ArgumentError", "id 18", ["/app/jobs/b.rb:1:in `perform'"])).name != found.name
    assert signature_of(error_json("KeyError", "id 17", ["/app/jobs/a.rb:1:in `perform'"])).name != found.name


def test_deaths_are_the_same_by_their_manner() -> None:
    beats = [datetime(2026, 11, 23, hour, tzinfo=UTC) for hour in (4, 5)]
    pruned = {signature_of(pruned_error(beat)) for beat in beats}
    killed = {signature_of(exit_error(pid, -9)) for pid in (1, 2)}
    assert [(one.death, one.message) for one in pruned] == [(Death.PRUNED, "its heartbeat stopped")]
    assert [(one.death, one.message) for one in killed] == [(Death.EXITED, "killed by signal 9")]
    assert signature_of(exit_error(1, -11)).message == "killed by signal 11"
    assert signature_of(exit_error(1, 3)).message == "exited with status 3"
    assert signature_of(missing_error()).message == "its process was gone"


@pytest.mark.parametrize("error", [None, "", "plain text 17", "[1]", "{}", '{"message":', '"x"', "null", "\0\ud800"])
def test_what_is_no_error_has_a_signature_too(error: str | None) -> None:
    found = signature_of(error)
    assert found.name.startswith("g")
    assert found.title


def test_an_error_that_was_cut_off_has_its_frames() -> None:
    whole = error_json("E", "it failed", [*RUBY, *(f"{GEMS}x-1/lib/{n}.rb:{n}:in `m'" for n in range(600))])
    assert len(whole) > READ
    assert signature_of(whole) == signature_of(error_json("E", "it failed", RUBY))
    assert signature_of(whole[:5000]) == signature_of(whole)


# -- outlines: what the first characters of an error tell


def outlined(error: str | None, cut: int = 500) -> tuple[object, ...]:
    return outline(error and error[:cut], len((error or "").encode()), cut)


def test_errors_of_one_outline_have_one_signature() -> None:
    long = [*RUBY, *(f"{GEMS}x-1/lib/{n}.rb:{n}:in `m'" for n in range(20))]
    one, other = (outlined(error_json("E", f"id {number} é", long)) for number in (1, 20000))
    assert one == other
    elsewhere = [*long[:-1], "/app/lib/somewhere_else.rb:1:in `m'"]
    assert outlined(error_json("E", "id 1", elsewhere)) != one
    assert outlined(error_json("E", "id 1", RUBY[:2])) == (signature_of(error_json("E", "id 1", RUBY[:2])),)
    assert outlined(None) == (signature_of(None),)
    assert outlined(error_json("E", "x" * 700, long)) != outlined(error_json("F", "x" * 700, long))


# -- hostile text

# Pieces that patterns look for; many of one kind is what makes a careless pattern slow.
PIECES = [
    "'",
    '"',
    "`",
    "=(",
    "#<A",
    "<n>",
    "/a",
    "\\",
    "a@",
    "1:",
    "::",
    "0x",
    "1,",
    "a1-",
    "1 Jan ",
    "(1, '",
    " ",
    "T0",
]


@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=300).map("".join))
def test_no_text_makes_it_fail(text: str) -> None:
    for error in (text, error_json("E", text, [text]), error_json(text, text), json.dumps({"message": text})):
        found = signature_of(error)
        assert len(found.message) <= MESSAGE_LENGTH
        assert found.name == signature_of(error).name
        outlined(error, 50)


@pytest.mark.parametrize("piece", [*PIECES, "\\\\", '"a', '{"message":', "[", '"backtrace":["', "x:1:in `a'"])
def test_of_an_endless_text_a_bounded_part_is_read(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    plain = signatures._normalized

    def watched(text: str) -> str:
        looked_at.append(len(text))
        return plain(text)

    monkeypatch.setattr(signatures, "_normalized", watched)
    for error in (piece * 200_000, error_json("E", piece * 20_000, [piece * 2_000] * 10)):
        assert len(signature_of(error).message) <= MESSAGE_LENGTH
    assert max(looked_at, default=0) <= 2 * signatures.MESSAGE


WORDS = st.one_of(
    st.sampled_from(
        [
            "error",
            "code",
            "status 404",
            "(1045, 'x'",
            "S3",
            "utf8",
            "5e1f2a90-1111-4a2b-8c3d-0123456789ab",
            "\n",
            "  ",
            "\\",
        ]
    ),
    st.sampled_from(
        ["code:  \n  5", "10.0.0.7:80", "/app/2026/x9.rb", "2026-11-23 04:05:06", "0x1f", "'a7'", "über 7", "\u2003"]
    ),
    st.from_regex(r"[a-z]{1,6}[:=#(]?[0-9]{0,5}", fullmatch=True),
    st.text(max_size=8),
)


@given(st.lists(WORDS, max_size=12), st.sampled_from(["ValueError", "E2", "SolidQueue::Processes::ProcessExitError"]))
@example(
    ["Process pid=4711 exited unexpectedly. Received unhandled signal 9."], "SolidQueue::Processes::ProcessExitError"
)
def test_the_quick_way_over_numbers_leads_to_the_same_signature(words: list[str], name: str) -> None:
    error = error_json(name, " ".join(words), ["/app/jobs/a7.rb:12:in 'run'"])
    assert outline(error, len(error), 10**6) == (signature_of(error),)


@given(st.lists(WORDS, min_size=1, max_size=6), st.sampled_from(["ValueError", "E2"]), st.integers(0, 9))
@example(["status", "4"], "ValueError", 0)
@example(["id", "4"], "ValueError", 0)
def test_digits_that_zeros_may_hide_are_seen_in_the_zeros(words: list[str], name: str, other: int) -> None:
    error, third = (
        error_json(name, " ".join(words).translate(digits), ["/app/jobs/a7.rb:12:in 'run'"])
        for digits in ({}, str.maketrans("123456789", str((other + 3) % 10) * 9))
    )
    head, behind, backtrace = error.partition('"backtrace":')
    start, message, text = head.partition('","message":"')
    folded = f"{start}{message}{text.translate(str.maketrans('123456789', '0' * 9))}{behind}{backtrace}"
    if "\\u" not in error and not hides_digits(folded):
        assert signature_of(error) == signature_of(third) == signature_of(folded)
