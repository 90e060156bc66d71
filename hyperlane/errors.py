"""Everything that Hyperlane raises on purpose. Each message says what, with which value, and what to do."""


class HyperlaneError(Exception):
    """A problem that the user can act on; `__main__` prints its one line and exits with `exit_code`."""

    exit_code = 2


class ConfigError(HyperlaneError):
    """The configuration is wrong: an unknown key, a wrong type, a value out of range."""


class ModelError(HyperlaneError):
    """The model cannot be read, is of an unknown family, or its export does not compute what HF computes."""


class StoreError(HyperlaneError):
    """A file of a store or run folder is missing, altered or cannot be written (a full disk, say)."""


class ClusterError(HyperlaneError):
    """The workers asked for are not there, or cannot be used."""


class PlanError(HyperlaneError):
    """The model does not fit the cluster as the partitioner was told to cut it."""


class RequestError(HyperlaneError):
    """A prompt cannot be served: it is empty, or longer than the context."""


class TransportError(HyperlaneError):
    """A link broke, timed out or carried bytes that are no valid frame."""

    exit_code = 1


class TablesError(TransportError):
    """A frame was made with codec tables that its receiver, `worker`, does not hold."""

    def __init__(self, message: str, worker: str = "") -> None:
        super().__init__(message)
        self.worker = worker


class WorkerError(HyperlaneError):
    """A worker failed while it loaded or ran its shard, or stopped answering."""

    exit_code = 1


class StepError(WorkerError):
    """A worker could not compute one step; the chain goes on with the others."""


class OutOfMemoryError(StepError):
    """A worker's memory does not hold what it was asked to load or compute; the worker goes on."""

    exit_code = 2


def one_line(error: BaseException) -> str:
    """The message of `error` as one line of text."""
    return " ".join(str(error).split()) or type(error).__name__


def first_known(error: BaseException) -> BaseException:
    """The one error of a nursery's group that a user can act on; else the first."""
    if isinstance(error, BaseExceptionGroup):
        known, _ = error.split((HyperlaneError, KeyboardInterrupt))
        return first_known((known or error).exceptions[0])
    return error
