"""Prompts of the engine bench. Each word of WORDS is one token of SmolLM2's tokenizer, with its leading space."""

import random

WORDS = """
time people water day man world life hand part place case week company system program question work number
night point home room mother area money story fact month book eye job word business side kind head house
friend father power hour game line end member law car city name president team minute idea body back parent
face level office door health person art war history party result change morning reason research girl moment
air teacher force
"""


def short_prompts(count: int, seed: int) -> list[str]:
    """Different prompts of 16 tokens."""
    return [long_prompt(16, 1000 * seed + index) for index in range(count)]


def long_prompt(tokens: int, seed: int) -> str:
    """`tokens` words drawn at random: as many tokens, since the first has a leading space too."""
    draw, words = random.Random(seed), WORDS.split()
    return "".join(f" {draw.choice(words)}" for _ in range(tokens))


PASSAGE = """The harbour town had two clocks, and they never agreed. The one on the church ran slow in winter, when \
the oil thickened; the one above the customs house ran fast whenever the keeper wound it in anger, which was often. \
Strangers asked which of them was right. "Neither," said the ferryman, "but between them you will not miss the boat." \
He had carried mail, calves, brides and coffins across the same mile of water for thirty-one years."""

CODE = '''def read_table(path):
    """Read a table of numbers from a file, one row a line."""
    rows = []
    with open(path) as file:
        for line in file:
            cells = line.strip().split(",")
            rows.append([float(cell) for cell in cells])
    return rows


def column_means(rows):
    """The mean of each column."""
    count = len(rows)
    width = len(rows[0])
    return [sum(row[column] for row in rows) / count for column in range(width)]
'''

REPETITIVE = (
    f"<|im_start|>user\nRepeat this text word for word:\n{PASSAGE}<|im_end|>\n<|im_start|>assistant\n",
    f"<|im_start|>user\nSummarize this text with its own sentences:\n{PASSAGE}<|im_end|>\n<|im_start|>assistant\n",
    f"<|im_start|>user\nRename `rows` to `table` in this code, and give it back whole:\n```python\n{CODE}```"
    "<|im_end|>\n<|im_start|>assistant\n",
    f"<|im_start|>user\nGive this code back without its docstrings:\n```python\n{CODE}```"
    "<|im_end|>\n<|im_start|>assistant\n",
)
"""Summaries and code edits: answers that repeat their prompts."""
