"""chat: a conversation on the terminal over the deployed chain. `/reset` forgets it, `/exit` ends it."""

import os
import select
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import trio

from hyperlane.artifacts import GeneratedText, Generation
from hyperlane.errors import RequestError
from hyperlane.generate.engine import Engine
from hyperlane.generate.text import Prompt
from hyperlane.stages.context import Context
from hyperlane.stages.generate import moves_of, open_engine, ranges
from hyperlane.stages.moving import moving

if TYPE_CHECKING:
    from hyperlane.generate.tokenizer import Tokenizer

POLL_S = 0.2


async def run(context: Context) -> Generation:
    tokenizer = await context.tokenizer()
    return await trio.to_thread.run_sync(_chat, context, tokenizer)


def show(context: Context) -> None:
    """The conversation was on the terminal already."""


def _chat(context: Context, tokenizer: "Tokenizer") -> Generation:
    config, deployment = context.config, context.deployment
    with open_engine(config, deployment, tokenizer, partial(moving, context)) as (engine, chain):
        turns = list(_turns(config.generate.system, engine, tokenizer, trio.from_thread.check_cancelled))
        return Generation(
            requests=tuple(turns), links=chain.reports(), workers=ranges(chain.deployment), moves=moves_of(engine)
        )


def _turns(
    system: str | None, engine: Engine, tokenizer: "Tokenizer", check: Callable[[], None]
) -> Iterator[GeneratedText]:
    opening = [("system", system)] if system else []
    messages = list(opening)
    for number, line in enumerate(_lines(check)):
        if line == "/exit":
            return
        if line == "/reset":
            messages = list(opening)
            continue
        if not line:
            continue
        try:
            answer = _answer(number, [*messages, ("user", line)], engine, tokenizer, check)
        except RequestError as error:
            print(f"{error}; /reset forgets the conversation")
            continue
        messages += [("user", line), ("assistant", answer.text)]
        yield answer


def _answer(
    number: int,
    messages: list[tuple[str, str]],
    engine: Engine,
    tokenizer: "Tokenizer",
    check: Callable[[], None],
) -> GeneratedText:
    prompt = Prompt(number, messages[-1][1], tuple(tokenizer.encode_chat(messages)))
    (answer,) = engine.run([prompt], _show_piece, check)
    print(f"\n[{answer.decode_tokens_per_s:.1f} tok/s, first after {answer.ttft_s:.2f} s]")
    return answer


def _show_piece(index: int, piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _lines(check: Callable[[], None]) -> Iterator[str]:
    """Lines of standard input; waits in short turns, so that Ctrl-C ends a thread that reads."""
    if sys.stdin is None:
        raise RequestError("chat needs standard input, and it is closed")
    buffer = b""
    _ask()
    while True:
        check()
        if not select.select([sys.stdin], [], [], POLL_S)[0]:
            continue
        piece = os.read(sys.stdin.fileno(), 65536)
        *lines, buffer = (buffer + piece).split(b"\n")
        if not piece and buffer:
            lines, buffer = [buffer], b""
        for line in lines:
            yield line.decode(errors="replace").strip()
            _ask()
        if not piece:
            return


def _ask() -> None:
    if sys.stdin.isatty():
        sys.stdout.write("you> ")
        sys.stdout.flush()
