"""export: every part of the model in the layer store; what the store already holds is not exported again."""

import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hyperlane.artifacts import Manifest
from hyperlane.stages.context import Context


async def run(context: Context) -> Manifest:
    config = context.config
    checkpoint = await context.checkpoint()
    from hyperlane.model.export import export  # reads torch, which by now is read

    columns = (
        TextColumn("export:"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=context.console, transient=True, disable=not context.console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def progress(part: str, done: int, total: int) -> None:
            trio.from_thread.check_cancelled()
            bar.update(task, description=part, completed=done, total=total)

        return await trio.to_thread.run_sync(
            lambda: export(checkpoint, context.store, config.model.dtype.value, config.quantization, progress)
        )


def show(context: Context) -> None:
    manifest = context.manifest
    size_mib = sum(part.weights.bytes for part in manifest.parts) / 2**20
    what = f"{manifest.exported} parts exported" if manifest.exported else "all parts were in the layer store"
    context.console.print(f"export: {what} ({size_mib:,.0f} MiB, quantization={manifest.quantization})")
