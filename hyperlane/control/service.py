"""The gRPC service of a worker: each call is mapped to one method of `Worker`."""

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hyperlane.control import messages, steps
from hyperlane.control import worker_pb2 as pb
from hyperlane.control.channel import KEEPALIVE_MS, MESSAGE_OPTIONS
from hyperlane.control.worker_pb2_grpc import WorkerServicer, add_WorkerServicer_to_server
from hyperlane.errors import ConfigError, HyperlaneError, OutOfMemoryError, StoreError, TransportError, one_line
from hyperlane.worker.path import measure_path, open_sink
from hyperlane.worker.worker import Worker

SERVICE = pb.DESCRIPTOR.services_by_name["Worker"].full_name
PIPELINE_TIMEOUT_S = 3600.0  # of an ExecutePipeline whose client sets no deadline

# Two servers on one port would share its connections at random: let the second one fail instead.
SERVER_OPTIONS = (
    *MESSAGE_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
)

log = logging.getLogger(__name__)


class ControlServer:
    """Listens at once on `host:port` (0 takes a free port) and serves `worker` from `start` to `close`.

    Raises ConfigError if the port is in use.
    """

    def __init__(self, host: str, port: int, *, threads: int = 16) -> None:
        self._server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="control"), options=SERVER_OPTIONS)
        try:
            socket.create_server((host, port)).close()  # gRPC would log its own account of a failure
            self.port: int = self._server.add_insecure_port(f"{host}:{port}")
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} (is the port in use?); set --control-port to another"
            ) from error

    def start(self, worker: Worker) -> None:
        checks = health.HealthServicer()
        add_WorkerServicer_to_server(_Service(worker), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(checks, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        for service in ("", SERVICE):
            checks.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._server.start()

    def close(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, give those in flight `grace_s` seconds, then end them."""
        self._server.stop(grace_s).wait(grace_s + 1.0)


class _Service(WorkerServicer):  # type: ignore[misc]  # generated, untyped
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def GetStats(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            return messages.stats_to_message(self._worker.stats())

    def HasLayers(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            held = self._worker.held_bytes(messages.files_from_message(request))
            return pb.HasLayersReply(held_bytes=held)

    def LoadShard(self, requests: Iterator[Any], context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            first = next(requests, None)
            if first is None or first.WhichOneof("part") != "header":
                raise ValueError("LoadShard starts with a header")
            spec = messages.header_from_message(first.header)
            intake = self._worker.intake(spec)
            for request in requests:
                intake.add(request.chunk.sha256, request.chunk.offset, request.chunk.data)
            loaded, load_s = (False, 0.0) if first.files_only else self._worker.load(spec)
            return pb.LoadShardReply(
                loaded=loaded, received_files=intake.files, received_bytes=intake.bytes, load_s=load_s
            )

    def SetNextWorker(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            return messages.wired_to_message(self._worker.wire(messages.wiring_from_message(request)))

    def MeasureLink(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            speed = self._worker.measure_link(tuple(request.codecs), tuple(request.rows), request.width)
            return messages.speed_to_message(speed)

    def GetRecords(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            return messages.records_to_message(self._worker.records(request.steps))

    def MeasureCompute(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            speed = self._worker.measure_compute(messages.probe_from_message(request))
            return messages.compute_to_message(speed)

    def MeasurePath(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            speed = measure_path(request.control_address, tuple(request.data_addresses))
            return pb.MeasurePathReply(
                bytes_per_s=speed.bytes_per_s, latency_s=speed.latency_s, burst_bytes=speed.burst_bytes
            )

    def OpenSink(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            return pb.OpenSinkReply(port=open_sink(self._worker.about.hosts))

    def ExecutePipeline(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        with _mapped_errors(context):
            timeout_s = context.time_remaining() or PIPELINE_TIMEOUT_S
            arrived = (steps.step_from_message(request) for request in requests)
            for done in self._worker.execute(arrived, timeout_s):
                yield steps.step_to_message(done)

    def Compare(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        with _mapped_errors(context):
            arrived = (steps.step_from_message(request) for request in requests)
            for kl_N in self._worker.compare(arrived):
                yield pb.Divergences(kl=kl_N.tolist())

    def Unload(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _mapped_errors(context):
            self._worker.unload()
            return pb.UnloadReply()


@contextmanager
def _mapped_errors(context: Any) -> Iterator[None]:
    """Ends a failed call with a status code and one line of text."""
    try:
        yield
    except StoreError as error:
        _abort(context, grpc.StatusCode.DATA_LOSS, error)
    except TransportError as error:
        _abort(context, grpc.StatusCode.ABORTED, error)
    except OutOfMemoryError as error:
        _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error)
    except HyperlaneError as error:
        _abort(context, grpc.StatusCode.FAILED_PRECONDITION, error)
    except ValueError as error:
        _abort(context, grpc.StatusCode.INVALID_ARGUMENT, error)
    except grpc.RpcError:
        raise  # the caller is gone: there is nobody to tell
    except Exception as error:
        if context.is_active():
            log.exception("a call failed")
            _abort(context, grpc.StatusCode.INTERNAL, error)
        raise


def _abort(context: Any, code: Any, error: Exception) -> NoReturn:
    context.abort(code, one_line(error))
    raise AssertionError("abort raises") from error
