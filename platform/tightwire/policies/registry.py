"""Which policies an experiment file can name: the library's own, and those of installed packages."""

from functools import cache
from importlib.metadata import entry_points
from typing import get_args

from tightwire.errors import ConfigError
from tightwire.policies.accordion import Accordion
from tightwire.policies.adagq import AdaGQ
from tightwire.policies.adaquantfl import AdaQuantFL
from tightwire.policies.base import Alone
from tightwire.policies.bcrs import Bcrs
from tightwire.policies.budget import Budget
from tightwire.policies.dadaquant import DAdaQuant
from tightwire.policies.fedaq import FedAQ
from tightwire.policies.feddq import FedDQ
from tightwire.policies.fixed import Fixed
from tightwire.policies.kimad import Kimad
from tightwire.policies.laq_hc import LaqHC
from tightwire.policies.lazy import Lazy
from tightwire.policies.linucb import LinUCB
from tightwire.policies.online_k import OnlineK
from tightwire.policies.oracle import Oracle
from tightwire.policies.qlearning import QLearning
from tightwire.policies.randomly import Random
from tightwire.policies.schedule import Schedule
from tightwire.policies.thompson import Thompson
from tightwire.policies.tiered import Tiered

GROUP = "tightwire.policies"
"""The entry point group."""

BUILT_IN: tuple[type[Alone], ...] = (
    Fixed,
    Tiered,
    Schedule,
    Random,
    Budget,
    DAdaQuant,
    AdaQuantFL,
    FedDQ,
    FedAQ,
    AdaGQ,
    LaqHC,
    Accordion,
    Kimad,
    Bcrs,
    OnlineK,
    Lazy,
    LinUCB,
    Thompson,
    QLearning,
    Oracle,
)


def name_of(kind: type[Alone]) -> str:
    """The name by which an experiment file chooses a policy: the only value of its field `name`.

    Raises:
        ConfigError: It has no such field.
    """
    field = kind.model_fields.get("name")
    names = () if field is None else get_args(field.annotation)
    if len(names) != 1 or not isinstance(names[0], str):
        raise ConfigError(f"{kind.__module__}:{kind.__name__} needs a field `name: Literal['...'] = '...'`")
    return names[0]


@cache
def policies() -> dict[str, type[Alone]]:
    """Every policy by its name, the library's own first.

    Raises:
        ConfigError: When a registered policy cannot be loaded, is none, or takes a name that is taken.
    """
    found = {name_of(kind): kind for kind in BUILT_IN}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        where = f"entry point {entry.name!r} of group {GROUP!r} ({entry.value})"
        try:
            kind = entry.load()
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(f"{where} cannot be loaded: {said}") from error
        if not (isinstance(kind, type) and issubclass(kind, Alone)):
            raise ConfigError(f"{where} must name a subclass of tightwire.policies.base.Alone, got {kind!r}")
        name = name_of(kind)
        if found.get(name, kind) is not kind:
            raise ConfigError(f"{where} takes the name {name!r}, which {found[name].__module__} has")
        found[name] = kind
    return found
