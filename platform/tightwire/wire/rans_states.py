"""The states of the entropy coder: what they start from, and how the last ones are sent.

A single lane starts from 0, and its last state takes as many bytes as it has, little-endian: with words that is 3 or 4,
which the parity of the length tells, without any it is all there is.

Several lanes would waste the 16 bits that each must start from. So the last codes are coded before, in a single lane,
and lanes start from 2**16 plus a word each: zeros, then that lane's last state, upper half first, then its words. The
lanes' last states are sent as the length of the upper 16 bits minus 1, four bits a lane, lane 0 first, and then what is
below the highest set one, end to end, least significant bit first, filled up to a whole byte; the lower 16 bits are
words before the other words.
"""

import numpy as np

from tightwire.arrays import AnyArray, Bytes8
from tightwire.errors import FrameError
from tightwire.wire import rans_kernels as kernels
from tightwire.wire.rans_tables import POINT, Table, logs

LANES = (1, 8, 16, 32, 64)
MANY = 1 << 14
"""Fewer codes than this are in one lane."""
_LANE_BITS, _FIXED_BITS = 4, 48
"""What several lanes cost: the sizes of last states and the fill of first ones."""
_LEAST_BITS = 400
"""Lanes cost at most one in so many bits."""
_SLACK = 8
"""Bits by which a single lane may miss the model."""


def lanes_for(n: int, bits: int) -> int:
    """How many lanes `n` codes take that are expected to be coded in so many bits."""
    if n < MANY:
        return 1
    fit = [lanes for lanes in LANES[1:] if (lanes * _LANE_BITS + _FIXED_BITS) * _LEAST_BITS <= bits]
    return max(fit, default=1)


def start(codes: AnyArray, low: int, stop: int, table: Table, encoding: AnyArray, lanes: int) -> tuple[AnyArray, int]:
    """The states that an encoder of codes[:stop] starts from, and how many of the last codes they hold already.

    Args:
        codes: All codes.
        low: The last codes from here on have one model.
        stop: Their end.
        table: That model.
        encoding: Its table.
        lanes: 1 or one of `LANES`.
    """
    if lanes == 1:
        return np.zeros(1, np.uint32), 0
    costs = (np.int64(table.precision + table.group) << POINT) - logs()[table.shares]
    budget = (16 * (lanes - 1) - _SLACK) << POINT
    tail = kernels.fitting(codes, low, stop, costs, table.group, budget)
    state, words = np.zeros(1, np.uint32), np.zeros(lanes, np.uint16)
    at = kernels.push_one(codes, stop - tail, stop, encoding, table.precision, table.group, state, words, lanes)
    if at < 2 or state[0] < kernels.LEAST:
        words[:] = 0
        tail = 0
    else:
        words[at - 2 : at] = state[0] >> 16, state[0] & 0xFFFF
        words[: at - 2] = 0
    return words | np.uint32(kernels.LEAST), tail


def finish(states: AnyArray, codes: AnyArray, low: int, table: Table, decoding: tuple[AnyArray, AnyArray]) -> bool:
    """The inverse of `start`: decode codes[low:] from the states that a decoder ends in.

    Returns:
        Whether the states are as `start` would leave them.
    """
    if states.size == 1:
        return bool(states[0] == 0)
    words = (states & np.uint32(0xFFFF)).astype(np.uint16)
    if (states >> np.uint32(16) != 1).any() or words.any() != (low < codes.size):
        return False
    if low == codes.size:
        return True
    first = int(np.flatnonzero(words)[0])
    if first + 2 > words.size:
        return False
    state = np.array([int(words[first]) << 16 | int(words[first + 1])], np.uint32)
    rest = words[first + 2 :]
    at = kernels.pull_one(codes, low, codes.size, *decoding, table.precision, table.group, state, rest, 0)
    return bool(at == rest.size and state[0] == 0)


def buffer(packed: int) -> tuple[AnyArray, AnyArray]:
    """Memory for coded bytes that are not to become more than so many packed ones, and its part that takes words."""
    room = 3 * kernels.WIDEST
    memory = np.empty(room + packed // 2 + 2 * kernels.WIDEST, np.uint16)
    return memory, memory[room:]


def pack(states: AnyArray, memory: AnyArray, count: int) -> Bytes8:
    """The coded bytes: the last `states`, and the words that are the last `count` of `memory`."""
    at = memory.size - count
    if states.size == 1:
        head = int(states[0]).to_bytes(4, "little").rstrip(b"\0")
    else:
        at -= states.size
        memory[at : at + states.size] = states.astype(np.uint16)
        head = _pack_halves((states >> np.uint32(16)).tolist())
    data = memory.view(np.uint8)
    first = 2 * at - len(head)
    data[first : 2 * at] = np.frombuffer(head, np.uint8)
    return data[first:]


def _pack_halves(halves: list[int]) -> bytes:
    lengths, rest, at = 0, 0, 0
    for lane, half in enumerate(halves):
        length = half.bit_length() - 1
        lengths |= length << 4 * lane
        rest |= (half ^ 1 << length) << at
        at += length
    return lengths.to_bytes(len(halves) // 2, "little") + rest.to_bytes((at + 7) // 8, "little")


def unpack(coded: Bytes8, lanes: int) -> tuple[AnyArray, AnyArray]:
    """The inverse of `pack`: (states, words); behind the words of several lanes there is a zero for each lane.

    Raises:
        FrameError: ``codes`` when the bytes are too few, or no encoder has written them.
    """
    data = coded.tobytes()
    if lanes == 1:
        size = len(data) if len(data) <= 4 else 4 - len(data) % 2
        state = int.from_bytes(data[:size], "little")
        if (size and not data[size - 1]) or (len(data) > size and state < kernels.LEAST):
            raise FrameError("codes", "the coder's last state is not in its shortest form")
        return np.array([state], np.uint32), np.frombuffer(data, np.uint16, offset=size).copy()
    lengths = [int.from_bytes(data[: lanes // 2], "little") >> 4 * lane & 15 for lane in range(lanes)]
    end = lanes // 2 + (sum(lengths) + 7) // 8
    if len(data) < end + 2 * lanes or len(data) - end & 1:
        raise FrameError("codes", f"{len(data)} coded bytes do not hold the states of {lanes} lanes, and words")
    rest = int.from_bytes(data[lanes // 2 : end], "little")
    halves = np.zeros(lanes, np.uint32)
    for lane, length in enumerate(lengths):
        halves[lane] = 1 << length | rest & ((1 << length) - 1)
        rest >>= length
    if rest:
        raise FrameError("codes", "bits are set behind the coder's last states")
    words = np.zeros((len(data) - end) // 2 + lanes, np.uint16)
    words[:-lanes].view(np.uint8)[:] = coded[end:]
    return halves << np.uint32(16) | words[:lanes], words[lanes:]
