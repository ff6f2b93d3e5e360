"""What became of one attempt to deliver a message."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """The outcome of one attempt. ``words`` is why the receiver did not take the message, empty if it did."""

    words: str = ""
    again: bool = False  # whether another attempt may succeed
    after: float | None = None  # seconds until the next attempt, if the receiver asks for so many

    @property
    def delivered(self) -> bool:
        """Whether the message was taken."""
        return not self.words


DELIVERED = Outcome()
