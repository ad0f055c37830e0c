"""Log-normal factors with the same bits on every machine."""

from decimal import Context, Decimal

_CONTEXT = Context(prec=20)


def lognormal(sigma: float, z: float) -> float:
    """exp(sigma z): a log-normal factor of median 1 (and mean exp(sigma^2 / 2)) for a standard normal `z`.

    Taken in decimal arithmetic, which is correctly rounded, because `math.exp` and `numpy.exp` differ in
    the last bit from one processor and C library to the next.

    Args:
        sigma: Standard deviation of the logarithm, 0 for no spread.
        z: A draw from the standard normal distribution.
    """
    return float(_CONTEXT.exp(Decimal(sigma * z)))
