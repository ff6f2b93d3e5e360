"""What is posted, to a real server: signed, bounded, escaped; and what comes of each answer."""

import base64
import contextlib
import hmac
import json
import os
import re
import socket
import ssl
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from solidjq.errors import UsageError
from solidjq.watching import cooldowns, webhooks
from solidjq.watching.deliveries import FIRST_PAUSE, MOST_WAITING, Deliveries, pause_after
from solidjq.watching.messages import bounded
from solidjq.watching.position import Cooldown, Position
from solidjq.watching.position_file import PositionFile
from solidjq.watching.programs import Program
from solidjq.watching.slack import MOST_LISTED, MOST_TEXT, slack_form
from solidjq.watching.webhooks import Form, Webhook, read_secret
from support.paths import ROOT
from support.receiver import Receiver
from support.waiting import until

SECRET = b"a secret of thirty-two bytes ...."


def message(number: int = 1, **other: Any) -> dict[str, Any]:
    fields = {"id": f"jq-1-incident-d{number}", "kind": "incident", "name": f"d{number}", "cause": "killed"}
    rest = {"title": f"d{number} died", "database": "shop", "jobs": [], "jobs_total": 0, "next": []}
    return {**fields, **rest, **other}


def delivery(tmp_path: Path, *targets: Any) -> tuple[Deliveries, Position, list[str]]:
    said: list[str] = []
    position = Position("here")
    return Deliveries(targets, position, PositionFile(tmp_path / "position"), said.append), position, said


def test_a_position_that_cannot_be_written_holds_up_no_delivery(receiver: Receiver, tmp_path: Path) -> None:
    hook = Webhook(receiver.url)
    deliveries, position, said = delivery(tmp_path / "gone", hook)

    def deliver(*numbers: int) -> list[str]:
        for number in numbers:
            deliveries.add(message(number), [hook])
        assert deliveries.deliver_now() == 0
        return [posted.message["name"] for posted in receiver.posted]

    assert deliver(1, 2) == ["d1", "d2"]
    (words,) = said
    assert "position cannot be written: No such file or directory; the watch goes on" in words
    (tmp_path / "gone").mkdir()
    assert deliver(3) == ["d1", "d2", "d3"]
    assert said[1:] == [f"{tmp_path}/gone/position is written again"]
    assert PositionFile(tmp_path / "gone" / "position").load("here") == Position("here", position.deaths)


def test_a_receiver_can_verify_it(receiver: Receiver) -> None:
    hook = Webhook(receiver.url, secret=SECRET)
    assert hook.deliver(message(title="ümläut")).delivered
    (posted,) = receiver.posted
    assert posted.path == "/secret/path?token=hidden"
    assert posted.message["title"] == "ümläut"
    headers = posted.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + posted.body
    version, _, signature = headers["webhook-signature"].partition(",")
    assert (version, headers["webhook-id"]) == ("v1", message()["id"])
    assert hmac.compare_digest(base64.b64decode(signature), hmac.digest(SECRET, signed, sha256))
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert Webhook(receiver.url).deliver(message()).delivered
    assert "webhook-signature" not in receiver.posted[1].headers


def test_the_receiver_of_the_docs(receiver: Receiver) -> None:
    page = (ROOT / "docs/how-to/be-told-when-a-worker-dies.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  (our own page)
    assert Webhook(receiver.url, secret=SECRET).deliver(message(title="ümläut")).delivered
    (posted,) = receiver.posted
    assert names["is_ours"](posted.headers, posted.body, SECRET)
    assert not names["is_ours"](posted.headers, posted.body + b" ", SECRET)
    assert not names["is_ours"](posted.headers, posted.body, b"another secret")
    assert not names["is_ours"]({**posted.headers, "webhook-timestamp": "1"}, posted.body, SECRET)


@pytest.mark.parametrize(
    ("status", "headers", "again", "after"),
    [
        (500, {}, True, None),
        (503, {"Retry-After": "7"}, True, 7.0),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, True, 0.0),
        (429, {"Retry-After": "999999999"}, True, webhooks.LONGEST_RETRY_AFTER),
        (503, {"Retry-After": "soon"}, True, None),
        (404, {}, False, None),
        (410, {}, False, None),
        *((status, {"Location": "/elsewhere"}, False, None) for status in (301, 302, 303, 307, 308)),
    ],
)
def test_what_an_answer_means(
    receiver: Receiver,
    status: int,
    headers: dict[str, str],
    again: bool,  # noqa: FBT001
    after: float | None,
) -> None:
    receiver.answers.append((status, headers))
    outcome = Webhook(receiver.url).deliver(message())
    assert (outcome.delivered, outcome.again, outcome.after) == (False, again, after)
    assert str(status) in outcome.words
    assert len(receiver.posted) == 1  # no redirect was followed


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_passes_nothing_on(receiver: Receiver, status: int) -> None:
    """Neither the message nor its signature is sent on, nor is anything asked there."""
    receiver.answers.append((status, {"Location": f"http://localhost:{receiver.port}/elsewhere"}))
    outcome = Webhook(receiver.url, secret=b"a secret of 16 bytes").deliver(message())
    assert (outcome.delivered, outcome.again) == (False, False)
    assert "redirects are not followed" in outcome.words
    assert len(receiver.posted) == 1


