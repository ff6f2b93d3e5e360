"""Significance: p-values of Fisher's exact test, which decide whether a difference may be chance."""

import math

_NEGLIGIBLE = 1e-17  # relative to the sum: adding less changes no float


def fisher(ones_with: int, ones: int, others_with: int, others: int) -> float:
    """Return the one-sided p-value of Fisher's exact test.

    That is the chance of at least ``ones_with`` among ``ones`` if both groups have the trait equally often;
    ``others_with`` of the ``others`` have it.
    """
    total, marked = ones + others, ones_with + others_with
    least, most = max(ones_with, marked - others, 0), min(marked, ones)
    if most < least:
        return 0.0
    # From the likeliest count on both ways, each term from the one before: all other terms are smaller.
    peak = min(max(least, (marked + 1) * (ones + 1) // (total + 2)), most)
    term = math.exp(log_comb(marked, peak) + log_comb(total - marked, ones - peak) - log_comb(total, ones))
    p = more = term
    for count in range(peak, most):
        more *= (marked - count) * (ones - count) / ((count + 1) * (others - marked + count + 1))
        p += more
        if more < p * _NEGLIGIBLE:
            break
    more = term
    for count in range(peak, least, -1):
        more *= count * (others - marked + count) / ((marked - count + 1) * (ones - count + 1))
        p += more
        if more < p * _NEGLIGIBLE:
            break
    return min(1.0, p)


def log_comb(n: int, k: int) -> float:
    """Return the natural logarithm of the binomial coefficient ``n`` over ``k``."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
