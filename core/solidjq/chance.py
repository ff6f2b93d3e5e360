"""How probable it is that chance alone did it."""

import math

_NOTHING = 1e-17  # of a sum: adding it changes no float


def fisher(ones_with: int, ones: int, others_with: int, others: int) -> float:
    """Return how probable it is that so many of the ones or more have it, if ones and others have it equally often.

    That is Fisher's exact test, one-sided.
    """
    total, marked = ones + others, ones_with + others_with
    every, p = log_comb(total, ones), 0.0
    for count in range(ones_with, min(marked, ones) + 1):
        more = math.exp(log_comb(marked, count) + log_comb(total - marked, ones - count) - every)
        p += more
        if more < p * _NOTHING:  # and what follows is less
            break
    return min(1.0, p)


def log_comb(n: int, k: int) -> float:
    """Return the logarithm of the number of ways to choose k of n."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
