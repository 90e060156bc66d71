"""How both ends of the control plane are set up: sizes, retries, and what a failed call means."""

import json
from typing import Any

import grpc

from hyperlane.errors import ClusterError, HyperlaneError, OutOfMemoryError, StoreError, TransportError, WorkerError

MAX_MESSAGE_BYTES = 64 << 20  # a step with whole logits rows; files come in chunks of CHUNK_BYTES
CHUNK_BYTES = 1 << 20
KEEPALIVE_MS = 10_000  # a peer that vanished during a call is noticed after one and a half of these

# What deadlines allow for where the work depends on sizes.
SLOW_LINK_BYTES_PER_S = 500e3
SLOW_DISK_BYTES_PER_S = 50e6

MESSAGE_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

# Every unary call is safe to repeat; gRPC repeats it only when the worker cannot have answered.
_RETRIES = {
    "methodConfig": [
        {
            "name": [
                {"service": "hyperlane.control.Worker", "method": method}
                for method in ("GetStats", "GetRecords", "HasLayers", "SetNextWorker", "Unload")
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def open_channel(address: str, *, retries: bool) -> Any:
    """A channel to `address`; nothing is sent before the first call. A LAN is not reached through proxies."""
    options = (
        *MESSAGE_OPTIONS,
        ("grpc.enable_http_proxy", 0),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 2),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),  # a new client does not inherit an old one's failed attempt
        ("grpc.enable_retries", int(retries)),
        ("grpc.service_config", json.dumps(_RETRIES if retries else {})),
    )
    return grpc.insecure_channel(address, options=options)


def is_transient(error: BaseException | None) -> bool:
    """Whether a transfer may be resumed: the link broke, or a file arrived or lay there damaged."""
    return _code(error) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS)


def explain(error: Exception, who: str, method: str, timeout_s: float) -> HyperlaneError:
    """What a failed call means to the user; `who` names the worker and its address."""
    details = " ".join((error.details() or "").split()) if isinstance(error, grpc.RpcError) else str(error)
    match _code(error):
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return WorkerError(f"{who} did not answer {method} in {timeout_s:.3g} s")
        case grpc.StatusCode.UNAVAILABLE:
            return WorkerError(f"{who} cannot be reached: {details.rpartition('last error: ')[2]}")
        case grpc.StatusCode.UNIMPLEMENTED:
            return ClusterError(f"{who} knows no {method}: another version of Hyperlane, or none, answers there")
        case grpc.StatusCode.DATA_LOSS:
            return StoreError(f"{who}: {details}")
        case grpc.StatusCode.ABORTED:
            return TransportError(f"{who}: {details}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return OutOfMemoryError(f"{who}: {details}")
        case grpc.StatusCode.CANCELLED:
            return WorkerError(f"{method} of {who} was cancelled")
        case _:
            return WorkerError(f"{who}: {details}")


def _code(error: BaseException | None) -> Any:
    if isinstance(error, grpc.FutureCancelledError):
        return grpc.StatusCode.CANCELLED
    return error.code() if isinstance(error, grpc.RpcError) else None
