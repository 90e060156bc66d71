"""One stream on texts that repeat their prompt, ours with speculation; the peers' speed does not depend on the text."""

import statistics
import sys
from collections.abc import Sequence

from tests.bench.engines.engine import MissingError
from tests.bench.engines.llama_rpc import NAME, LlamaRpc
from tests.bench.engines.ours import Ours
from tests.bench.engines.prompts import REPETITIVE
from tests.bench.row import Row, against

PROMPT_TOKENS = 136  # mean of REPETITIVE


def repetitive(what: str, new_tokens: int, repeat: int, overrides: Sequence[str]) -> list[Row]:
    """Ours over all prompts, tokens by seconds, against llama.cpp RPC behind a prompt of their mean length."""
    speculating = [*overrides, "generate.speculate=ngram"]
    with Ours.open(speculating) as engine:
        _all(engine, new_tokens)
        speeds, peers = [], []
        try:
            with LlamaRpc.open() as peer:
                for _ in range(repeat):
                    speeds.append(_all(engine, new_tokens))
                    peers.append(peer.decode_after_s(PROMPT_TOKENS, new_tokens))
        except MissingError as missing:
            print(f"missing peer, its rows have no ratio: {missing}", file=sys.stderr)
            speeds = [_all(engine, new_tokens) for _ in range(repeat)]
    figure = statistics.median(peers) if peers else None
    return [against(what, statistics.median(speeds), "tok/s", NAME, figure, more_is_better=True)]


def _all(engine: Ours, new_tokens: int) -> float:
    """Tokens a second over all prompts, one after another."""
    return statistics.harmonic_mean([engine.texts_per_s([prompt], new_tokens) for prompt in REPETITIVE])
