"""From a number of levels or bits to the codec line that sends with it, and to a decision that says what to expect.

Policies of the literature choose one number: the levels of a QSGD-like quantiser, or bits. An experiment file gives
the line around it as a template with one place for that number, such as ``qsgd(levels={levels}) | rans``.
"""

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator

from tightwire.codecs.codec import Codec
from tightwire.codecs.joint import Joint
from tightwire.errors import CodecError
from tightwire.policies.base import Decision, Numbers, Observation
from tightwire.policies.lines import CodecLine, Entropy, constant
from tightwire.policies.predict import predict
from tightwire.policies.stats import UpdateStats

Place = Literal["levels", "bits"]
"""What a template's number counts."""
WIDEST = 16
"""Most bits that a quantiser takes."""

_PREDICTABLE = re.compile(r"(?:topk\((?P<density>[0-9.e-]+)\) \| )?uniform\((?P<bits>\d+)\)(?P<rans> \| rans)?")


def _stands_alone(line: str) -> str:
    codec = Codec.parse(line)
    for chain in (codec.default, *(chain for _, chain in codec.rules)):
        if any(isinstance(stage, Joint) for stage in chain.stages):
            raise ValueError(
                f"`{line}` has the stage joint, whose range all clients of a round share, but this policy changes "
                "codec lines; use policy fixed"
            )
    return line


AloneLine = Annotated[CodecLine, AfterValidator(_stands_alone)]
"""A codec line of a policy that changes lines from client to client or round to round."""


def check_range(least: int, first: int, most: int) -> None:
    """That the levels of the first rounds are in the range of all levels.

    Raises:
        ValueError: They are not.
    """
    if not least <= first <= most:
        raise ValueError(f"levels must be from min_levels = {least} to max_levels = {most}, got {first}")


def check_template(template: str, place: Place, numbers: Iterable[int]) -> None:
    """That a template has one place for the number, and makes a codec line of every number in question.

    Args:
        template: As an experiment file gives it.
        place: What its number counts.
        numbers: Numbers that must do, such as the smallest and the largest.

    Raises:
        ValueError: It does not; says what would.
    """
    if template.count(f"{{{place}}}") != 1:
        raise ValueError(f"codec must have {{{place}}} in it, once, such as `{_EXAMPLES[place]}`, got `{template}`")
    for number in numbers:
        try:
            _stands_alone(filled(template, place, number))
        except CodecError as error:
            raise ValueError(f"codec with {place} = {number}: {error}") from None


_EXAMPLES = {"levels": "qsgd(levels={levels}) | rans", "bits": "uniform({bits}) | rans"}


@lru_cache(maxsize=4096)
def filled(template: str, place: Place, number: int) -> str:
    """The codec line that a template makes of a number, as the codec prints itself."""
    return str(Codec.parse(template.replace(f"{{{place}}}", str(number))))


def clamped(number: float, least: int, most: int) -> int:
    """The whole number of the range that is nearest to `number`, which may be infinite; of NaN, the largest."""
    if math.isnan(number):
        return most
    return round(min(max(number, least), most))


def told(numbers: Numbers, name: str, otherwise: float) -> float:
    """A number that the server told, or `otherwise` where it told none, or none that is finite."""
    number = numbers.get(name, otherwise)
    return number if math.isfinite(number) else otherwise


def width_of(ratio: float, least: int, most: int) -> int:
    """ceil(log2(1 + ratio)): the fewest bits whose 2**bits - 1 steps are at least `ratio`, within a range.

    By comparison, so that no logarithm's last bit decides.
    """
    return next((bits for bits in range(least, most) if 2**bits - 1 >= ratio), most)


def sent(line: str, observation: Observation, reason: str) -> Decision:
    """The decision to send with `line`, and what it is expected to weigh and to lose where that can be predicted.

    Prediction is for ``topk(density) | uniform(bits) | rans`` with or without its first and last stage.
    """
    codec, schema = Codec.parse(line), observation.schema
    grid = foreseen(line, observation.stats) if _PREDICTABLE.fullmatch(line) else None
    if grid is None:
        return constant(line, observation, reason)
    size, error = grid
    energy = observation.stats.norm**2
    return Decision(
        codec=line,
        bits=codec.bits(schema),
        density=codec.density(schema),
        reason=reason,
        predicted_bytes=digits(size),
        predicted_seconds=digits(observation.latency + 8 * size / observation.uplink)
        if observation.uplink > 0
        else None,
        predicted_error=digits(error / energy) if energy > 0 else 0.0,
    )


def foreseen(line: str, stats: UpdateStats) -> tuple[float, float] | None:
    """Expected bytes of a frame and squared error of what is decoded; None for lines that are not predicted."""
    match = _PREDICTABLE.fullmatch(line)
    if match is None or not stats.size:
        return None
    entropy: Entropy = "rans" if match["rans"] else "none"
    grid = predict(stats, (int(match["bits"]),), (float(match["density"] or 1),), entropy)
    return float(grid.bytes[0, 0]), float(grid.error[0, 0])


def extent(stats: UpdateStats) -> float:
    """Largest less smallest value of the whole update; 0 where it is empty."""
    return float(np.max(stats.high) - np.min(stats.low)) if len(stats.low) else 0.0


def digits(number: float) -> float:
    """Six digits, so that a last bit in which two machines' logarithms may differ reaches no digest."""
    return float(f"{number:.6g}")
