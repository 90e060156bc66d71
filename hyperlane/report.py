"""A generation as figures: the table at the end of a run, and a line of a sweep's table."""

import math
import statistics
from collections.abc import Sequence

from rich.table import Table

from hyperlane.artifacts import Accuracy, Boundary, Deployment, GeneratedText, Generation, LinkReport
from hyperlane.config import Goal

SHORTCUT = "cuda ipc"
"""As workers call the shortcut between their GPUs (hyperlane/worker/cuda_ring.py)."""


def summary(generation: Generation, deployment: Deployment, folder: str) -> Table:
    """One row a figure."""
    table = Table(show_header=False, title="run", title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows(generation, deployment).items():
        table.add_row(name, value)
    if generation.accuracy is not None:
        table.add_row("predicted", predicted(generation.accuracy))
    table.add_row("folder", folder)
    return table


def rows(generation: Generation, deployment: Deployment) -> dict[str, str]:
    """The figures as text, by name."""
    hidden = [link for link in generation.links if link.fp16_bytes]
    requests = generation.requests
    tokens = sum(len(request.token_ids) for request in requests)
    first_s = statistics.median(request.ttft_s for request in requests)
    speed = statistics.median(request.decode_tokens_per_s for request in requests)
    weights = deployment.gpu_weights
    return {
        "workers": str(len(generation.workers)),
        "layers": ", ".join(f"{w.name} {w.start}:{w.stop} ({w.stop - w.start})" for w in generation.workers),
        "tokens": f"{sum(len(r.prompt_token_ids) for r in requests)} in, {tokens} out{_saved(requests)}",
        "bytes on the wire": f"{_wire_bytes(generation.links):,} (hidden states {_wire_bytes(hidden):,})",
        **({} if weights is None else {"weights on GPUs": weights.chosen}),
        "codec": _codecs(hidden, deployment.boundaries),
        "compression": compression(hidden),
        "time to first token": f"{first_s:.3f} s" + (" (median)" if len(requests) > 1 else ""),
        "tokens per second": f"{speed:.1f}" + (" (median of a request)" if len(requests) > 1 else ""),
        "busy": ", ".join(f"{w.name} {100 * w.busy:.0f} %" for w in generation.workers if w.busy is not None),
    }


def seconds(generation: Generation, goal: Goal) -> float:
    """What a tuning sweep minimizes; infinite where no token came."""
    texts = [text for text in generation.requests if text.token_ids]
    if not texts:
        return math.inf
    if goal is Goal.ttft_s:
        return statistics.median(text.ttft_s for text in texts)
    if goal is Goal.step_s:
        rates = [text.decode_tokens_per_s for text in texts if text.decode_tokens_per_s]
        return 1 / statistics.median(rates) if rates else math.inf
    ends_s = [text.ttft_s + (len(text.token_ids) - 1) / (text.decode_tokens_per_s or math.inf) for text in texts]
    return max(ends_s) / sum(len(text.token_ids) for text in texts)


def predicted(accuracy: Accuracy) -> str:
    """Next to what was measured; a decode step as compute and the rest, then stage by stage."""
    lines = [f"first token {accuracy.ttft_predicted_s:.3g} s, was {accuracy.ttft_measured_s:.3g}"]
    if accuracy.step_measured_s:
        lines.insert(0, f"token {_parts(accuracy, 'predicted')} ms, was {_parts(accuracy, 'measured')}")
    lines += [
        f"{stage.worker} {stage.phase} {1e3 * stage.compute_predicted_s:.3g} + {1e3 * stage.wire_predicted_s:.2g} ms, "
        f"was {1e3 * stage.compute_measured_s:.3g} + {1e3 * stage.wire_measured_s:.2g}"
        for stage in accuracy.stages
    ]
    return "\n".join(lines)


def _parts(accuracy: Accuracy, what: str) -> str:
    """A token's milliseconds; of a lone stream split into compute and wire, for several share the chain."""
    step_s, compute_s = getattr(accuracy, f"step_{what}_s"), getattr(accuracy, f"compute_{what}_s")
    split = f" ({1e3 * compute_s:.3g} compute, {1e3 * (step_s - compute_s):.2g} wire)" if accuracy.requests == 1 else ""
    return f"{1e3 * step_s:.3g}{split}"


def _saved(requests: Sequence[GeneratedText]) -> str:
    """What the prefix cache and the speculation did, where they did anything."""
    cached, drafted = sum(r.cached_tokens for r in requests), sum(r.drafted_tokens for r in requests)
    accepted = sum(r.accepted_tokens for r in requests)
    return (f", {cached} of the prompts held already" if cached else "") + (
        f", {accepted} of {drafted} drafts right" if drafted else ""
    )


def describe(boundary: Boundary) -> str:
    """A boundary's codec, and why it is not the one asked for."""
    codec, why = boundary.codec, list(boundary.refused)
    if boundary.bytes_per_s is not None and boundary.latency_s is not None:
        codec = f"prefill {boundary.prefill}, decode {boundary.decode}"
        why.append(f"link of {8e-6 * boundary.bytes_per_s:,.0f} Mbit/s and {1e3 * boundary.latency_s:.2g} ms")
    return codec + (f" ({'; '.join(why)})" if why else "")


def _wire_bytes(links: Sequence[LinkReport]) -> int:
    return sum(link.wire_bytes for link in links)


def _codecs(hidden: Sequence[LinkReport], boundaries: Sequence[Boundary]) -> str:
    """What the links were to carry, and the shortcuts that were taken instead."""
    told = list(dict.fromkeys(describe(boundary) for boundary in boundaries))
    taken = [f"{link.source} -> {link.target} {link.codec}, not coded" for link in hidden if is_shortcut(link)]
    return "; ".join([*told, *taken]) or "no link between workers"


def is_shortcut(link: LinkReport) -> bool:
    """Whether all its hidden states went past the socket."""
    return link.codec == SHORTCUT


def compression(hidden: Sequence[LinkReport]) -> str:
    """Hidden states against the same rows as FP16, headers and checksums counted."""
    if not hidden:
        return "no hidden states crossed a link"
    hidden = [link for link in hidden if not is_shortcut(link)]
    if not hidden:
        return f"no hidden states crossed a socket ({SHORTCUT})"
    ratio = sum(link.fp16_bytes for link in hidden) / sum(link.wire_bytes for link in hidden)
    return f"{ratio:.2f} times smaller than FP16 ({', '.join(sorted({link.codec for link in hidden}))})"
