"""A user's own class, named on the command line as package.module:Name."""

import importlib
import re
import sys
from functools import reduce
from pathlib import Path

from tightwire.errors import TightwireError

TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""What such a name looks like."""


def imported(target: str, error: type[TightwireError]) -> object:
    """What `target` names; looked for in the working folder too, for what is under development is rarely installed.

    Raises:
        TightwireError: It cannot be imported, as `error`.
    """
    where, _, name = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return reduce(getattr, name.split("."), importlib.import_module(where))
    except (Exception, SystemExit) as caught:  # a script that ends itself must not end this one in silence
        raise error(f"{target} cannot be imported: {said(caught)}") from None
    finally:
        sys.path.pop(0)


def said(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
