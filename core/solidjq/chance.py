"""Significance: p-values of Fisher's exact test, which decide whether a difference may be chance."""

import math

_NEGLIGIBLE = 1e-17  # relative to the sum: adding less changes no float


def fisher(ones_with: int, ones: int, others_with: int, others: int) -> float:
    """Return the one-sided p-value of Fisher's exact test.

    That is the chance of at least ``ones_with`` among ``ones`` if both groups have the trait equally often;
    ``others_with`` of the ``others`` have it.
    """
    total, marked = ones + others, ones_with + others_with
    every, p = log_comb(total, ones), 0.0
    for count in range(ones_with, min(marked, ones) + 1):
        more = math.exp(log_comb(marked, count) + log_comb(total - marked, ones - count) - every)
        p += more
        if more < p * _NEGLIGIBLE:  # the terms that follow are smaller still
            break
    return min(1.0, p)


def log_comb(n: int, k: int) -> float:
    """Return the natural logarithm of the binomial coefficient ``n`` over ``k``."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
