"""The command line before Hydra sees it: prompts taken as typed, subcommands, and the overrides of a continued run.

Pure text to text, so that Hydra's own grammar, --help, --cfg, --multirun and completion stay as its users know them.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from hyperlane.errors import ConfigError

CHAT_STAGES = "stages=[discover,plan,export,deploy,chat]"
DOCTOR_STAGES = "stages=[discover,doctor]"
_MULTIRUN = ("-m", "--multirun")
_VERBATIM = "prompt"


def prepare(arguments: Sequence[str]) -> list[str]:
    """Arguments as a user typed them -> arguments as Hydra's grammar means them."""
    words = list(arguments)
    if words[:1] == ["chat"]:
        words = [CHAT_STAGES, *words[1:]]
    elif words[:1] == ["doctor"]:
        words = [DOCTOR_STAGES, *words[1:]]
    multirun = any(word in _MULTIRUN for word in words)
    if multirun:  # argparse takes no flag between two overrides
        words = ["--multirun", *(word for word in words if word not in _MULTIRUN)]
    words = [_verbatim(word) for word in words]
    if multirun:
        words = [_sweep(word) for word in words]
    return _continue_run(words, multirun)


def quote(text: str) -> str:
    """`text` as a quoted value of Hydra's grammar that comes out of OmegaConf as the same string."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)  # OmegaConf: no interpolation
    text = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)  # Hydra: a quote inside
    text = re.sub(r"(\\+)\Z", lambda match: match[1] * 2, text)  # Hydra: a backslash before the closing quote
    return f"'{text}'"


def _verbatim(word: str) -> str:
    key, equals, text = word.partition("=")
    return f"{key}={quote(text)}" if equals and key == _VERBATIM else word


def _sweep(word: str) -> str:
    """`prompts=[a,b]` under --multirun: one job each."""
    key, equals, text = word.partition("=")
    if key != "prompts" or not equals:
        return word
    return "prompt=" + ",".join(quote(prompt) for prompt in _parse_list(text))


def _parse_list(text: str) -> list[str]:
    try:
        values = json.loads(text)  # ["...", "..."] needs no further rules
    except json.JSONDecodeError:
        from hyperlane.compose import parse_value

        values = parse_value("prompts", text)
    if not isinstance(values, list) or not values:
        raise ConfigError(f'prompts={text} is no list; write \'prompts=["first","second"]\'')
    return [str(value) for value in values]


def _continue_run(words: list[str], multirun: bool) -> list[str]:
    """With run_dir=FOLDER: the overrides of that run first, unless set anew."""
    folders = [word.partition("=")[2] for word in words if word.startswith("run_dir=")]
    if not folders or folders[-1] in ("", "null"):
        return words
    if multirun:
        raise ConfigError("run_dir= continues one run and cannot be swept; leave out --multirun")
    folder = Path(folders[-1].strip("'\""))
    from hyperlane.compose import saved_overrides

    earlier = saved_overrides(folder)
    set_anew = {_key(word) for word in words}
    set_anew.add("stages")  # go on to the end, not to where the earlier run stopped
    kept = [word for word in earlier if _key(word) not in set_anew]
    return kept + words


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~").split("@")[0]
