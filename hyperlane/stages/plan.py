"""plan: which worker holds which layers, written as plan.json and drawn as plan.svg."""

import trio

from hyperlane.artifacts import Plan
from hyperlane.generate.scheduler import check_length
from hyperlane.partition import place
from hyperlane.partition.memory import Workload
from hyperlane.stages.context import Context
from hyperlane.stages.generate import encode
from hyperlane.stages.picture import draw_plan


async def run(context: Context) -> Plan:
    config = context.config
    checkpoint = await context.checkpoint()
    from hyperlane.model.spec import read_spec  # reads torch, which by now is read

    spec = await trio.to_thread.run_sync(
        read_spec, checkpoint, config.model.dtype.value, config.quantization, abandon_on_cancel=True
    )
    generate = config.generate
    workload = Workload(
        slots=generate.slots,
        context=min(generate.context, spec.max_positions),
        prefill_chunk=min(generate.prefill_chunk, generate.context),
    )
    await _check_prompts(context, workload.context)
    placements = place(config.partition, spec, context.cluster, workload)
    plan = Plan(
        model=spec,
        partition=config.choices["partition"],
        placements=placements,
        codecs=(config.transport.codec.name,) * (len(placements) - 1),
        slots=workload.slots,
        context=workload.context,
    )
    context.run_dir.write_text("plan", "plan.svg", draw_plan(plan, context.cluster))
    return plan


async def _check_prompts(context: Context, positions: int) -> None:
    """A prompt that cannot be served is said here, before a model is exported and sent for it."""
    if not context.prompts:
        return
    tokenizer = await context.tokenizer()
    for prompt in context.prompts:
        check_length(len(encode(prompt, context.config, tokenizer)), positions)


def show(context: Context) -> None:
    cut = ", ".join(
        f"{p.worker} {p.start}:{p.stop} ({p.memory_bytes / 2**30:.2f} GiB)" for p in context.plan.placements
    )
    context.console.print(f"plan: {context.plan.partition}: {cut}")
