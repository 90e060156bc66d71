import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlane.errors import ConfigError, ModelError
from hyperlane.generate.tokenizer import Tokenizer
from hyperlane.model.check import reference
from hyperlane.model.source import resolve
from hyperlane.model.tiny_tokenizer import tiny_tokenizer
from tests.fixtures_model import SMOLLM2, TINY


@pytest.fixture(scope="module")
def smol() -> Tokenizer:
    return Tokenizer.load(resolve(SMOLLM2))


@pytest.fixture(scope="module")
def tiny_bytes() -> Tokenizer:
    return Tokenizer.load(resolve("random", architecture=TINY))


def test_a_gguf_file_brings_its_chat_template_and_its_end_of_turn(smol: Tokenizer) -> None:
    ids = smol.encode_chat([("user", "What is AI?")])
    assert smol.stop_ids == frozenset({2})
    assert ids[0] == 1
    assert smol.decode(ids).endswith("user\nWhat is AI?\nassistant\n")


def test_a_system_message_comes_first(smol: Tokenizer) -> None:
    assert smol.decode(smol.encode_chat([("system", "Be brief."), ("user", "Hi")])).startswith("system\nBe brief.")


@pytest.mark.parametrize("text", ["plain words", "naïve café ☃ 日本語 👩‍👩‍👧‍👦", "  spaces\n\n\ttabs ", "x = {'a': 1}"])
def test_streamed_text_is_the_decoded_text(smol: Tokenizer, tiny_bytes: Tokenizer, text: str) -> None:
    for tokenizer in (smol, tiny_bytes):
        ids, stream = tokenizer.encode(text), tokenizer.stream()
        pieces = [stream.push(token_id) for token_id in ids]
        assert "".join(pieces) + stream.finish() == tokenizer.decode(ids) == text
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.text(max_size=40))
def test_bytes_come_back_as_they_were(text: str) -> None:
    tokenizer = Tokenizer(tiny_tokenizer(), set())
    ids, stream = tokenizer.encode(text), tokenizer.stream()
    assert ids == list(text.encode())
    assert "".join(stream.push(token_id) for token_id in ids) == text


def test_a_character_cut_off_at_the_end_is_not_shown(tiny_bytes: Tokenizer) -> None:
    stream = tiny_bytes.stream()
    assert [stream.push(token_id) for token_id in "a☃".encode()[:-1]] == ["a", "", ""]
    assert stream.finish() == ""


def test_tokens_without_text_are_silent(tiny_bytes: Tokenizer) -> None:
    stream = tiny_bytes.stream()
    assert [stream.push(token_id) for token_id in (104, 257, 259, 105)] == ["h", "", "", "i"]


def test_a_model_without_chat_template_says_what_to_set(tmp_path: Path) -> None:
    folder = _folder(tmp_path, template=None)
    tokenizer = Tokenizer.load(resolve(str(folder)))
    assert tokenizer.encode("hi") == [104, 105]
    with pytest.raises(ConfigError, match=r"no chat template; set generate\.raw_prompt=true"):
        tokenizer.encode_chat([("user", "hi")])


def test_stop_tokens_come_from_all_places_that_name_them(tmp_path: Path) -> None:
    folder = _folder(tmp_path, template="{{ messages }}")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert Tokenizer.load(resolve(str(folder))).stop_ids == frozenset({2, 7, 9, 257})


def test_a_missing_tokenizer_is_said_in_one_line(tmp_path: Path) -> None:
    reference(resolve("random", architecture=TINY)).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="has no usable tokenizer") as caught:
        Tokenizer.load(resolve(str(tmp_path / "model")))
    assert "\n" not in str(caught.value)


def _folder(path: Path, template: str | None) -> Path:
    """A checkpoint with the tokenizer of bytes; its config names 2 as the end."""
    reference(resolve("random", architecture=TINY)).save_pretrained(path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path / "model")
    return path / "model"
