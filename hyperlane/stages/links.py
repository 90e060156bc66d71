"""codec=auto: each link is measured, and takes in each phase the fastest codec that passed the self-test."""

from collections.abc import Sequence
from dataclasses import replace

from hyperlane.artifacts import Boundary, Deployment
from hyperlane.config import Config, Shortcut
from hyperlane.control.types import LinkSpeed
from hyperlane.generate.chain import LinkOptions, open_chain
from hyperlane.generate.wiring import RAW
from hyperlane.transport.phases import Cost, allowed, fastest

DECODE_ROWS = 1  # a lone text, which feels latency most


def link_options(config: Config) -> LinkOptions:
    transport = config.transport
    return LinkOptions(
        native=transport.native,
        queue_depth=transport.queue_depth,
        max_frame_bytes=transport.max_frame_bytes,
        connect_timeout_s=transport.connect_timeout_s,
        step_timeout_s=transport.step_timeout_s,
        shortcut=transport.shortcut is Shortcut.auto,
    )


def choose(deployment: Deployment, config: Config) -> Deployment:
    """The deployment with each boundary's `prefill` and `decode` set, from an epoch wired for measuring."""
    prefill_rows = max(2, min(config.generate.prefill_chunk, deployment.context))
    codecs = sorted({codec for boundary in deployment.boundaries for codec in allowed(boundary.codec)})
    with open_chain(deployment, [RAW for _ in deployment.boundaries], link_options(config)) as chain:
        speeds = [
            client.measure_link(codecs, (DECODE_ROWS, prefill_rows), deployment.hidden_size).result()
            for client in chain.clients
        ]
    boundaries = [
        replace(
            boundary,
            prefill=_fastest(boundary, speeds[index : index + 2], prefill_rows),
            decode=_fastest(boundary, speeds[index : index + 2], DECODE_ROWS),
            bytes_per_s=speeds[index].bytes_per_s,
            latency_s=speeds[index].latency_s,
        )
        for index, boundary in enumerate(deployment.boundaries)
    ]
    return replace(deployment, boundaries=tuple(boundaries))


def _fastest(boundary: Boundary, ends: Sequence[LinkSpeed], rows: int) -> str:
    """The sender encodes, the receiver decodes."""
    sender, receiver = ({(time.codec, time.rows): time for time in end.times} for end in ends)
    costs = [
        Cost(
            codec,
            encode_s=sender[codec, rows].encode_s,
            decode_s=receiver[codec, rows].decode_s,
            payload_bytes=sender[codec, rows].payload_bytes,
        )
        for codec in allowed(boundary.codec)
    ]
    return fastest(costs, ends[0].bytes_per_s, ends[0].latency_s)
