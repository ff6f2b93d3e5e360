"""The history of a run: one JSON line an event, appended by the driver and by the jobs themselves.

An event has ``type`` (``invoke``: begun; ``ok``: done; ``fail``: it did not happen; ``info``: unknown, or a remark),
``f`` (``enqueue``, ``run``, ``command``, ``fault``, ``end``), ``at`` (seconds since the epoch) and what belongs to
``f``. The order of the lines is the order of the events: each is one write to a file that was opened for appending.
docs/chaos/README.md describes every field.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

VARIABLE = "CHAOS_HISTORY"  # names the file to the jobs


class History:
    """Appends to the file of a history, from any thread and any process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, kind: str, f: str, **values: Any) -> None:
        """Append an event of a type: see this module."""
        line = json.dumps({"type": kind, "f": f, **values, "at": round(time.time(), 3)})
        os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the events of a history, in their order."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
