"""What a supervisor is told, and tells its children."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from solidjq.database.tables import DEFAULT_PREFIX
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, HEARTBEAT_INTERVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How a supervisor and its children run. All times in seconds; the defaults are Solid Queue's own."""

    database_url: str
    table_prefix: str = DEFAULT_PREFIX
    imports: tuple[str, ...] = ()
    queues: tuple[str, ...] = ("*",)
    threads: int = 3
    prefetch: int = 0  # jobs claimed beyond one a thread
    processes: int = 1
    worker_polling_interval: float = 0.1
    dispatcher_polling_interval: float = 1.0
    dispatcher_batch_size: int = 500
    concurrency_maintenance_interval: float = 600.0
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    alive_threshold: float = ALIVE_THRESHOLD
    shutdown_timeout: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildConfig:
    """What one child needs to know; it travels as one line of JSON, so that no password stands in a command line."""

    kind: str
    name: str
    supervisor_id: int
    config: Config
    last_words: int | None = None  # a file descriptor for the stack of a crash
    hands: int | None = None  # another, for what it has in hand (see hands.py)

    def to_json(self) -> str:
        """Write it for ``from_json``."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote."""
        data = json.loads(text)
        config = data.pop("config")
        config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
        return cls(**data, config=Config(**config))