def test_a_server_that_does_not_answer(receiver: Receiver) -> None:
    """It accepts and says nothing; it sends a byte now and then, so that no single wait is long; it is not there."""
    receiver.held.clear()
    silent = Webhook(receiver.url, timeout=0.2).deliver(message())
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = threading.Event()

        def drip() -> None:
            client, _ = server.accept()
            with client:
                while not gone.wait(0.02):
                    try:
                        client.sendall(b"HTTP/1.1 200 OK\r\n"[:1])
                    except OSError:
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        slow = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=0.3).deliver(message())
        gone.set()
        dripping.join()
    with socket.socket() as deaf:  # it keeps its port from all others, and does not listen
        deaf.bind(("127.0.0.1", 0))
        absent = Webhook(f"http://127.0.0.1:{deaf.getsockname()[1]}/hidden").deliver(message())
    assert (silent.words, slow.words) == ("it did not answer within 0.2 s", "it did not answer within 0.3 s")
    assert absent.words == "it cannot be reached: Connection refused"
    for outcome in (silent, slow, absent):
        assert (outcome.delivered, outcome.again) == (False, True)


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [
        ("http", b"", "it closed the connection without an answer"),
        ("http", b"what do you want?\r\n", "what it answered is not HTTP"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "no encrypted connection could be made"),
    ],
)
def test_a_server_that_answers_nothing_useful(scheme: str, answer: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65_536)
                client.sendall(answer)
                # Closing before all is read sends a reset, which is another outcome.
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65_536):
                        pass

        closing = threading.Thread(target=close)
        closing.start()
        outcome = Webhook(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/hidden").deliver(message())
        closing.join()
    assert (outcome.delivered, outcome.again) == (False, True)
    assert words in outcome.words
    assert "hidden" not in outcome.words


def test_a_certificate_must_be_valid(receiver: Receiver) -> None:
    """No TLS at all, where it is expected, is none either."""
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
    outcome = Webhook(receiver.url.replace("http:", "https:")).deliver(message())
    assert (outcome.delivered, outcome.again) == (False, True)
    assert receiver.posted == []


def test_urls_and_secrets_that_cannot_be_used() -> None:
    for url in (
        "ftp://host/x",
        "https://",
        "host",
        "https://host:port/",
        "https://ho st/",
        "https://host/\nx",
        "http://[::",
    ):
        with pytest.raises(UsageError, match="no URL"):
            Webhook(url)
    for user in ("user:hunter2", "hunter2", ":hunter2"):  # some receivers take the user for the secret
        with pytest.raises(UsageError, match="user or password") as refused:
            Webhook(f"https://{user}@host/token")
        assert "hunter2" not in str(refused.value)
    hook = Webhook("https://hooks.example/T0/secret", secret=SECRET)
    assert str(hook) == "https://hooks.example/***"
    assert "T0" not in repr(hook) + hook.key
    assert "secret of" not in repr(hook)
    encoded = "whsec_" + base64.b64encode(SECRET).decode()
    assert read_secret(f" {encoded}\n") == SECRET == read_secret(SECRET.decode())
    for text in ("short", "whsec_???", "whsec_YQ=="):
        with pytest.raises(UsageError, match="secret"):
            read_secret(text)


def test_nothing_in_slack_pings_or_links() -> None:
    hostile = {"job_id": 1, "class_name": "`<!channel>`<@U1>", "queue_name": "<http://x|y>" * 300}
    posted = slack_form(
        message(
            title=bounded("<!channel> &amp; <@U123> password=hunter2 \x1b[31m" + "x" * 10_000),
            jobs=[hostile] * 50,
            processes=[{"kind": "`<!channel>`\n", "pid": 1, "hostname": "<@U1>"}] * 50,
            jobs_total=50,
            next=["solidjq incidents show d1"],
            database="<!here>",
        )
    )
    text = json.dumps(posted)
    assert "<" not in text
    assert "hunter2" not in text
    assert all(len(block.get("text", {"text": ""})["text"]) <= MOST_TEXT for block in posted["blocks"])
    assert (posted["parse"], posted["link_names"]) == ("none", False)
    assert slack_form(message(next=["jq x"]))["blocks"][0]["text"]["text"].endswith("`jq x`")
    assert b'"blocks"' in Webhook("https://hooks.slack.com/services/x").body(message())
    assert b'"blocks"' in Webhook("https://chat.example/x", form=Form.SLACK).body(message())
    assert b'"blocks"' not in Webhook("https://hooks.slack.com.example/x").body(message())


@pytest.mark.parametrize(("total", "more"), [(MOST_LISTED, []), (1234, [f"and {1234 - MOST_LISTED:,} more"])])
def test_slack_says_how_many_jobs_are_left_out(total: int, more: list[str]) -> None:
    jobs = [{"job_id": number, "class_name": "MailJob", "queue_name": "default"} for number in range(total)]
    posted = slack_form(message(jobs=jobs, jobs_total=total))
    lines = posted["blocks"][0]["text"]["text"].splitlines()
    assert sum("MailJob" in line for line in lines) == MOST_LISTED
    assert [line for line in lines if "more" in line] == more


# -- delivering -------------------------------------------------------------------------------------------------------


def test_each_is_delivered_although_another_is_down(receiver: Receiver, tmp_path: Path) -> None:
    """In order, again after an error, dropped after an answer that will not change; the position has what is left."""
    up, down = Webhook(receiver.url), Webhook("http://127.0.0.1:1/secret", attempts=2)
    deliveries, position, said = delivery(tmp_path, down, up)
    receiver.answers += [(200, {}), (500, {}), (200, {}), (410, {})]
    for number in (1, 2, 3):
        deliveries.add(message(number), [up, down])
    paused: list[float] = []
    assert deliveries.deliver_now(paused.append) == 0
    assert [one["name"] for one in receiver.messages] == ["d1", "d2", "d2", "d3"]
    assert deliveries.dropped == 4
    assert sum("given up after 2 attempts" in line for line in said) == 3
    assert sum("it answered 410" in line for line in said) == 1
    assert len(paused) == 4
    assert not any("secret" in line for line in said)
    patient = Webhook("http://127.0.0.1:1/other")
    deliveries, position, _ = delivery(tmp_path, patient)
    for number in range(MOST_WAITING + 5):
        deliveries.add(message(number), [patient])
    assert len(position.outbox[patient.key]) == MOST_WAITING + 5  # nothing was refused yet
    assert deliveries.deliver_now(lambda _: None) == MOST_WAITING + 5
    assert position.outbox[patient.key][0].attempts == 3
    deliveries.add(message(MOST_WAITING + 5), [patient])
    assert len(position.outbox[patient.key]) == MOST_WAITING


def test_a_delivery_at_once_is_tried_again_after_seconds_though_an_hour_was_asked_for(
    receiver: Receiver, tmp_path: Path
) -> None:
    hook = Webhook(receiver.url)
    deliveries, _, _ = delivery(tmp_path, hook)
    receiver.answers += [(503, {"Retry-After": "3600"})] * 3
    deliveries.add(message(1), [hook])
    paused: list[float] = []
    assert deliveries.deliver_now(paused.append) == 1
    assert paused == [2 * FIRST_PAUSE, 4 * FIRST_PAUSE]


def test_threads_deliver_and_stop(receiver: Receiver, tmp_path: Path) -> None:
    """One that is under way when the watch ends is finished."""
    hook = Webhook(receiver.url)
    deliveries, position, _ = delivery(tmp_path, hook)
    deliveries.start()
    receiver.held.clear()
    deliveries.add(message(1), [hook])
    deliveries.add(message(2), [hook])
    stopping = threading.Thread(target=deliveries.stop)
    while not position.outbox[hook.key]:
        pass
    stopping.start()
    receiver.held.set()
    stopping.join()
    left = [waiting.message["name"] for waiting in position.outbox[hook.key]]
    assert [one["name"] for one in receiver.messages] + left == ["d1", "d2"]


def test_pauses() -> None:
    assert [pause_after(number, lambda: 1.0) for number in (1, 2, 3, 9, 100)] == [1, 2, 4, 256, 300]
    assert pause_after(3, lambda: 0.0) == 2


def test_programs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The message is on standard input; a status, a signal and a time that is over are failures. No shell reads it."""
    out = tmp_path / "out"
    line = f"""sh -c 'cat > {out}; echo "$JQ_KIND $JQ_ID $JQ_NAME" >> {out}; echo printed'"""
    assert Program(line).deliver(message(name="$(touch /tmp/x)\0")).delivered
    written = out.read_text().splitlines()
    assert json.loads(written[0])["name"] == "$(touch /tmp/x)\0"
    assert written[1] == "incident jq-1-incident-d1 $(touch /tmp/x)"
    assert capfd.readouterr() == ("", "printed\n")
    left = tmp_path / "left"
    for command, words in (
        ("sh -c 'exit 3'", "with status 3"),
        ("sh -c 'kill -9 $$'", "by signal 9"),
        ("/nowhere/at/all", "cannot be started"),
    ):
        outcome = Program(command).deliver(message())
        assert (outcome.again, words in outcome.words) == (True, True)
    slow = f"sh -c '(sleep 5; touch {left}) & wait'"
    assert "did not end within 0.2 s" in Program(slow, timeout=0.2).deliver(message()).words
    assert Program("true").deliver(message(title="x" * 1_000_000)).delivered  # it reads nothing
    go = tmp_path / "go"
    os.mkfifo(go)  # what the command leaves running goes on when it has ended
    assert Program(f"sh -c '(read x < {go}; touch {left}) & exit 0'").deliver(message()).delivered
    assert not left.exists()
    go.write_text("\n")
    until(left.exists, "the background went on")
    for wrong in ("", "   ", "sh -c 'open"):
        with pytest.raises(UsageError, match="--exec"):
            Program(wrong)


# -- cooldowns --------------------------------------------------------------------------------------------------------


def test_one_message_and_the_later_ones_counted() -> None:
    state: dict[str, Cooldown] = {}

    def sent(now: float, number: int, **other: Any) -> bool:
        first = other.pop("first", True)
        return cooldowns.admit(state, message(number, jobs_total=2, **other), first=first, seconds=600, now=now)

    assert sent(0, 1)
    assert not any(sent(at, number) for at, number in ((1, 2), (2, 3), (3, 3)))
    assert sent(4, 4, cause="out of memory")
    assert sent(5, 5, kind="group")
    assert not sent(6, 5, kind="group", first=False)
    assert not sent(7, 6, kind="group", first=False)  # it adds to something that was told long ago
    assert sent(8, 7, kind="death")
    assert list(cooldowns.ended(state, seconds=600, now=599)) == []
    over = dict(cooldowns.ended(state, seconds=600, now=605))
    assert {key: (held.messages, held.jobs, held.names) for key, held in over.items()} == {
        "incident:killed": (3, 6, ["d2", "d3"]),
        "group:d5": (1, 2, ["d5"]),
    }
    assert not sent(700, 8)  # incidents go on: the next message comes when this is over
    assert not sent(701, 5, kind="group", first=False)
    assert [held.messages for _, held in cooldowns.ended(state, seconds=600, now=1300)] == [1]
    assert list(cooldowns.ended(state, seconds=600, now=3000)) == []
    assert sent(3001, 9)
    assert cooldowns.admit(state, message(10), first=True, seconds=0, now=3002)
    assert not sent(3002, 11)
    assert [held.messages for _, held in cooldowns.ended(state, seconds=600, now=10)] == [1]  # the clock was set back


def test_a_thousand_groups_are_a_handful_of_messages() -> None:
    state: dict[str, Cooldown] = {}
    sent = [
        cooldowns.admit(state, message(number, kind="group"), first=True, seconds=600, now=0) for number in range(1000)
    ]
    assert sum(sent) == cooldowns.MOST_KEYS + 1
    assert len(state) == cooldowns.MOST_KEYS + 1
    over = dict(cooldowns.ended(state, seconds=600, now=601))
    assert [held.messages for held in over.values()] == [979]
    (names,) = (held.names for held in over.values())  # of the many that were counted together, the first
    assert names == [f"d{number}" for number in range(cooldowns.MOST_KEYS + 1, cooldowns.MOST_KEYS + 21)]
