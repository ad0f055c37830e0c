"""What local training and encoding need in memory, and who is refused for lack of it."""

import math
from functools import lru_cache

from tightwire.codecs.chain import Chain
from tightwire.codecs.codec import Codec
from tightwire.codecs.dgc import DeepGradientCompression
from tightwire.codecs.eden import Eden
from tightwire.codecs.hadamard_vectors import BLOCK
from tightwire.codecs.kmeans import KMeans, sample_size
from tightwire.codecs.lowrank import PowerSGD, TruncatedSVD, sides
from tightwire.codecs.randk import RandK
from tightwire.codecs.sketch import CountSketch
from tightwire.codecs.stage import Stage, Tally
from tightwire.codecs.stc import SparseTernary
from tightwire.codecs.structured import Structured
from tightwire.codecs.topk import TopK
from tightwire.devices.population import Profile
from tightwire.wire.schema import Schema

VECTORS = 4
"""Vectors of the model's length that training holds at once: weights, gradients, the received model (which
becomes the update in place), and the residual that error feedback still owes."""

BYTES_PER_VALUE = 4
"""All of them are float32."""


def training_memory(parameters: int, activation_bytes_per_sample: int, batch: int) -> int:
    """Bytes that local SGD needs: 16 a parameter, and the activations of one batch.

    Counted are the four vectors of `VECTORS` and what the backward pass keeps of the forward pass. Not
    counted are the program, the training data, and what encoding takes, see `workspace`.

    Args:
        parameters: Parameters of the model.
        activation_bytes_per_sample: Bytes of one sample's activations that are kept for the backward pass.
        batch: Samples in a batch.

    Raises:
        ValueError: An argument is negative.
    """
    if parameters < 0 or activation_bytes_per_sample < 0 or batch < 0:
        raise ValueError(
            f"{parameters} parameters, {activation_bytes_per_sample} activation bytes a sample, "
            f"a batch of {batch}: none may be negative"
        )
    return VECTORS * BYTES_PER_VALUE * parameters + activation_bytes_per_sample * batch


def refusal(profile: Profile, needed: float) -> str | None:
    """``"memory"`` if this device cannot hold `needed` bytes of training state, None if it can take part."""
    return "memory" if needed > profile.memory else None


@lru_cache(maxsize=4096)
def workspace(codec: Codec, schema: Schema) -> float:
    """Bytes that encoding takes at its peak, besides the update itself. A model of this encoder, to a factor of 2.

    Pieces are encoded one after another. While one is, the bytes made so far, the planes of the piece before it, the
    planes that its own stages have made, and a stage's scratch memory (`_scratch`) are held; at the end, all bytes
    twice, as pieces and as the frame. Planes are 4 bytes a real, and packed codes; entropy coders are taken to save
    nothing. It does not shrink with luck: the same for all values.

    Args:
        codec: What encodes.
        schema: Of the update.
    """
    written = frame = peak = before = 0.0
    for piece in codec.pieces(schema):
        planes, most, kept, sent = _piece(piece.chain, piece.part.shape, len(piece.places) > 1)
        peak = max(peak, written + before + most)
        written, frame, before = written + kept, frame + sent, planes
    return _OBJECTS + max(peak, written + frame)


@lru_cache(maxsize=4096)
def _piece(chain: Chain, shape: tuple[int, ...], gathered: bool) -> tuple[float, float, float, float]:
    """Bytes of one piece: its planes, its peak, what stays until the frame is sealed, and what it adds to the frame."""
    tally = Tally(math.prod(shape), 32.0, shape=shape)
    held = 4.0 * tally.kept if gathered else 0.0  # from several places
    peak = last = held
    codes = False
    for stage in chain.whole:
        after = stage.tally(tally)
        made = _plane(stage, after, codes)
        codes = codes or stage.gives == "ints"
        peak = max(peak, held + _scratch(stage, tally, after, codes) + made)
        held += made
        last = made or last
        tally = after
    side = tally.side / 8
    return held, peak, last + side, tally.kept * math.ceil(tally.bits) / 8 + side


def _plane(stage: Stage, after: Tally, codes: bool) -> float:
    """Bytes of the plane that a stage gives; 0 where it hands on the one that it took."""
    if stage.name in _VIEWS:
        return 0.0
    if codes or stage.gives in ("ints", "bytes"):
        return after.kept * math.ceil(after.bits) / 8
    return 4.0 * after.kept


_OBJECTS = 8192.0
"""Bytes of everything that does not grow with the update."""

_VIEWS = ("none", "flatten")

_A_CODE = {"joint": 4.0, "trellis": 10.0, "kmeans": 1.0}
"""Scratch bytes a value of quantisers; the others work in place, or in what they give, twice."""

_ENTROPY = {"rans": 1.5, "elias": 10.0, "runs": 10.0, "golomb": 4.0, "zstd": 7.0, "auto": 17.0}
"""Scratch bytes a code of entropy coders: codes unpacked to one byte or two, and 8-byte lengths and positions."""


def _scratch(stage: Stage, before: Tally, after: Tally, codes: bool) -> float:
    """Bytes that a stage holds besides the planes that it takes and gives.

    Quantisers: codes before they are packed. Entropy coders: codes unpacked, code lengths, and the output as it grows.
    Sparsifiers: 8-byte positions and 4-byte values of what is kept, of twice as many candidates where a sampled
    threshold finds them, and distances of codes. Factorisations: float64 copies, and the Gram matrix of the SVD with
    its eigenvectors. k-means: its sample. EDEN: blocks of its rotation, fractional bits, and 16 bytes a block. Stages
    that the library does not know: one float32 copy of what they take.
    """
    rows, columns = sides(before.shape, before.kept)
    match stage:
        case TopK() | SparseTernary():
            few = 4 * after.kept <= before.kept
            return (32.0 if few else 16.0) * after.kept + (8.0 * before.kept if codes and stage.gives is None else 0.0)
        case DeepGradientCompression():
            return 20.0 * after.kept + min(0.25 * before.kept, 65536.0)
        case Eden():
            fine = stage.bits % 1 * after.kept if stage.bits > 1 else 0.0
            return fine + (after.side - before.side) / 2 + 16.0 * BLOCK
        case RandK() | Structured():
            return 8.0 * after.kept
        case KMeans():
            return _A_CODE["kmeans"] * before.kept + 16.0 * min(before.kept, sample_size(before.kept, stage.bits))
        case PowerSGD():
            return 24.0 * after.kept
        case CountSketch():
            return 4.0 * after.kept
        case TruncatedSVD():
            return 8.0 * before.kept + 24.0 * min(rows, columns) ** 2
    if stage.family == "sparsifier":
        return 16.0 * after.kept + (8.0 * before.kept if codes else 0.0)
    if stage.family == "entropy":
        return _ENTROPY.get(stage.name, 8.0) * before.kept
    if stage.family == "quantiser":
        return _A_CODE.get(stage.name, 2 * math.ceil(after.bits) / 8 if after.bits < 8 else 0.0) * before.kept
    return 0.0 if stage.name in _KNOWN else 4.0 * before.kept


_KNOWN = ("none", "flatten", "rotate")
