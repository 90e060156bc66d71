"""A text through the deployed chain, one worker at a time: what codecs cost at each boundary and in the end.

Only hidden states are held. The last worker compares raw and coded rows itself, a chunk at a time, from two slots.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.control.types import Step
from hyperlane.errors import ModelError, TransportError, WorkerError
from hyperlane.transport.calibrate import calibrate, relative_error
from hyperlane.transport.codec import Codec, Tables, make_codec
from hyperlane.transport.frame import WANT_LOGITS, Run

PIECE_TOKENS = 512
CHUNK_BYTES = 32 << 20  # of the hidden states or logits of a step

Shard = Callable[[Iterable[Step]], Iterable[Step]]
"""A worker's ExecutePipeline on its own: steps to their answers, in order."""

Compare = Callable[[Iterable[Step]], Iterable[NDArray[np.float64]]]
"""The last worker's Compare: pairs of steps to the KL of each row."""

Rows = NDArray[Any]  # token ids [R] or hidden states [R, D] of one piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How a text is cut: pieces are sequences of their own, chunks are what one step carries."""

    piece_tokens: int
    chunk_tokens: int
    slots: int
    epoch: int

    @classmethod
    def of(cls, *, context: int, slots: int, prefill_chunk: int, widest: int, epoch: int) -> "Sizes":
        """`widest` is the larger of a hidden and a logits row. With one slot a piece is one chunk, run twice."""
        chunk = max(1, min(prefill_chunk, CHUNK_BYTES // (4 * widest)))
        piece = min(context, PIECE_TOKENS if slots > 1 else chunk)
        return cls(piece_tokens=piece, chunk_tokens=min(chunk, piece), slots=slots, epoch=epoch)


@dataclass(frozen=True, slots=True)
class Trial:
    """The chain's raw hidden states at each boundary, and each boundary's tables."""

    shards: Sequence[Shard]  # all but the last
    compare: Compare
    sizes: Sizes
    exact: tuple[list[Rows], ...]  # by boundary: the pieces' hidden states
    tables: tuple[Tables, ...]

    @classmethod
    def begin(
        cls,
        shards: Sequence[Shard],
        compare: Compare,
        sizes: Sizes,
        *,
        calibration: Sequence[int],
        test: Sequence[int],
    ) -> "Trial":
        """Run both texts raw: tables come from the first, measurements from the second.

        ModelError where the model computes nothing finite.
        """
        split = len(_pieces(calibration, sizes.piece_tokens))
        pieces = [*_pieces(calibration, sizes.piece_tokens), *_pieces(test, sizes.piece_tokens)]
        exact, tables = [], []
        for shard in shards:
            pieces = _hidden(shard, pieces, sizes)
            tables.append(_tables(pieces[:split]))
            exact.append(pieces[split:])
        return cls(shards, compare, sizes, tuple(exact), tuple(tables))

    def error_of(self, boundary: int, codec: str) -> float:
        """Mean relative squared error of a raw row there."""
        rows = self.exact[boundary]
        coder = make_codec(codec, self.tables[boundary])
        return relative_error(np.concatenate(rows), np.concatenate([_coded(coder, piece) for piece in rows]))

    def kl_of(self, codecs: Sequence[str]) -> float:
        """Mean KL of the next token's distribution, raw against coded at every boundary."""
        pieces = self.exact[0]
        for boundary, codec in enumerate(codecs):
            if boundary:
                pieces = _hidden(self.shards[boundary], pieces, self.sizes)
            coder = make_codec(codec, self.tables[boundary])
            pieces = [_coded(coder, piece) for piece in pieces]
        return float(np.concatenate(list(self.compare(_pairs(self.exact[-1], pieces, self.sizes)))).mean())


def _tables(pieces: Sequence[Rows]) -> Tables:
    try:
        return calibrate(np.concatenate(pieces))
    except (ValueError, TransportError) as error:  # no row to measure, or one that no table can hold
        raise ModelError(
            f"codec tables cannot be made of the hidden states: {error}; use transport/codec=raw"
        ) from error


def _pieces(token_ids: Sequence[int], piece_tokens: int) -> list[Rows]:
    ids = np.asarray(token_ids, np.int32)
    return [ids[at : at + piece_tokens] for at in range(0, len(ids), piece_tokens)]


def _coded(codec: Codec, hidden_RD: Rows) -> Rows:
    """What the next worker would read."""
    positions_R, out_RD = np.arange(len(hidden_RD), dtype=np.uint32), np.empty_like(hidden_RD)
    codec.decode(codec.encode(hidden_RD, positions_R), positions_R, out_RD)
    return out_RD


def _hidden(shard: Shard, pieces: Sequence[Rows], sizes: Sizes) -> list[Rows]:
    """Each piece after one more shard."""
    answers = _answers(shard, (step for piece in pieces for step in _steps(piece, 0, sizes)))
    return [np.concatenate([_hidden_of(next(answers)) for _ in _starts(piece, sizes)]) for piece in pieces]


def _pairs(exact: Sequence[Rows], coded: Sequence[Rows], sizes: Sizes) -> Iterator[Step]:
    """Steps of all rows in chunks, exact before coded, that ask for every row's logits."""
    for pair in zip(exact, coded, strict=True):
        slots = (0, min(1, sizes.slots - 1))
        chunks = zip(*(_steps(piece, slot, sizes) for piece, slot in zip(pair, slots, strict=True)), strict=True)
        for step in itertools.chain.from_iterable(chunks):
            run = step.runs[0]
            yield replace(step, flags=WANT_LOGITS, runs=(run._replace(outputs=run.count),))


def _steps(piece: Rows, slot: int, sizes: Sizes) -> Iterator[Step]:
    for start in _starts(piece, sizes):
        rows = piece[start : start + sizes.chunk_tokens]
        runs = (Run(slot, 0, start, len(rows)),)
        payload: dict[str, Any] = {"tokens_R" if rows.ndim == 1 else "hidden_RD": rows}
        yield Step(epoch=sizes.epoch, lane=0, step=0, flags=0, runs=runs, **payload)


def _starts(piece: Rows, sizes: Sizes) -> range:
    return range(0, len(piece), sizes.chunk_tokens)


def _answers(shard: Shard, steps: Iterable[Step]) -> Iterator[Step]:
    for answer in shard(steps):
        if answer.error is not None:
            raise WorkerError(f"the self-test failed: {answer.error}")
        yield answer


def _hidden_of(answer: Step) -> Rows:
    if answer.hidden_RD is None:
        raise WorkerError("a worker before the last one returned no hidden states; deploy again")
    return answer.hidden_RD
