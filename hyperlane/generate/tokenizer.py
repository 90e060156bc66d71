"""Text to token ids and back, by the model's own tokenizer and chat template."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers.decoders import DecodeStream
from transformers import AutoTokenizer, GenerationConfig

from hyperlane.errors import ConfigError, ModelError, RequestError, one_line
from hyperlane.model.source import Checkpoint
from hyperlane.model.tiny_tokenizer import tiny_tokenizer

# What ends an assistant's turn in common chat formats; a model may name only its end of text as end token.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eom_id|>")


class Tokenizer:
    """A model's tokenizer; `stop_ids` are the tokens that end an answer."""

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self.stop_ids = frozenset(stop_ids)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> "Tokenizer":
        """The tokenizer beside the weights, or one of bytes for random weights; ModelError if none."""
        if checkpoint.folder is None:
            tokenizer = tiny_tokenizer()
            return cls(tokenizer, {tokenizer.eos_token_id})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kwargs = {"gguf_file": checkpoint.gguf_file} if checkpoint.gguf_file else {}
                tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **kwargs)
        except Exception as error:  # missing or broken files, a tokenizer class that needs another package
            raise ModelError(f"{checkpoint.source} has no usable tokenizer: {one_line(error)[:200]}") from error
        return cls(tokenizer, _stop_ids(checkpoint, tokenizer))

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, with the tokens that the model expects around it (such as <s>)."""
        ids: list[int] = self._tokenizer.encode(text)
        return ids

    def encode_chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """The ids of a conversation of (role, text) in the chat template, up to where the assistant answers.

        ConfigError where the model has no template, RequestError where the template refuses the messages.
        """
        if not self._tokenizer.chat_template:
            raise ConfigError("the model has no chat template; set generate.raw_prompt=true")
        turns = [{"role": role, "content": text} for role, text in messages]
        try:
            ids: list[int] = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except Exception as error:  # jinja's, raised by the template on roles that it does not know
            raise RequestError(f"the model's chat template refuses the messages: {one_line(error)}") from error
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def is_like(self, other: "Tokenizer") -> bool:
        """Whether both mean the same by every token id."""
        return bool(self._tokenizer.get_vocab() == other._tokenizer.get_vocab())

    def stream(self) -> "StreamDecoder":
        """A decoder for one answer, token by token."""
        return StreamDecoder(self._tokenizer._tokenizer)


class StreamDecoder:
    """Ids to text as they come; a character is held back until its last byte is there."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token_id: int) -> str:
        """Take a token in; returns the text that it completes."""
        return self._stream.step(self._tokenizer, token_id) or ""

    def finish(self) -> str:
        """No more tokens come: what is left is no whole character and is dropped."""
        return ""


def _stop_ids(checkpoint: Checkpoint, tokenizer: Any) -> set[int]:
    found = [tokenizer.eos_token_id, checkpoint.config.eos_token_id]
    if checkpoint.folder is not None and (checkpoint.folder / "generation_config.json").is_file():
        found.append(GenerationConfig.from_pretrained(checkpoint.folder).eos_token_id)
    vocabulary = tokenizer.get_vocab()
    found.append([vocabulary[token] for token in _TURN_ENDS if token in vocabulary])
    flat = (entry if isinstance(entry, list) else [entry] for entry in found)
    return {int(token_id) for entries in flat for token_id in entries if token_id is not None}
