"""Torch keeps one thread count and one generator a process; here they are borrowed and given back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch on one thread, as the same bits on every machine need, and restore the count afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Seed torch's CPU generator with a 64-bit key, and restore its state afterwards."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(key)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
