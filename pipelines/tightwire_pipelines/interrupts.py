"""What Ctrl-C and SIGTERM do to work that can be resumed, and to who only looks on."""

import signal
import threading
from collections.abc import Callable
from typing import Self


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


class CtrlC:
    """Within its block Ctrl-C is a KeyboardInterrupt at once, as ever, and at the next `check` if that got lost.

    Python drops an exception that a signal raises while an object is being cleared away.
    """

    def __init__(self) -> None:
        self._pressed = False
        self._before = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL if self._before is None else self._before)

    def check(self) -> None:
        """Go on, unless Ctrl-C was pressed.

        Raises:
            KeyboardInterrupt: It was.
        """
        if self._pressed:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signal module's signature
        self._pressed = True
        raise KeyboardInterrupt
