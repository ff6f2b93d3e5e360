"""The settings of a supervisor, and the line of JSON that it sends to each child."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from solidjq.database.tables import DEFAULT_PREFIX
from solidjq.processes.heartbeat import ALIVE_THRESHOLD, HEARTBEAT_INTERVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of a supervisor and its children. All times in seconds; the defaults are Solid Queue's."""

    database_url: str
    table_prefix: str = DEFAULT_PREFIX
    imports: tuple[str, ...] = ()
    queues: tuple[str, ...] = ("*",)
    excepted_queues: tuple[str, ...] = ()
    threads: int = 3
    prefetch: int = 0  # jobs that a worker claims beyond one a thread
    processes: int = 1
    worker_polling_interval: float = 0.1
    dispatcher_polling_interval: float = 1.0
    dispatcher_batch_size: int = 500
    concurrency_maintenance_interval: float = 600.0
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    alive_threshold: float = ALIVE_THRESHOLD
    shutdown_timeout: float = 5.0
    lost_timeout: float = 5.0
    leave_children: bool = False  # programs that jobs started outlive a worker that died


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildConfig:
    """The settings of one child. Sent as one line of JSON on standard input: a command line would show the password."""

    kind: str
    name: str
    supervisor_id: int
    config: Config
    last_words: int | None = None  # the file descriptor of a file for the stack of a crash
    hands: int | None = None  # another one, for the claims that it holds (see hands.py)

    def to_json(self) -> str:
        """Return the line that ``from_json`` parses."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse a line of ``to_json``."""
        data = json.loads(text)
        config = data.pop("config")
        config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
        return cls(**data, config=Config(**config))
