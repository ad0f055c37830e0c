"""What the conformance kits of codecs and policies have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tightwire.errors import TightwireError

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check's result."""

    check: str
    says: str
    """What the check is about."""
    failure: str
    """What was found; empty if it holds."""


def judged(checks: Sequence[Callable[[S], None]], subject: S, complaint: type[TightwireError]) -> list[Verdict]:
    """Run every check; none stops the others. Whatever a subject raises is a failure of the check it is raised in.

    Args:
        checks: Each raises `complaint` with what was found, or returns.
        subject: What they check.
        complaint: Whose text is the finding itself.
    """
    results = []
    for check in checks:
        failure = ""
        try:
            check(subject)
        except complaint as error:
            failure = str(error)
        except Exception as error:
            failure = f"raised {type(error).__name__}: {error}"
        says = (check.__doc__ or "").strip().splitlines()[0]
        name = getattr(check, "__name__", repr(check))
        results.append(Verdict(name.replace("_", " "), says, failure))
    return results
