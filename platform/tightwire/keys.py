"""Keyed randomness: every random number of a simulation comes from (seed, purpose, round, client).

Nothing here depends on the order in which work is done or on who does it, so a run gives the same bits on any number
of workers and after a resume. There is no global generator and no wall clock.
"""

import hashlib

import numpy as np


def key(seed: int, purpose: str, *, round: int = 0, client: int = 0) -> int:
    """A 64-bit key for one purpose: BLAKE2b over (seed, round, client, purpose).

    Args:
        seed: The run's seed, any Python integer.
        purpose: What the numbers are for, such as ``"shuffle"``; different purposes give unrelated keys.
        round: Round number, or 0 where rounds do not matter.
        client: Client number, or 0 where clients do not matter.

    Returns:
        An integer in [0, 2**64).
    """
    text = f"{seed}/{round}/{client}/{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def generator(seed: int, purpose: str, *, round: int = 0, client: int = 0) -> np.random.Generator:
    """A NumPy generator (Philox, counter-based) on the key of the same arguments; see `key`."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, round=round, client=client)))
