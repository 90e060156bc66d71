"""gRPC: one bidirectional stream of raw bytes, nothing serialized."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import grpc

from tests.bench.links.end import Loops, Report

OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
METHOD = ("bench.Link", "Stream")


@dataclass(frozen=True, slots=True)
class _Stream:
    incoming: Iterator[bytes]
    outgoing: "SimpleQueue[bytes]"
    keep: Any = field(repr=False)

    def send(self, data: memoryview) -> None:
        self.outgoing.put(bytes(data))

    def recv(self, size: int) -> None:
        assert len(next(self.incoming)) == size


class GrpcStream:
    name = "gRPC stream"

    def listen(self, report: Report) -> Loops:
        streams: SimpleQueue[_Stream] = SimpleQueue()

        def serve(incoming: Iterator[bytes], context: Any) -> Iterator[bytes]:
            outgoing: SimpleQueue[bytes] = SimpleQueue()
            next(incoming)  # the first message only opens the stream
            streams.put(_Stream(incoming, outgoing, server))
            return iter(outgoing.get, None)

        server = grpc.server(ThreadPoolExecutor(1), options=OPTIONS)
        handlers = {METHOD[1]: grpc.stream_stream_rpc_method_handler(serve)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(METHOD[0], handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        report(f"127.0.0.1:{port}")
        return Loops(streams.get())

    def connect(self, address: str) -> Loops:
        channel = grpc.insecure_channel(address, options=OPTIONS)
        outgoing: SimpleQueue[bytes] = SimpleQueue()
        incoming = channel.stream_stream("/" + "/".join(METHOD))(iter(outgoing.get, None))
        outgoing.put(b"open")
        return Loops(_Stream(incoming, outgoing, channel))
