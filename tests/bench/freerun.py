"""How far greedy texts with a codec follow those without: `freerun --prompts 24 --codec int4`, over two workers."""

import argparse
from collections.abc import Sequence
from itertools import takewhile

from hyperlane import AutoDistributedModel
from tests.bench.row import Row

SUBJECTS = (
    "tides",
    "a bicycle",
    "photosynthesis",
    "the Roman Empire",
    "compound interest",
    "a compiler",
    "bread",
    "earthquakes",
    "chess",
    "vaccines",
    "the moon",
    "a violin",
)
ASKED = ("Explain {} to a child.", "Write a short poem about {}.", "List five facts about {}.")
PROMPTS = tuple(form.format(subject) for form in ASKED for subject in SUBJECTS)


def run(args: Sequence[str]) -> list[Row]:
    options = _parse(args)
    raw = _texts("raw", options)
    coded = _texts(options.codec, options)
    common = [_common(a, b) for a, b in zip(raw, coded, strict=True)]
    same = sum(a == b for a, b in zip(raw, coded, strict=True))
    return [
        Row(what="prompts", value=len(raw), unit=""),
        Row(what="tokens of a text", value=options.tokens, unit="tokens"),
        Row(what="mean common prefix", value=sum(common) / len(common), unit="tokens"),
        Row(what="identical (%)", value=100 * same / len(raw), unit="%"),
    ]


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench freerun")
    parser.add_argument("--prompts", type=int, default=24, choices=range(1, len(PROMPTS) + 1), metavar="N")
    parser.add_argument("--codec", default="int4")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quantization", default="none", help="of the weights, the same for both; default none")
    return parser.parse_args(args)


def _texts(codec: str, options: argparse.Namespace) -> list[tuple[int, ...]]:
    overrides = [
        f"transport/codec={codec}",
        f"quantization={options.quantization}",
        f"cluster.workers={options.workers}",
        "cluster.threads=1",
        "generate.ignore_eos=true",
    ]
    with AutoDistributedModel.from_pretrained(options.model, overrides=overrides) as model:
        carried = {boundary.codec for boundary in model.deployment.boundaries}
        if carried != {codec}:
            raise SystemExit(f"the self-test left {', '.join(sorted(carried))} of {codec}; nothing to compare")
        answers = model.generate_full(PROMPTS[: options.prompts], max_new_tokens=options.tokens)
        return [answer.token_ids for answer in answers]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
