"""How likely chance alone makes a difference as large: p-values of Kolmogorov-Smirnov and chi-square tests."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_SMALL = 140  # below, the distribution is summed up exactly
_SUMMED = 1_000_000  # beyond, one tail is that of Maag and Dicaire (1971)
_NODES = 40_000  # at which a long sum of a smooth function is evaluated
_STIRLING = 16  # up to here, factorials are taken as they are
_STIRLING_TERMS = (-691 / 360_360, 1 / 1_188, -1 / 1_680, 1 / 1_260, -1 / 360, 1 / 12)


def two_sample(d: float, first: int, second: int) -> float:
    """The p-value of two samples' D, with as many values as one sample would need (as SciPy's ``method="asymp"``)."""
    return kolmogorov(round(first * second / (first + second)), d)


def kolmogorov(n: int, d: float) -> float:
    """The probability that D of n values exceeds d, as Simard and L'Ecuyer (2011) choose how to calculate it."""
    t, spread = n * d, n * d * d
    if d <= 0 or t <= 0.5:
        return 1.0
    if d >= 1 or (n > _SMALL and spread >= 370):
        return 0.0
    if t <= 1:  # n! ((2t - 1) / n)^n
        return 1 - math.exp(math.lgamma(n + 1) + n * (math.log(2 * t - 1) - math.log(n))) if t > 0.5 else 1.0
    if t >= n - 1:
        return 2 * (1 - d) ** n
    if d >= 0.5 or spread >= (2.2 if n > _SMALL else 4):
        return min(1.0, 2 * (_one_sided(n, d) if n <= _SUMMED else math.exp(-((6 * t + 1) ** 2) / (18 * n))))
    if n <= _SMALL or (n <= 100_000 and n * d**1.5 <= 1.4):
        return _clipped(1 - _by_matrix(n, d))
    return _clipped(1 - _pelz_good(n, d))


def chi_square(statistic: float, freedom: int) -> float:
    """The probability that chi-square exceeds a statistic: the upper incomplete gamma function."""
    if freedom < 1 or statistic <= 0:
        return 1.0
    if math.isinf(statistic):
        return 0.0
    a, x = freedom / 2, statistic / 2
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        k = a
        while abs(term) > abs(total) * 1e-17:
            k += 1
            term *= x / k
            total += term
        return _clipped(1 - total * scale)
    tiny = 1e-300  # Lentz's continued fraction
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    h = d
    for i in range(1, 100_000):
        step = -i * (i - a)
        b += 2
        d = 1 / (_not_zero(step * d + b, tiny))
        c = _not_zero(b + step / c, tiny)
        h *= d * c
        if abs(d * c - 1) < 1e-16:
            break
    return _clipped(h * scale)


def chi_square_beyond(freedom: int, z: float) -> float:
    """What chi-square exceeds as rarely as a normal value exceeds z, by Wilson and Hilferty (1931)."""
    third = 2 / (9 * freedom)
    return float(freedom * max(0.0, 1 - third + z * math.sqrt(third)) ** 3)


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def _clipped(probability: float) -> float:
    return min(1.0, max(0.0, probability))


def _one_sided(n: int, d: float) -> float:
    """P(D+ >= d): the sum over j of C(n, j) d (d + j/n)^(j-1) (1 - d - j/n)^(n-j) (Birnbaum and Tingey, 1951).

    Each term is a binomial probability, as Loader (2000) calculates it without loss. Where there are many, every so
    many are taken that many times: of a smooth function that is flat at both ends, the error is far below a double.
    """
    last = math.floor(n * (1 - d))
    if last == n * (1 - d) and last == n:
        last -= 1
    head = (1 - d) ** n  # j = 0
    if last < 1:
        return head
    if last <= 2 * _NODES:
        step, count = 1.0, last
    else:
        step, count = last / _NODES, _NODES - 1
    j: NDArray[np.float64] = np.arange(1, count + 1, dtype=np.float64) * step
    rest = n - j
    with np.errstate(divide="ignore", invalid="ignore"):
        off = -j * np.log1p(n * d / j) - rest * np.log1p(-n * d / rest)
        log = _stirling_error(np.array([float(n)]))[0] - _stirling_error(j) - _stirling_error(rest) - off
        size = np.sqrt(n / (2 * np.pi * j * rest)) * np.exp(log) * (d / (d + j / n))
    return head + float(np.nansum(size)) * step


