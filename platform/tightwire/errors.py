"""The errors that Tightwire raises on purpose.

Each says what was wrong, the value received and what would be right, in one line, so that the command line can
print it as it is.
"""


class TightwireError(Exception):
    """Base of all errors that are somebody's to mend and not a fault of the program."""


class ConfigError(TightwireError):
    """An experiment file, an override or a command-line value that cannot be used."""


class DataError(TightwireError):
    """A dataset that is missing, unreadable or of the wrong shape."""


class CodecError(TightwireError):
    """A codec line that does not parse or makes no sense, or an update that cannot be encoded."""


class FrameError(TightwireError):
    """Bytes that are not an acceptable frame; `reason` is a short stable word for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class RefusedUpdateError(FrameError):
    """A frame that is well formed and holds an update that must not be added."""


class CheckpointError(TightwireError):
    """A checkpoint that is missing, damaged, or could not be written."""


class ClientError(TightwireError):
    """A client's turn failed, for example in the user's own model; says round, client and stage."""


class MemoriesLostError(TightwireError):
    """What clients remember was lost with the machine that kept it; the rounds since the last checkpoint are redone."""


class StoppedError(TightwireError):
    """A round was given up because the run is to stop; what was there before it still is."""


class LedgerError(TightwireError):
    """A bill that does not add up; the run must not go on."""


class TrackingError(TightwireError):
    """A run's folder, one of its tables, or a tracking server, that is missing, damaged or cannot be used."""
