"""gloo by torch.distributed: point-to-point sends of byte tensors."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from tests.bench.links.end import Loops, Report
from tests.bench.links.tcp import MOST_BYTES


@dataclass(frozen=True, slots=True)
class _Rank:
    other: int
    outgoing: torch.Tensor = field(default_factory=lambda: torch.zeros(MOST_BYTES, dtype=torch.uint8))
    incoming: torch.Tensor = field(default_factory=lambda: torch.zeros(MOST_BYTES, dtype=torch.uint8))

    def send(self, data: memoryview) -> None:
        dist.send(self.outgoing[: len(data)], self.other)

    def recv(self, size: int) -> None:
        dist.recv(self.incoming[:size], self.other)


class Gloo:
    name = "gloo"

    def listen(self, report: Report) -> Loops:
        store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
        report(f"127.0.0.1:{store.port}")
        dist.init_process_group("gloo", store=store, rank=0, world_size=2)
        return Loops(_Rank(1))

    def connect(self, address: str) -> Loops:
        host, _, port = address.rpartition(":")
        store = dist.TCPStore(host, int(port), 2, is_master=False)
        dist.init_process_group("gloo", store=store, rank=1, world_size=2)
        return Loops(_Rank(0))
