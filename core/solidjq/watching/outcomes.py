"""What became of one attempt to deliver a message."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """``words`` say why a message was not taken; they are empty if it was."""

    words: str = ""
    again: bool = False  # whether another attempt may succeed
    after: float | None = None  # seconds until the next attempt, if the receiver said so

    @property
    def delivered(self) -> bool:
        """Whether the message was taken."""
        return not self.words


DELIVERED = Outcome()
