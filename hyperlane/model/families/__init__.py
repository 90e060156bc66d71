"""The model families: one file each, named as HF's model_type, with what differs from the common case.

The graph always comes from HF's own classes, so a family says little: where the parts are, and that its
exports were compared with HF (tests/model/test_families.py).
"""

import importlib
import importlib.util
from dataclasses import dataclass

from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Where a family keeps its parts: names in HF's base model, prefixes in its checkpoints."""

    layers: str = "layers"
    norm: str = "norm"  # the final norm
    embedding: str = "embed_tokens"
    head: str = "lm_head"  # of the whole model
    base: str = "model"  # HF's base_model_prefix
    rotates_halves: bool = False  # its rotary embedding pairs element i of a head with i + half: a fused operator
    foreign_prefixes: tuple[str, ...] = ()  # what checkpoints may put before the names, or in place of `base.`
    text_field: str | None = None  # the field of a multimodal config that describes the language model
    checked: bool = True  # its exports are tested against HF's; else they are compared before use

    def text_config(self, config: PretrainedConfig) -> PretrainedConfig:
        """The configuration of the language model alone."""
        text: PretrainedConfig = getattr(config, self.text_field, config) if self.text_field else config
        return text

    def tensor_names(self, name: str, *, tied: bool) -> tuple[str, ...]:
        """The names under which a checkpoint may hold HF's parameter `name`, the likeliest first.

        tied: the output head is the embedding, whatever else the checkpoint holds.
        """
        if tied and name == f"{self.head}.weight":
            embedding = f"{self.base}.{self.embedding}.weight"
            return self.tensor_names(embedding, tied=False) + self.tensor_names(name, tied=False)
        bare = name.removeprefix(f"{self.base}.")
        names = [name, bare, *(prefix + rest for prefix in self.foreign_prefixes for rest in (name, bare))]
        return tuple(dict.fromkeys(names))


def family_of(config: PretrainedConfig) -> Family:
    """The family of a model; an unlisted one is taken for the common case, and compared before use."""
    module = f"{__name__}.{config.model_type}"
    if config.model_type.isidentifier() and importlib.util.find_spec(module):
        family: Family = importlib.import_module(module).FAMILY
        return family
    return Family(checked=False)
