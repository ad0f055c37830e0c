"""Who decides bits and density: (state, observation) -> (decision, state)."""

from typing import Annotated

from pydantic import Field

from tightwire.policies.budget import Budget
from tightwire.policies.fixed import Fixed
from tightwire.policies.tiered import Tiered

__all__ = ["AnyPolicy", "Budget", "Fixed", "Tiered"]

AnyPolicy = Annotated[Fixed | Tiered | Budget, Field(discriminator="name")]
"""Any policy that an experiment file can name."""
