"""A message in the form that Slack's incoming webhooks take, which Mattermost and Rocket.Chat take too.

Slack acts on ``<!channel>``, ``<@U123>`` and ``<https://...|text>``: with ``&``, ``<`` and ``>`` escaped, a class name
or an error can be none of these.
"""

from typing import Any

MOST_TEXT = 3_000  # characters that a section takes
MOST_LISTED = 10  # jobs, and processes
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_IN_CODE = {**_ESCAPES, ord("`"): "'"}  # a backtick would end it
_SIGNS = {"death": ":skull:", "incident": ":rotating_light:", "group": ":warning:", "silent": ":mute:"}


def slack_form(message: dict[str, Any]) -> dict[str, Any]:
    """Return what is posted to Slack for a message."""
    title = _text(message["title"])
    lines = [f"{_SIGNS.get(message['kind'], '')} {title}"]
    silent = message.get("processes", [])
    processes = [f"{one['kind']} pid {one['pid']} on {one['hostname'] or '?'}" for one in silent[:MOST_LISTED]]
    if len(silent) > 1:
        lines += [_code(process) for process in processes]
    jobs = [
        f"{job['job_id']} {job['class_name']} ({job['queue_name'] or '?'})" for job in message["jobs"][:MOST_LISTED]
    ]
    if jobs:
        left_out = message["jobs_total"] - len(jobs)
        lines += [_code(job) for job in jobs] + ([f"and {left_out:,} more"] if left_out > 0 else [])
    lines += [_code(command) for command in message["next"]]
    return {
        "text": title,
        "blocks": [_section("\n".join(lines)), _context(f"{_text(message['database'])} · {message['id']}")],
        "parse": "none",
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "verbatim": True, "text": _cut(text)}}


def _context(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "verbatim": True, "text": _cut(text)}]}


def _cut(text: str) -> str:
    """Return at most as much as a section takes, ending with a whole line."""
    if len(text) <= MOST_TEXT:
        return text
    head = text[: MOST_TEXT - 1]
    return f"{head.rpartition(chr(10))[0] or head.rpartition('&')[0] or head}…"


def _text(text: str) -> str:
    return text.translate(_ESCAPES)


def _code(text: str) -> str:
    return f"`{text.translate(_IN_CODE)}`"
