"""The prompts of a run: one as typed, a list, or a JSON Lines file."""

import json
from pathlib import Path

from hyperlane.config import Config
from hyperlane.errors import RequestError


def read_prompts(config: Config) -> tuple[str, ...]:
    """The file's prompts, else the list's, else the one prompt; RequestError where one is missing or empty."""
    if config.prompts_file:
        prompts = _read_file(Path(config.prompts_file).expanduser())
    elif config.prompts:
        prompts = tuple(config.prompts)
    elif config.prompt is not None:
        prompts = (config.prompt,)
    else:
        raise RequestError('there is no prompt; give prompt="...", prompts=[...] or prompts_file=FILE.jsonl')
    for number, prompt in enumerate(prompts, 1):
        if not prompt.strip():
            raise RequestError(f"prompt {number} of {len(prompts)} is empty; give it some text")
    return prompts


def _read_file(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"prompts_file={path} cannot be read: {error}") from error
    prompts = tuple(_prompt(path, number, line) for number, line in enumerate(lines, 1) if line.strip())
    if not prompts:
        raise RequestError(f"prompts_file={path} holds no prompt; write one JSON string or object a line")
    return prompts


def _prompt(path: Path, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestError(f"{path}:{number} is no JSON ({error}); write one JSON string or object a line") from error
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise RequestError(f'{path}:{number} has no prompt; write "text" or {{"prompt": "text"}}')
    return prompt
