"""plan: which worker holds which layers, written as plan.json and drawn as plan.svg."""

from dataclasses import replace

import trio

from hyperlane.artifacts import ModelSpec, Plan, Prediction
from hyperlane.generate.scheduler import check_length
from hyperlane.partition import count, cut
from hyperlane.partition.explain import explain
from hyperlane.partition.memory import Workload
from hyperlane.partition.optimal import Optimal
from hyperlane.partition.predict import predict
from hyperlane.quantization.auto import Auto
from hyperlane.quantization.none import NoQuantization
from hyperlane.stages.cache import kv_bits, unmet
from hyperlane.stages.context import Context
from hyperlane.stages.generate import encode
from hyperlane.stages.kinds import FP16, is_gpu
from hyperlane.stages.picture import draw_plan
from hyperlane.stages.workload import workload_of


async def run(context: Context) -> Plan:
    config = context.config
    checkpoint = await context.checkpoint()
    from hyperlane.model.spec import read_spec  # reads torch, which by now is read

    bits = kv_bits(config, context.cluster.workers)
    spec = await trio.to_thread.run_sync(
        read_spec, checkpoint, config.model.dtype.value, config.quantization, bits, abandon_on_cancel=True
    )
    if isinstance(config.quantization, Auto) and any(map(is_gpu, context.cluster.workers)):
        half = await trio.to_thread.run_sync(
            read_spec, checkpoint, FP16, NoQuantization(), bits, abandon_on_cancel=True
        )
        spec = _at_least(spec, half)
    longest = await _longest_prompt(context, min(config.generate.context, spec.max_positions))
    workload = workload_of(config, spec.max_positions, longest, context.cluster.workers)
    cluster, strategy = context.cluster, config.partition
    found = await trio.to_thread.run_sync(cut, strategy, spec, cluster, workload, abandon_on_cancel=True)
    placements = count(strategy, found, spec, cluster, workload)
    plan = Plan(
        model=spec,
        partition=config.choices["partition"],
        placements=placements,
        codecs=(config.transport.codec.name,) * (len(placements) - 1),
        slots=workload.slots,
        context=workload.context,
        predicted=predict(spec, cluster, workload, found.ranges),
        objective=found.objective,
        bound=found.bound,
    )
    context.run_dir.write_text("plan", "plan.svg", draw_plan(plan, cluster))
    if isinstance(strategy, Optimal) and config.explain:
        await _explain(strategy, plan, context, workload)
    return plan


def _at_least(spec: ModelSpec, other: ModelSpec) -> ModelSpec:
    """With room for either's weights: which the GPUs will hold is known once they are timed, at deployment."""
    return replace(
        spec,
        embedding_bytes=max(spec.embedding_bytes, other.embedding_bytes),
        layer_bytes=tuple(map(max, spec.layer_bytes, other.layer_bytes)),
        head_bytes=max(spec.head_bytes, other.head_bytes),
    )


def describe(predicted: Prediction) -> str:
    """The prediction in one line."""
    return (
        f"predicted {1e3 * predicted.step_s:.3g} ms a token ({1e3 * predicted.compute_s:.3g} compute, "
        f"{1e3 * predicted.wire_s:.3g} wire), first of {predicted.prompt_tokens} after {predicted.ttft_s:.3g} s, "
        f"{predicted.tokens_per_s:.3g} tokens/s with {predicted.lanes} full lanes; {predicted.binds} binds"
    )


async def _explain(strategy: Optimal, plan: Plan, context: Context, workload: Workload) -> None:
    """explain.txt in the run's folder, and the same on the terminal."""
    assert plan.predicted is not None
    assert plan.objective is not None
    assert plan.bound is not None
    found = (plan.placements, plan.predicted, plan.objective, plan.bound)
    text = await trio.to_thread.run_sync(
        explain, strategy, plan.model, context.cluster, workload, *found, abandon_on_cancel=True
    )
    context.run_dir.write_text("plan", "explain.txt", text)
    context.console.print(text.rstrip(), markup=False, soft_wrap=True)


async def _longest_prompt(context: Context, positions: int) -> int:
    """In tokens, 0 without prompts. One that cannot be served is said here, before a model is exported and sent."""
    if not context.prompts:
        return 0
    tokenizer = await context.tokenizer()
    lengths = [len(encode(prompt, context.config, tokenizer)) for prompt in context.prompts]
    for length in lengths:
        check_length(length, positions)
    return max(lengths)


def show(context: Context) -> None:
    ranges = ", ".join(
        f"{p.worker} {p.start}:{p.stop} ({p.memory_bytes / 2**30:.2f} GiB)" for p in context.plan.placements
    )
    context.console.print(f"plan: {context.plan.partition}: {ranges}")
    workers = context.cluster.workers
    if (why := unmet(context.config, workers, context.plan.model.kv_bits)) is not None:
        context.console.print(f"plan: {why}")
    if isinstance(context.config.quantization, Auto) and any(map(is_gpu, workers)):
        context.console.print(
            "plan: quantization=auto: FP16 or INT4 on GPUs is decided when deployed; this has room for FP16"
        )
    predicted = context.plan.predicted
    if predicted is not None and predicted.measured:
        context.console.print(f"plan: {describe(predicted)}")
