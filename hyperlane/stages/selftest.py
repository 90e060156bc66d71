"""The codecs' self-test at deployment: once for a model, its boundaries, a codec and a text; then kept."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import trio

from hyperlane.artifacts import Boundary, Manifest, Plan, SelfTest, Shard
from hyperlane.config import Config
from hyperlane.control.client import ControlClient
from hyperlane.control.types import Step, Wiring
from hyperlane.errors import ConfigError
from hyperlane.generate.chain import next_epoch
from hyperlane.model.store import LayerStore
from hyperlane.stages.context import Context
from hyperlane.stages.trial import Sizes, Trial
from hyperlane.transport import ladder
from hyperlane.transport.calibrate import CALIBRATION_TEXT
from hyperlane.transport.codec import TABLED_NAMES

T = TypeVar("T")

AUTO = "auto"
MOST_CALIBRATION_TOKENS = 4096
LEAST_CALIBRATION_TOKENS = 128
TIMEOUT_S = 3600.0  # of one worker's pass over the text


async def run(context: Context, plan: Plan, shards: Sequence[Shard]) -> SelfTest | None:
    """The codecs that pass on this chain; None where the codec asked for needs no tables."""
    config = context.config
    if not plan.codecs or (plan.codecs[0] not in TABLED_NAMES and plan.codecs[0] != AUTO):
        return None
    text = _text(config.calibration.text)
    sizes = _sizes(config, plan, context.manifest)
    tested = "int4" if plan.codecs[0] == AUTO else plan.codecs[0]
    key = _key(context.manifest, plan, tested, text, sizes)
    found = context.store.self_test(key)
    if found is None or not all(b.tables is None or context.store.is_intact(b.tables) for b in found.boundaries):
        context.console.print(f"deploy: self-test of {tested} (its result is kept for later runs)")
        token_ids = (await context.tokenizer()).encode(text)
        check = trio.from_thread.check_cancelled
        found = await trio.to_thread.run_sync(_measure, key, tested, shards, token_ids, sizes, context.store, check)
        context.store.put_self_test(found)
    boundaries = tuple(replace(boundary, wanted=plan.codecs[0]) for boundary in found.boundaries)
    return replace(found, boundaries=boundaries)


def untested(plan: Plan) -> tuple[Boundary, ...]:
    """The boundaries of a codec that needs no tables."""
    return tuple(
        Boundary(layer=placement.stop - 1, wanted=codec, codec=codec)
        for placement, codec in zip(plan.placements, plan.codecs, strict=False)
    )


def _measure(
    key: str,
    codec: str,
    shards: Sequence[Shard],
    token_ids: Sequence[int],
    sizes: Sizes,
    store: LayerStore,
    check: Callable[[], None],
) -> SelfTest:
    calibration, test = split(token_ids)
    layers = [shard.stop - 1 for shard in shards[:-1]]
    with ExitStack() as exits:
        clients = [exits.enter_context(ControlClient(shard.control_address, shard.worker)) for shard in shards]
        sizes = _wired_alone(clients, shards, sizes)
        begun = Trial.begin(
            [_checked(client.execute, check) for client in clients[:-1]],
            _checked(clients[-1].compare, check),
            sizes,
            calibration=calibration,
            test=test,
        )
        settled = ladder.settle(codec, layers, begun.error_of, begun.kl_of)
    boundaries = [
        Boundary(
            layer=layer,
            wanted=codec,
            codec=rung.codec,
            refused=rung.refused,
            relative_error=rung.relative_error,
            tables=None if rung.codec == ladder.RAW else store.put(tables.to_bytes()),
        )
        for layer, rung, tables in zip(layers, settled.rungs, begun.tables, strict=True)
    ]
    return SelfTest(key=key, tokens=len(test), boundaries=tuple(boundaries), kl=settled.kl)


def split(token_ids: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """The part of a text for tables, and another for the test; ConfigError where the text is too short."""
    least = LEAST_CALIBRATION_TOKENS + ladder.TEST_TOKENS
    if len(token_ids) < least:
        raise ConfigError(f"the text of calibration.text has {len(token_ids)} tokens; give one of {least} or more")
    calibration = min(len(token_ids) - ladder.TEST_TOKENS, MOST_CALIBRATION_TOKENS)
    return token_ids[:calibration], token_ids[calibration : calibration + ladder.TEST_TOKENS]


def _text(path: str | None) -> str:
    file = CALIBRATION_TEXT if path is None else Path(path).expanduser()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"calibration.text={file} cannot be read: {error}") from error


def _sizes(config: Config, plan: Plan, manifest: Manifest) -> Sizes:
    return Sizes.of(
        context=plan.context,
        slots=plan.slots,
        prefill_chunk=config.generate.prefill_chunk,
        widest=max(manifest.vocab_size, manifest.hidden_size),
        epoch=0,
    )


def _key(manifest: Manifest, plan: Plan, codec: str, text: str, sizes: Sizes) -> str:
    """What the result depends on, and nothing else."""
    parts = {
        "manifest": manifest.key,
        "boundaries": [placement.stop for placement in plan.placements],
        "codec": codec,
        "text": hashlib.sha256(text.encode()).hexdigest(),
        "budgets": [ladder.VERSION, ladder.ERROR_BUDGET, ladder.KL_BUDGET, ladder.TEST_TOKENS],
        "tokens": [sizes.piece_tokens, MOST_CALIBRATION_TOKENS],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _wired_alone(clients: Sequence[ControlClient], shards: Sequence[Shard], sizes: Sizes) -> Sizes:
    """An epoch in which every worker answers ExecutePipeline by itself."""
    epoch = next_epoch(client.stats().result().epoch for client in clients)
    for client, shard in zip(clients, shards, strict=True):
        alone = Wiring(
            epoch=epoch,
            identity="",
            data_addresses=(),
            control_address=None,
            codec=ladder.RAW,
            graph_sha256=shard.digest,
        )
        client.wire(alone).result()
    return replace(sizes, epoch=epoch)


def _checked(
    call: Callable[[Iterable[Step], float], Iterator[T]], check: Callable[[], None]
) -> Callable[[Iterable[Step]], Iterator[T]]:
    """A worker's call that `check` may end between two answers."""

    def answers(steps: Iterable[Step]) -> Iterator[T]:
        for answer in call(steps, TIMEOUT_S):
            check()
            yield answer

    return answers
