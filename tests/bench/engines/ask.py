"""`python -m tests.bench.engines.ask OVERRIDE...`: a coordinator that is told what to measure, line by line.

For each line `TOKENS SEED` on stdin, a line on stdout: the seconds from a prompt of that many tokens to its first
token. The first line of all says which codec each link carries in prefill.
"""

import sys
from collections.abc import Sequence

from hyperlane import AutoDistributedModel
from tests.bench.engines.prompts import long_prompt


def main(overrides: Sequence[str]) -> None:
    with AutoDistributedModel.from_pretrained("smollm2_135m", cluster="static", overrides=overrides) as model:
        print(*(boundary.prefill or boundary.codec for boundary in model.deployment.boundaries), flush=True)
        for line in sys.stdin:
            tokens, seed = map(int, line.split())
            (answer,) = model.generate_full([long_prompt(tokens, seed)], max_new_tokens=1)
            print(answer.ttft_s, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
