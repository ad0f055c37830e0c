"""One number for everything a run computed: SHA-256 over the final model, the ledger and the decisions."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from tightwire.arrays import Flat
from tightwire.federation.records import DecisionRow, LedgerRow

START = "0" * 64
"""The chain before the first round."""


def extend(chain: str, ledger: Sequence[LedgerRow], decisions: Sequence[DecisionRow]) -> str:
    """The chain after one more round, so that no row needs to be kept for the digest's sake."""
    sha = hashlib.sha256(chain.encode())
    rows: list[LedgerRow | DecisionRow] = [*ledger, *decisions]
    for row in rows:
        sha.update(json.dumps(astuple(row), separators=(",", ":")).encode())
    return sha.hexdigest()


def digest(chain: str, model: Flat) -> str:
    """The run's digest, as 64 hexadecimal digits."""
    return hashlib.sha256(chain.encode() + np.ascontiguousarray(model, dtype="<f4").tobytes()).hexdigest()
