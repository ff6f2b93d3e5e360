"""How long to wait before something that keeps failing is tried again."""


def backoff(first: float, failures: int, most: float) -> float:
    """Return the seconds after so many failures: ``first``, doubled with each other one, up to ``most``.

    However many there are: two to the power of some thousand is no number any more.
    """
    return min(most, first * 2.0 ** min(failures - 1, 64))
