"""What can happen to a run on a cluster, and what Ray raises then."""

from ray.exceptions import (
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from tightwire.errors import MemoriesLostError, StoppedError, TightwireError

HOST_DIED = (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,  # of a result, before it was fetched: its host's machine died
    OutOfMemoryError,  # Ray's memory monitor killed it
    RayActorError,
    WorkerCrashedError,
)

START_FAILED = (*HOST_DIED, ActorUnschedulableError, RaySystemError, RuntimeEnvSetupError)

STORE_FULL = (ObjectStoreFullError, OutOfDiskError)


class ClusterError(TightwireError):
    """The cluster ended the run; it can be resumed from its last checkpoint."""


class HostsLostError(ClusterError):
    """A share of clients that no host survived."""


class HostStartError(ClusterError):
    """A client host that cannot be set up."""


class NoRoomError(ClusterError, StoppedError):
    """The run was asked to stop while it waited for room on the cluster."""


class MachineLostError(ClusterError, MemoriesLostError):
    """A machine of the cluster died with clients' memories that only it had."""

    def __init__(
        self, message: str = "a machine of the cluster died, and with it what clients remember, such as residuals"
    ) -> None:
        super().__init__(message)


class StoreFullError(ClusterError):
    """Ray's object store is full, and so is the disk that it spills to."""

    def __init__(
        self,
        message: str = "the object store of a machine of the cluster is full, and so is the disk that Ray spills to; "
        "free some space there",
    ) -> None:
        super().__init__(message)


def raised(error: Exception) -> Exception:
    """What a share, or the coordinator, raised, as it raised it.

    Ray hands a lost argument to the share, which then raises it.
    """
    cause = error
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    if isinstance(cause, STORE_FULL):
        return StoreFullError()
    if isinstance(cause, ObjectLostError):
        return MachineLostError()
    return cause if isinstance(cause, TightwireError) else error
