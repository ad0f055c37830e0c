"""Words of 32 bits in int32 tensors, which wrap around: shifts, the noise of stochastic rounding, and bit packing.

Nothing here is compiled for a device: it is one elementwise operation after another, so that no product and sum become
one rounding, and the bits are those of `tightwire.codecs.kernels` and `tightwire.wire.packing`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tightwire.wire.packing import LANES, ROWS

STEP = 0x9E3779B9
"""As `tightwire.codecs.kernels.STEP`."""


def signed(word: int) -> int:
    """The int32 with the bits of `word`, which is taken modulo 2**32."""
    return (word + 2**31) % 2**32 - 2**31


def shifted(words: Tensor, count: int) -> Tensor:
    """Words shifted right by `count`, 0 to 31, zeros coming in."""
    return (words >> count).bitwise_and_(signed(2 ** (32 - count) - 1))


def mixed(words: Tensor, k0: int, k1: int) -> Tensor:
    """The keyed mix of `tightwire.codecs.kernels.noise`, all 32 bits of it, in the place of `words`."""
    words.bitwise_xor_(signed(k0))
    words.bitwise_xor_(shifted(words, 16)).mul_(0x21F0AAAD).bitwise_xor_(signed(k1))
    words.bitwise_xor_(shifted(words, 15)).mul_(0x735A2D97)
    return words.bitwise_xor_(shifted(words, 15))


def noise(n: int, key: int, device: torch.device) -> Tensor:
    """Uniform integers in [0, 2**24) for values 0 to n - 1, int32, shape (n,); `n` is below 2**31."""
    walk = torch.arange(n, dtype=torch.int32, device=device).mul_(signed(STEP))
    return shifted(mixed(walk, key & 0xFFFFFFFF, key >> 32), 8)


def _blocks(columns: int) -> Iterator[tuple[int, int, int]]:
    """(first column, blocks, lanes of each) of the blocks with all their lanes, and of the one with fewer."""
    full = columns // LANES * LANES
    if full:
        yield 0, full // LANES, LANES
    if columns > full:
        yield full, 1, columns - full


def _repeated(bits: int) -> tuple[int, int, int]:
    """How often a pattern of rows and words repeats in a block, its rows, and its words."""
    repeats = math.gcd(bits, ROWS)
    return repeats, ROWS // repeats, bits // repeats


def pack(codes: Tensor, bits: int) -> Tensor:
    """As `tightwire.wire.packing.pack`: uint8 from int32 `codes`, shape (n,), of 1 to 31 bits."""
    columns = codes.numel() // ROWS
    words = torch.zeros(columns * bits, dtype=torch.int32, device=codes.device)
    repeats, period, width = _repeated(bits)
    for first, blocks, lanes in _blocks(columns):
        last = first + blocks * lanes
        rows = codes[first * ROWS : last * ROWS].view(blocks, repeats, period, lanes)
        into = words[first * bits : last * bits].view(blocks, repeats, width, lanes)
        for row in range(period):
            word, offset = divmod(row * bits, 32)
            into[:, :, word].bitwise_or_(rows[:, :, row] << offset)
            if offset + bits > 32:
                into[:, :, word + 1].bitwise_or_(rows[:, :, row] >> (32 - offset))
    return torch.cat([words.view(torch.uint8), _plainly(codes[columns * ROWS :], bits)])


def _plainly(codes: Tensor, bits: int) -> Tensor:
    places = torch.arange(bits, dtype=torch.int32, device=codes.device)
    stream = (codes[:, None] >> places).bitwise_and_(1).view(-1)
    eights = torch.nn.functional.pad(stream, (0, -stream.numel() % 8)).view(-1, 8)
    return (eights << torch.arange(8, dtype=torch.int32, device=codes.device)).sum(1).to(torch.uint8)


def unpack(data: Tensor, n: int, bits: int) -> Tensor:
    """The inverse of `pack`: `n` int32 codes from exactly ceil(n * bits / 8) bytes."""
    columns = n // ROWS
    codes = torch.empty(n, dtype=torch.int32, device=data.device)
    words = data[: columns * bits * 4].view(torch.int32)
    repeats, period, width = _repeated(bits)
    mask = 2**bits - 1
    for first, blocks, lanes in _blocks(columns):
        last = first + blocks * lanes
        rows = codes[first * ROWS : last * ROWS].view(blocks, repeats, period, lanes)
        here = words[first * bits : last * bits].view(blocks, repeats, width, lanes)
        for row in range(period):
            word, offset = divmod(row * bits, 32)
            if offset + bits > 32:
                lower, upper = shifted(here[:, :, word], offset), here[:, :, word + 1] << (32 - offset)
                rows[:, :, row] = lower.bitwise_or_(upper).bitwise_and_(mask)
            else:
                rows[:, :, row] = (here[:, :, word] >> offset).bitwise_and_(mask)
    rest = n - columns * ROWS
    eight = torch.arange(8, dtype=torch.int32, device=data.device)
    stream = (data[columns * bits * 4 :, None].to(torch.int32) >> eight).bitwise_and_(1).view(-1)[: rest * bits]
    places = torch.arange(bits, dtype=torch.int32, device=data.device)
    codes[columns * ROWS :] = (stream.view(rest, bits) << places).sum(1).to(torch.int32)
    return codes
