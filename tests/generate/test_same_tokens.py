"""What a request says does not depend on how it was computed: a real chain of small shards, random schedules.

Weights are in 8 bits, keys and values in 16: our own operators compute a row the same whatever is beside it.
"""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.generate.draft_model import DraftModel
from hyperlane.generate.engine import Engine, Ticket
from hyperlane.generate.ngram import Ngram
from hyperlane.generate.sampling import Sampling
from hyperlane.generate.speculation import RowCost, Speculation
from hyperlane.generate.text import Prompt
from tests.fixtures_model import Chain, Exported
from tests.generate.direct import direct_engine

SLOTS, CONTEXT = 6, 128
SAMPLINGS = {
    "greedy": Sampling(),
    "sampled": Sampling(temperature=0.05, top_k=20, seed=7),
    "penalized": Sampling(temperature=0.05, repetition_penalty=1.01, min_p=0.02, seed=7),
}


def prompts() -> list[tuple[int, ...]]:
    """Some share a beginning, some repeat themselves."""
    random = Random(3)
    system = [random.randrange(256) for _ in range(40)]
    texts = [[random.randrange(256) for _ in range(length)] for length in (1, 2, 17, 70)]
    texts += [[*system, *(random.randrange(256) for _ in range(length))] for length in (1, 5, 20)]
    texts += [[*([random.randrange(256) for _ in range(7)] * 5)], system]
    return [tuple(text) for text in texts]


PROMPTS = prompts()


@pytest.fixture(scope="module")
def chain(tiny_int8: Exported) -> Chain:
    return tiny_int8.chain(0, 2, 4, slots=SLOTS, context=CONTEXT, kv_bits=16)


@pytest.fixture(scope="module")
def alone(tiny_int8: Exported) -> dict[str, list[tuple[int, ...]]]:
    """Each request by itself, in one shard."""
    chain = tiny_int8.chain(0, 4, slots=1, context=CONTEXT, kv_bits=16)
    return {
        name: [one(direct_engine(chain, sampling=how), i) for i in range(len(PROMPTS))]
        for name, how in SAMPLINGS.items()
    }


def one(engine: Engine, index: int) -> tuple[int, ...]:
    (answer,) = engine.run([Prompt(index, "", PROMPTS[index])], lambda index, piece: None, lambda: None)
    return answer.token_ids


def play(engine: Engine, random: Random) -> list[Ticket]:
    """All requests, each coming when it likes; a few more are cancelled on their way."""
    coming = [*range(len(PROMPTS)), *range(3)]
    random.shuffle(coming)
    tickets: list[Ticket] = []
    cancelled: list[Ticket] = []
    while coming or not all(ticket.outcome.done() for ticket in [*tickets, *cancelled]):
        if coming and random.random() < 0.3:
            index = coming.pop()
            new = engine.submit(Prompt(index, "", PROMPTS[index]))
            (cancelled if index in [ticket.text.prompt.index for ticket in tickets] else tickets).append(new)
        if cancelled and random.random() < 0.1:
            random.choice(cancelled).cancel()
        engine._turn(lambda: None)
    return tickets


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_tokens_do_not_depend_on_the_schedule(
    chain: Chain, alone: dict[str, list[tuple[int, ...]]], seed: int, data: st.DataObject
) -> None:
    slots = data.draw(st.integers(1, SLOTS))
    how = data.draw(st.sampled_from(sorted(SAMPLINGS)))
    engine = direct_engine(
        chain,
        sampling=SAMPLINGS[how],
        slots=slots,
        lanes=data.draw(st.integers(1, slots)),
        prefill_chunk=data.draw(st.sampled_from((1, 7, 32, 256))),
        reuse=data.draw(st.booleans()),
        drafts=data.draw(st.sampled_from((None, Speculation(Ngram(), 15, RowCost(0.0))))),
    )
    for ticket in play(engine, Random(seed)):
        assert ticket.result(0).token_ids == alone[how][ticket.text.prompt.index]


@pytest.mark.parametrize("how", SAMPLINGS)
@pytest.mark.parametrize("drafter", ["ngram", "model"])
def test_speculation_changes_no_token(
    tiny_int8: Exported, chain: Chain, alone: dict[str, list[tuple[int, ...]]], how: str, drafter: str
) -> None:
    draft_session = tiny_int8.session(0, 4, slots=2, context=CONTEXT, kv_bits=16)
    drafts = Ngram() if drafter == "ngram" else DraftModel(draft_session, slots=2, context=CONTEXT, vocab_size=260)
    speculation = Speculation(drafts, 7, RowCost(0.0))
    engine = direct_engine(chain, slots=2, lanes=2, drafts=speculation, sampling=SAMPLINGS[how])
    texts = [Prompt(i, "", ids) for i, ids in enumerate(PROMPTS)]
    answers = engine.run(texts, lambda index, piece: None, lambda: None)
    assert [answer.token_ids for answer in answers] == alone[how]
    accepted, drafted = (sum(getattr(a, f"{what}_tokens") for a in answers) for what in ("accepted", "drafted"))
    assert 0 < accepted <= drafted
    if (drafter, how) == ("model", "greedy"):  # the model is its own draft: every draft is right
        assert accepted == drafted


def test_the_prefix_cache_changes_no_token_and_saves_prompts(
    chain: Chain, alone: dict[str, list[tuple[int, ...]]]
) -> None:
    computed = []
    for reuse in (False, True):
        engine = direct_engine(chain, slots=SLOTS, lanes=2, reuse=reuse)
        texts = [Prompt(i, "", ids) for i, ids in enumerate(PROMPTS)] * 2
        answers = engine.run(texts, lambda index, piece: None, lambda: None)
        assert [answer.token_ids for answer in answers] == alone["greedy"] * 2
        computed.append(engine.chain.computed_tokens)
        saved = sum(answer.cached_tokens for answer in answers)
        assert (saved > 0) == reuse
    assert computed[0] - computed[1] == saved
    assert saved > sum(map(len, PROMPTS)) / 2
