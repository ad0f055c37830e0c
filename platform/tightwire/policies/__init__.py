"""Who decides bits and density: (state, observation) -> (decision, state)."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from tightwire.policies.base import Alone, Policy
from tightwire.policies.budget import Budget
from tightwire.policies.fixed import Fixed
from tightwire.policies.registry import policies
from tightwire.policies.tiered import Tiered

__all__ = ["AnyPolicy", "Budget", "Fixed", "Policy", "Tiered"]

if TYPE_CHECKING:
    AnyPolicy = Alone
else:
    AnyPolicy = Annotated[Union[tuple(policies().values())], Field(discriminator="name")]  # noqa: UP007 - of a tuple
    """Any policy that an experiment file can name; those of installed packages too."""
