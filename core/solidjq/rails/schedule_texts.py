"""The texts of schedules, which Solid Queue gives to fugit.

Read are cron lines of 5 or 6 fields (the first of 6 is the second), ``@daily`` and the like, and the common sentences:
``every 5 minutes``, ``every weekday at 9am``, ``every month on the 1st at 10:00``. What is not read here is None, never
a guess: fugit knows more sentences, and random or alternating times.
"""

import re
from collections.abc import Sequence

from solidjq.rails.schedules import DayOfMonth, Schedule, Weekday

MOST_CHARACTERS = 256  # fugit's own limit
_SPECIALS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@noon": "0 12 * * *",
    "@hourly": "0 * * * *",
}
_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ZONE = re.compile(r" (?:(?:in|on) )?(?:[A-Z][\w+-]*(?:/[A-Z][\w+-]*){1,2}|[+-]\d\d:?\d\d|Z|[A-Z]{3,5})$", re.ASCII)


def parse_schedule(text: str) -> Schedule | None:
    """Read a schedule; None for one that is not read here."""
    if len(text) > MOST_CHARACTERS:
        return None
    words = " ".join(text.split())
    lines = dict.fromkeys((words, _ZONE.sub("", words)))  # the name of a zone at the end changes no period
    return next((read for line in lines if (read := _parse_line(line))), None)


def _parse_line(line: str) -> Schedule | None:
    return _parse_cron(_SPECIALS.get(line, line)) or _parse_sentence(line)


def _parse_cron(line: str) -> Schedule | None:
    fields = line.split()
    if len(fields) == 5:  # noqa: PLR2004  (without the second)
        fields = ["0", *fields]
    if len(fields) != 6:  # noqa: PLR2004
        return None
    second, minute, hour, monthday, month, weekday = fields
    both = monthday.endswith("&") or weekday.endswith("&")
    seconds, minutes = _numbers(second, 0, 59), _numbers(minute, 0, 59)
    hours, months = _numbers(hour, 0, 24), _numbers(month, 1, 12, _MONTHS)
    monthdays, weekdays = _monthdays(monthday.removesuffix("&")), _weekdays(weekday.removesuffix("&"))
    if not (seconds and minutes and hours and months) or monthdays is None or weekdays is None:
        return None
    within_a_day = tuple(sorted({number % 24 for number in hours}))
    return Schedule(seconds, minutes, within_a_day, months, monthdays, weekdays, both)


_ELEMENT = re.compile(r"(?:(?P<star>\*)|(?P<from>\w+)(?:-(?P<to>\w+))?)?(?:/(?P<step>\d{1,2}))?", re.ASCII)


def _numbers(field: str, least: int, most: int, names: Sequence[str] = ()) -> tuple[int, ...] | None:
    """Return the numbers of a field of cron; None if it is none, or of a kind that is not read here."""
    numbers: set[int] = set()
    for element in field.split(","):
        match = _ELEMENT.fullmatch(element)
        if not element or match is None:
            return None
        step = int(match["step"] or 1)
        top = 23 if most == 24 else most  # noqa: PLR2004  (an hour may be written 24)
        low = least if match["from"] is None else _number(match["from"], names)
        high = top if match["to"] is None else _number(match["to"], names)
        if low is None or high is None or not (least <= low <= most and least <= high <= most) or step == 0:
            return None
        if match["from"] is not None and match["to"] is None and match["step"] is None:
            high = low
        whole = range(low, high + 1) if low <= high else [*range(low, top + 1), *range(least, high + 1)]
        numbers.update(whole[::step])
    return tuple(sorted(numbers))


def _number(text: str, names: Sequence[str]) -> int | None:
    if text.isdigit():
        return int(text)
    lower = text.lower()
    return names.index(lower) if lower and lower in names else None


def _monthdays(field: str) -> tuple[DayOfMonth, ...] | None:
    """Return the days of the month, none of them for all; None if they cannot be read."""
    if field == "*":
        return ()
    days: list[DayOfMonth] = []
    for element in field.split(","):
        if element.lower() in {"l", "last"}:
            days.append(DayOfMonth(-1))
        elif re.fullmatch(r"-\d{1,2}", element):
            days.append(DayOfMonth(int(element)))
        elif (numbers := _numbers(element, 1, 31)) is not None:
            days += map(DayOfMonth, numbers)
        else:
            return None
    return tuple(days)


def _weekdays(field: str) -> tuple[Weekday, ...] | None:
    """Return the days of the week, none of them for all; None if they cannot be read."""
    if field == "*":
        return ()
    short = [name[:3] for name in _WEEKDAYS]
    days: list[Weekday] = []
    for element in field.split(","):
        name, hashed, nth = element.partition("#")
        numbers = _numbers(name, 0, 7, short)
        which = -1 if nth.lower() in {"l", "last"} else int(nth) if re.fullmatch(r"-?[1-5]", nth) else None
        if numbers is None or (hashed and which is None):
            return None
        days += [Weekday(number % 7, which) for number in numbers]
    return tuple(days)


