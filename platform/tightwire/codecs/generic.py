"""A general-purpose compressor, the baseline that coders made for codes have to beat."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import zstandard

from tightwire.arrays import AnyArray, Bytes8
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.codecs.universal import packed, sent, unknown
from tightwire.errors import CodecError, FrameError
from tightwire.wire import modes
from tightwire.wire.packing import Codes, pack, packed_length, unpack
from tightwire.wire.streams import Sink, Source, varint

_LEAST_WINDOW = 1 << 10


def _item_bits(mode: int, bits: int) -> int:
    """Bits that a code of `bits` bits takes in the form of first byte `mode`: a power of two."""
    return max(1 << (bits - 1).bit_length(), 1 if mode == modes.ZSTD_PLAIN else 8)


def _raw_length(mode: int, layout: Layout) -> int:
    """Bytes that are compressed in the form of first byte `mode`."""
    return layout.length if mode == modes.ZSTD_PACKED else packed_length(layout.count, _item_bits(mode, layout.bits))


def spread(codes: Codes, item: int) -> Bytes8:
    """Codes side by side in items of 1, 2, 4, 8, 16 or 32 bits, the first lowest; little-endian."""
    if item >= 8:
        return codes.astype(f"<u{item // 8}").view(np.uint8)
    each = 8 // item
    padded = np.zeros(-(-codes.size // each) * each, np.uint8)
    padded[: codes.size] = codes
    data = padded[::each].copy()
    for lane in range(1, each):
        data |= padded[lane::each] << np.uint8(lane * item)
    return data


def gathered(data: Bytes8, n: int, item: int) -> Codes:
    """The inverse of `spread`."""
    if item >= 8:
        return data.view(f"<u{item // 8}").astype(np.uint32)
    each = 8 // item
    codes: AnyArray = np.empty((data.size, each), np.uint32)
    for lane in range(each):
        codes[:, lane] = data >> np.uint8(lane * item) & np.uint8((1 << item) - 1)
    return codes.reshape(-1)[:n]


def _compressed(data: Bytes8, level: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=data.size,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data.data)


def _decompressed(data: Bytes8, length: int) -> Bytes8:
    """Exactly `length` bytes from all of `data`; no more memory is taken, whatever `data` says.

    Raises:
        FrameError: ``codes`` when that is not what it holds.
    """
    window = max(_LEAST_WINDOW, 1 << (length - 1).bit_length())
    try:
        told = zstandard.get_frame_parameters(data.data, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
        if told.content_size not in (length, zstandard.CONTENTSIZE_UNKNOWN):
            raise FrameError("codes", f"a zstd frame says that it is of {told.content_size} bytes, expected {length}")
        decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=window)
        content = decompressor.decompress(data.data, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FrameError("codes", f"a zstd frame cannot be decompressed: {error}") from None
    if len(content) != length:
        raise FrameError("codes", f"a zstd frame holds {len(content)} bytes, expected {length}")
    return np.frombuffer(content, np.uint8)


@dataclass(frozen=True)
class Zstd(Stage):
    """Zstandard over the codes in the smallest of three layouts: packed, in items of a power of two bits, in bytes.

    The packing that this library uses scatters neighbours, which hides patterns from a byte-wise compressor, so it is
    also given the codes in the smallest item of 1, 2, 4, 8, 16 or 32 bits that holds one, and in whole bytes. Lossless;
    codes stay packed, for one byte, where that is smaller. Frames carry no magic number, size or checksum of their own.

    The bytes are the same on every machine only where the version of zstd is; the decoder takes those of any version.

    Raises:
        CodecError: When the level is out of range.
    """

    level: int = 3
    """1, fast, to 22, small; from 20 on it wants much memory."""

    name: ClassVar[str] = "zstd"
    example: ClassVar[str] = "zstd"
    takes: ClassVar[tuple[Kind, ...]] = ("ints",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "entropy"
    passes: ClassVar[float] = 20.0
    source: ClassVar[str] = "Collet and Kucherawy 2021, RFC 8878"
    firsts: ClassVar[tuple[int, ...]] = (modes.ZSTD_PACKED, modes.ZSTD_PLAIN, modes.ZSTD_BYTES)
    """First bytes of its layouts."""

    def __post_init__(self) -> None:
        if not 1 <= self.level <= 22:
            raise CodecError(f"zstd takes levels 1 to 22, got {self.level}")

    @property
    def unbiased(self) -> bool:
        """Always: it is lossless."""
        return True

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the interface's arguments
        """Nothing is lost."""
        return 0.0

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """The layout and a length, and the compressed bytes."""
        layout = plane.layout
        codes = unpack(plane.data, layout.count, layout.bits)
        raw = {modes.ZSTD_PACKED: plane.data}
        for item in sorted({_item_bits(mode, layout.bits) for mode in (modes.ZSTD_PLAIN, modes.ZSTD_BYTES)}):
            raw[modes.ZSTD_BYTES if len(raw) > 1 else modes.ZSTD_PLAIN] = spread(codes, item)
        tried = [(mode, _compressed(data, self.level)) for mode, data in raw.items()]
        mode, best = min(tried, key=lambda pair: len(pair[1]))
        tables = bytes([mode]) + varint(len(best))
        if len(tables) + len(best) > layout.length:
            sink.write("tables", bytes([modes.PACKED]))
            return sent(plane.data)
        sink.write("tables", tables)
        return sent(np.frombuffer(best, np.uint8))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The layout of the codes, and how many bytes they were compressed to: fewer than packed."""
        mode = source.byte()
        if mode == modes.PACKED:
            return packed(layout)
        if mode not in self.firsts:
            raise unknown(mode, self)
        length = source.varint()
        if length >= layout.length:
            raise FrameError("length", f"{length} compressed bytes stand for codes that pack to {layout.length}")

        def undo(plane: Plane, target: Target | None) -> Plane:  # noqa: ARG001 - the interface's arguments
            data = _decompressed(plane.data, _raw_length(mode, layout))
            if mode == modes.ZSTD_PACKED:
                return Plane(layout, data.copy())
            codes = gathered(data, layout.count, _item_bits(mode, layout.bits))
            if int(codes.max()) >> layout.bits:
                raise FrameError("codes", f"a code of {layout.bits} bits cannot be {int(codes.max())}")
            return Plane(layout, pack(codes, layout.bits))

        return Layout("bytes", length, 8), undo

    def tally(self, before: Tally) -> Tally:
        """Papers count the codes it takes."""
        return before
