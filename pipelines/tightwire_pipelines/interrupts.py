"""What Ctrl-C and SIGTERM do to work that can be resumed; and that they are heard."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

AGAIN_SECONDS = 0.1


class Interrupts:
    """Within its block the first Ctrl-C, or SIGTERM, asks for an orderly end; the second one breaks off."""

    def __init__(self, note: Callable[[str], None], text: str) -> None:
        self._note = note
        self._text = text
        self._asked = threading.Event()
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python

    def __call__(self) -> bool:
        """Whether an end was asked for."""
        return self._asked.is_set()

    def install(self) -> None:
        """Take the signals over, again if need be: Ray takes SIGTERM for itself when it connects."""
        for number in self._before:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signal module's signature
        if self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()
        self._note(self._text)


@contextmanager
def none_lost() -> Iterator[None]:
    """Within its block no Ctrl-C is lost.

    Python drops a KeyboardInterrupt that a signal raises in a callback from C, or while an object is cleared away, and
    prints a traceback. Here it is raised again a moment later, in a better place.
    """
    before = sys.unraisablehook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        if dropped.exc_type is KeyboardInterrupt:
            timer = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
            timer.daemon = True
            timer.start()
        else:
            before(dropped)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