_UNITS = "second|minute|hour|day|week|month|year"
_EVERY = re.compile(
    rf"every (?:(?P<count>\d{{1,3}}) )?(?P<unit>{_UNITS})s?(?: (?P<rest>.+))?"
    r"|every (?P<days>(?!second|minute|hour|day|week |month|year).+?)(?: (?P<after>(?:at|on) .+))?",
)
_TIME = re.compile(r"(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d))? ?(?P<half>am|pm)?")
_ORDINAL = re.compile(r"(?P<day>\d{1,2})(?:st|nd|rd|th)?")
_AND = re.compile(r", ?(?:and |or )?| (?:and|or) ")
_NAMED_TIMES = {"noon": (12, 0), "midday": (12, 0), "midnight": (0, 0)}
_NAMED_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "tenth": 10,
    "fifteenth": 15,
    "last": -1,
}


def _parse_sentence(text: str) -> Schedule | None:
    """Turn a sentence into the line of cron that fugit makes of it; None if it is not one of the common ones."""
    words = text.lower().replace(" of the month", "")
    match = _EVERY.fullmatch(words)
    if match is None:
        return None
    if match["unit"]:
        line = _interval(match["unit"], int(match["count"] or 1), match["rest"] or "")
    else:
        line = _on_days(match["days"], match["after"] or "")
    return None if line is None else _parse_cron(line)


def _interval(unit: str, count: int, rest: str) -> str | None:
    step = "*" if count == 1 else f"*/{count}"
    on, at = _clauses(rest)
    if on is None or at is None:
        return None
    match unit, count, on, at:
        case ("second", _, "", ""):
            return f"{step} * * * * *"
        case ("minute", _, "", ""):
            return f"{step} * * * *"
        case ("hour", _, "", _) if minute := re.fullmatch(r"(?:minute (\d{1,2}))?", at):
            return f"{minute[1] or 0} {step} * * *"
        case _:
            time = _times(at or "0:00")
            return None if time is None or unit in {"second", "minute", "hour"} else _in_days(unit, count, on, time)


def _in_days(unit: str, count: int, on: str, time: str) -> str | None:
    step = "*" if count == 1 else f"*/{count}"
    match unit, count:
        case "day", _ if not on:
            return f"{time} {step} * *"
        case (("day" | "week"), 1):
            return _day_line(time, on or "sunday")
        case "year", 1 if not on:
            return f"{time} 1 1 *"
        case "month", _ if (days := _days_of_month(on or "1")) is not None:
            return f"{time} {days} {step} *"
        case _:
            return None


def _on_days(days: str, rest: str) -> str | None:
    on, at = _clauses(rest)
    time = _times(at or "0:00") if at is not None else None
    if on or time is None:
        return None
    if (monthdays := _days_of_month(days)) is not None:
        return f"{time} {monthdays} * *"
    return _day_line(time, days)


def _clauses(rest: str) -> tuple[str, str] | tuple[None, None]:
    """Split ``on the 1st at 10:00`` into what stands behind on and at; None if there is anything else."""
    match = re.fullmatch(r"(?:on (?P<on>.+?))?(?: ?at (?P<at>.+))?", rest)
    return (match["on"] or "", match["at"] or "") if match else (None, None)


def _day_line(time: str, days: str) -> str | None:
    weekdays = _days_of_week(days)
    return None if weekdays is None else f"{time} * * {weekdays}"


def _times(text: str) -> str | None:
    """Return minute and hours of times that share their minute, as cron has them."""
    times = [_time(part) for part in _AND.split(text)]
    minutes = {time[1] for time in times if time}
    if None in times or len(minutes) != 1:
        return None
    hours = ",".join(str(time[0]) for time in times if time)
    return f"{minutes.pop()} {hours}"


def _time(text: str) -> tuple[int, int] | None:
    if text in _NAMED_TIMES:
        return _NAMED_TIMES[text]
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour, minute = int(match["hour"]), int(match["minute"] or 0)
    if match["half"] == "pm" and hour < 12:  # noqa: PLR2004
        hour += 12
    elif match["half"] == "am" and hour == 12:  # noqa: PLR2004
        hour = 0
    return (hour, minute) if hour <= 24 else None  # noqa: PLR2004


def _days_of_week(text: str) -> str | None:
    if text == "weekday":
        return "1-5"
    parts = []
    for part in _AND.split(text):
        ends = [_weekday(day) for day in re.split(r" ?- ?| to | through ", part)]
        if None in ends or len(ends) > 2:  # noqa: PLR2004
            return None
        parts.append("-".join(str(end) for end in ends))
    return ",".join(parts)


def _weekday(text: str) -> int | None:
    return next((at for at, name in enumerate(_WEEKDAYS) if text in {name, name[:3]}), None)


def _days_of_month(text: str) -> str | None:
    days = []
    for part in _AND.split(re.sub(r"^days? ", "", text)):
        word = part.removeprefix("the ")
        match = _ORDINAL.fullmatch(word)
        day = int(match["day"]) if match else _NAMED_ORDINALS.get(word)
        if day is None or day == 0 or day > 31:  # noqa: PLR2004
            return None
        days.append("L" if day < 0 else str(day))
    return ",".join(days)
