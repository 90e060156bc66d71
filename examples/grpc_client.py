"""Use a chain of workers over gRPC alone: no tensor sockets, the messages of worker.proto.

Run `hyperlane` once with cluster=static so that two workers hold their shards, then:

    python examples/grpc_client.py 127.0.0.1:PORT_OF_FIRST 127.0.0.1:PORT_OF_SECOND
"""

import sys

import numpy as np

from hyperlane.control.client import ControlClient
from hyperlane.control.types import Run, Step, Wiring

TOKENS = 8

clients = [ControlClient(address) for address in sys.argv[1:]]
epoch = max(client.stats().result().epoch for client in clients) + 1
for client, following in zip(clients, [*clients[1:], None], strict=True):
    control = following.address if following else None
    client.wire(Wiring(epoch=epoch, identity="", data_addresses=(), control_address=control, codec="raw")).result()

token_id, answer = 1, []
for position in range(TOKENS):
    step = Step(
        epoch=epoch,
        lane=0,
        step=position,
        flags=0,
        runs=(Run(slot=0, outputs=1, position=position, count=1),),
        tokens_R=np.array([token_id], np.int32),
    )
    (reply,) = clients[0].execute([step], timeout_s=30)
    if reply.candidates is None:
        sys.exit(f"no candidates: {reply.error}")
    token_id = int(reply.candidates.ids_NK[0, 0])
    answer.append(token_id)
print("greedy token ids:", answer)
