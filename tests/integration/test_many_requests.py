"""64 requests at once on two worker processes of 8 slots: all complete, first come first served, the same tokens."""

import threading
from collections.abc import Iterator

import pytest

from hyperlane import AutoDistributedModel
from hyperlane.artifacts import GeneratedText
from hyperlane.generate.text import Prompt
from tests.fixtures_model import Exported
from tests.generate.direct import direct_engine

SLOTS, REQUESTS, CONTEXT = 8, 64, 128
OVERRIDES = [
    f"generate.slots={SLOTS}",
    f"generate.context={CONTEXT}",
    f"generate.queue={REQUESTS}",
    "generate.speculate=ngram",
    "generate.raw_prompt=true",
    "generate.ignore_eos=true",
    "transport/codec=raw",
    "quantization=none",  # as the fixture
]
SYSTEM = "You answer in one word, and never in two. "


@pytest.fixture(scope="module")
def model(tiny: Exported) -> Iterator[AutoDistributedModel]:
    overrides = [*OVERRIDES, f"store.root={tiny.store.root}"]
    with AutoDistributedModel.from_pretrained("tiny", cluster="local", overrides=overrides) as model:
        yield model


def alone(tiny: Exported, answers: list[GeneratedText]) -> list[tuple[int, ...]]:
    """What each request gets by itself, in this process."""
    chain = tiny.chain(0, 4, slots=1, context=CONTEXT)
    found = []
    for answer in answers:
        engine = direct_engine(chain, max_new_tokens=len(answer.token_ids))
        (text,) = engine.run([Prompt(0, "", answer.prompt_token_ids)], lambda index, piece: None, lambda: None)
        found.append(text.token_ids)
    return found


def test_64_requests_at_once(tiny: Exported, model: AutoDistributedModel) -> None:
    engine, tokenizer = model._opened.engine, model._opened.tokenizer
    most_waiting = most_running = 0

    def show(index: int, piece: str) -> None:
        nonlocal most_waiting, most_running
        most_waiting = max(most_waiting, engine.scheduler.waiting)
        most_running = max(most_running, len(engine.scheduler.running))

    texts = [f"{SYSTEM if i % 2 else ''}Number {i} of many" for i in range(REQUESTS)]
    prompts = [Prompt(i, text, tuple(tokenizer.encode(text))) for i, text in enumerate(texts)]
    tickets = [engine.submit(prompt, show) for prompt in prompts]
    answers = [ticket.result(100) for ticket in tickets]
    assert [answer.finish_reason for answer in answers] == ["length"] * REQUESTS
    assert [answer.token_ids for answer in answers] == alone(tiny, answers)
    assert 0 < most_running <= SLOTS
    assert 0 < most_waiting <= REQUESTS
    began = sorted(range(REQUESTS), key=lambda i: tickets[i].text.first_s)
    assert max(abs(place - index) for place, index in enumerate(began)) < SLOTS, "first come, first served"
    assert sum(answer.cached_tokens for answer in answers) > REQUESTS / 4 * len(SYSTEM)
    assert sum(answer.accepted_tokens for answer in answers) > 0


def test_requests_of_several_threads_share_the_chain(model: AutoDistributedModel) -> None:
    expected = {text: model.generate(text, max_new_tokens=8) for text in ("one", "two", "three", "four")}
    found: dict[str, str | list[str]] = {}

    def ask(text: str) -> None:
        found[text] = model.generate(text, max_new_tokens=8)

    threads = [threading.Thread(target=ask, args=(text,)) for text in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == expected


def test_a_stream_that_is_left_early_frees_its_slot(model: AutoDistributedModel) -> None:
    for _ in range(SLOTS + 1):
        stream = model.stream("Once upon a time", max_new_tokens=100)
        assert next(stream)
        stream.close()
    assert len(model.generate_full(["Hello"], max_new_tokens=2)[0].token_ids) == 2
    assert model._opened.engine.scheduler.idle
