"""AutoDistributedModel: the same stages from Python."""

from collections.abc import Iterator

import pytest

from hyperlane import AutoDistributedModel
from hyperlane.errors import ConfigError, ModelError, RequestError
from tests.fixtures_model import Exported

OVERRIDES = ["generate.context=128", "transport/codec=raw", "generate.ignore_eos=true"]


@pytest.fixture(scope="module")
def model(tiny: Exported) -> Iterator[AutoDistributedModel]:
    overrides = [*OVERRIDES, f"store.root={tiny.store.root}"]
    with AutoDistributedModel.from_pretrained("tiny", cluster="local", overrides=overrides) as model:
        yield model


def test_one_prompt_gives_text_and_several_a_list(model: AutoDistributedModel) -> None:
    text = model.generate("Hello", max_new_tokens=8)
    assert isinstance(text, str)
    assert model.generate(["Hello", "Bye"], max_new_tokens=8)[0] == text


def test_streamed_pieces_add_up(model: AutoDistributedModel) -> None:
    assert "".join(model.stream("Hello", max_new_tokens=12)) == model.generate("Hello", max_new_tokens=12)


def test_sampling_is_given_by_name_and_only_for_its_call(model: AutoDistributedModel) -> None:
    greedy = model.generate("Hello", max_new_tokens=12)
    sampled = {model.generate("Hello", max_new_tokens=12, temperature=2.0, top_k=0, seed=seed) for seed in range(3)}
    assert len(sampled) > 1
    assert model.generate("Hello", max_new_tokens=12) == greedy


def test_a_refused_prompt_leaves_the_model_usable(model: AutoDistributedModel) -> None:
    with pytest.raises(RequestError, match="the context holds 128"):
        model.generate("x" * 200)
    with pytest.raises(ConfigError, match="temprature cannot be set"):
        model.generate("Hello", temprature=1.0)
    for wrong in ({"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"seed": -1}):
        with pytest.raises(ConfigError, match="out of range"):
            model.generate("Hello", **wrong)
    with pytest.raises(RequestError, match="empty"):
        model.generate(" ")
    assert len(model.generate_full(["Hello"], max_new_tokens=2)[0].token_ids) == 2


def test_tokens_and_timings_are_there_too(model: AutoDistributedModel) -> None:
    (answer,) = model.generate_full(["Hello"], max_new_tokens=5)
    assert (len(answer.token_ids), answer.finish_reason) == (5, "length")
    assert [(shard.start, shard.stop) for shard in model.deployment.shards] == [(0, 2), (2, 4)]


def test_what_cannot_be_deployed_says_why() -> None:
    with pytest.raises(ModelError, match="there is no /nowhere/at/all"):
        AutoDistributedModel.from_pretrained("/nowhere/at/all", overrides=["stages=[plan]"])
    with pytest.raises(ConfigError, match="unknown cluster nowhere"):
        AutoDistributedModel.from_pretrained("tiny", cluster="nowhere")
