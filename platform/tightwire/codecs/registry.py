"""All stages that a codec line can name: those of the library, and those that installed packages register.

A package registers a stage by an entry point of the group ``tightwire.codecs``; its name in codec lines is the
stage's own.
"""

from functools import cache
from importlib.metadata import entry_points

from tightwire.codecs.entropy import Rans
from tightwire.codecs.flatten import Flatten
from tightwire.codecs.floats import Brain, Half, Plain
from tightwire.codecs.stage import Stage
from tightwire.codecs.topk import TopK
from tightwire.codecs.uniform import Uniform
from tightwire.errors import CodecError

GROUP = "tightwire.codecs"
"""The entry point group."""

BUILT_IN: tuple[type[Stage], ...] = (Plain, Half, Brain, Flatten, Uniform, TopK, Rans)


@cache
def stages() -> dict[str, type[Stage]]:
    """Every stage by its name, the library's own first.

    Raises:
        CodecError: When a registered stage cannot be loaded, is not a stage, or takes a name that is taken.
    """
    found = {stage.name: stage for stage in BUILT_IN}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        where = f"entry point {entry.name!r} of group {GROUP!r} ({entry.value})"
        try:
            stage = entry.load()
        except Exception as error:
            raise CodecError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        if not (isinstance(stage, type) and issubclass(stage, Stage)):
            raise CodecError(f"{where} must name a subclass of tightwire.codecs.stage.Stage, got {stage!r}")
        if found.get(stage.name, stage) is not stage:
            raise CodecError(f"{where} takes the name {stage.name!r}, which {found[stage.name].__module__} has")
        found[stage.name] = stage
    return found
