"""How long to wait between attempts."""

import random


def backoff(first: float, failures: int, most: float) -> float:
    """Return the seconds to wait after so many failures in a row: ``first``, doubled for each more, up to ``most``.

    The exponent is capped: after some thousand failures the power would overflow a float.
    """
    return min(most, first * 2.0 ** min(failures - 1, 64))


def jittered(first: float, failures: int, most: float) -> float:
    """Return between half of ``backoff`` and all of it, at random: processes that failed together try again apart."""
    return backoff(first, failures, most) * random.uniform(0.5, 1)  # noqa: S311