def _stirling_error(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """log n! minus Stirling's formula."""
    inverse = np.zeros_like(n)
    np.divide(1.0, n * n, out=inverse, where=n > 0)
    found = np.zeros_like(n)
    for term in _STIRLING_TERMS:
        found = found * inverse + term
    found = found * np.sqrt(inverse)
    for i in np.flatnonzero(n < _STIRLING):
        x = float(n[i])
        found[i] = math.lgamma(x + 1) - (x + 0.5) * math.log(x) + x - 0.5 * math.log(2 * math.pi) if x > 0 else 0.0
    return found


def _by_matrix(n: int, d: float) -> float:
    """P(D < d), by the power of a matrix (Durbin 1973; Marsaglia, Tsang and Wang 2003)."""
    k = math.floor(n * d) + 1
    m, h = 2 * k - 1, k - n * d
    i = np.arange(m)
    matrix = np.where(i[:, None] - i + 1 >= 0, 1.0, 0.0)
    powers = h ** np.arange(1, m + 1)
    matrix[:, 0] -= powers
    matrix[m - 1, :] -= powers[::-1]
    matrix[m - 1, 0] += (2 * h - 1) ** m if 2 * h > 1 else 0.0
    factorials = np.array([math.lgamma(x + 1) for x in range(m + 1)])
    order = np.maximum(i[:, None] - i + 1, 0)
    matrix *= np.exp(-factorials[order])
    power, exponent = _power(matrix, n)
    value = power[k - 1, k - 1]
    if value <= 0:
        return 0.0
    return math.exp(math.log(value) + exponent * math.log(2) + math.lgamma(n + 1) - n * math.log(n))


def _power(matrix: NDArray[np.float64], n: int) -> tuple[NDArray[np.float64], int]:
    """A power of a matrix, and the power of two that it has to be multiplied by."""
    found, exponent = np.eye(len(matrix)), 0
    square, of_square = matrix, 0
    while n:
        if n & 1:
            found, exponent = found @ square, exponent + of_square
            found, exponent = _scaled(found, exponent)
        n >>= 1
        if n:
            square, of_square = _scaled(square @ square, 2 * of_square)
    return found, exponent


def _scaled(matrix: NDArray[np.float64], exponent: int) -> tuple[NDArray[np.float64], int]:
    shift = int(np.frexp(np.abs(matrix).max())[1])
    return (np.ldexp(matrix, -shift), exponent + shift) if abs(shift) > 100 else (matrix, exponent)


def _pelz_good(n: int, d: float) -> float:
    """P(D < d) up to terms of n^(-3/2) (Pelz and Good, 1976)."""
    z = d * math.sqrt(n)
    square = z * z
    k = np.arange(0, 12)
    halves = ((k + 0.5) * math.pi) ** 2
    whole = (k * math.pi) ** 2
    near = 2 * np.exp(-halves / (2 * square))  # of k and of -k - 1
    far = 2 * np.exp(-whole / (2 * square))
    far[0] = 1.0
    root = math.sqrt(math.pi / 2)
    zero = math.sqrt(2 * math.pi) / z * float((near / 2).sum())
    one = root / (6 * z**4) * float(((halves - square) * near).sum())
    two = root / (72 * z**7) * float(
        ((6 * z**6 + 2 * z**4 + (2 * z**4 - 5 * square) * halves + (1 - 2 * square) * halves**2) * near).sum()
    ) - root / (36 * z**3) * float((whole * far).sum())
    inner = (
        -30 * z**6
        - 90 * z**8
        + (135 * z**4 - 96 * z**6) * halves
        + (212 * z**4 - 60 * square) * halves**2
        + (5 - 30 * square) * halves**3
    )
    three = root / (6480 * z**10) * float((inner * near).sum())
    three += root / (216 * z**6) * float(((-(whole**2) + 3 * whole * square) * far).sum())
    return float(zero + one / math.sqrt(n) + two / n + three / n**1.5)
