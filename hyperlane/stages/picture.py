"""The placement as a picture: one bar a worker, its layers, its memory, and the hops between."""

from xml.sax.saxutils import escape

from hyperlane.artifacts import Cluster, Placement, Plan, StagePrediction

_WIDTH, _ROW, _LEFT, _BAR = 860, 64, 150, 560
_COLORS = {"weights": "#4c78a8", "KV cache": "#f58518", "activations": "#54a24b"}


def draw_plan(plan: Plan, cluster: Cluster) -> str:
    """`plan` as an SVG document."""
    free_bytes = {worker.name: worker.memory_free_bytes for worker in cluster.workers}
    height = 90 + _ROW * len(plan.placements)
    cut = f"partition={plan.partition}, {plan.slots} slots of {plan.context}"
    title = f"{plan.model.source}: {plan.model.layers} layers, {cut}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"',
        '     font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="15">{escape(title)}</text>',
        *_legend(),
    ]
    if plan.predicted is not None:
        parts = f"{1e3 * plan.predicted.compute_s:.3g} compute + {1e3 * plan.predicted.wire_s:.3g} wire"
        step = f"predicted {1e3 * plan.predicted.step_s:.3g} ms a token ({parts})"
        lines.append(f'<text x="400" y="49" fill="#666">{step}</text>')
    widest_bytes = max(placement.memory_bytes for placement in plan.placements)
    for index, placement in enumerate(plan.placements):
        stage = plan.predicted.stages[index] if plan.predicted is not None else None
        hop = _hop(plan, index, stage) if index < len(plan.codecs) else None
        lines += _row(placement, 72 + index * _ROW, widest_bytes, free_bytes.get(placement.worker), hop, stage)
    return "\n".join([*lines, "</svg>\n"])


def _legend() -> list[str]:
    lines = []
    for index, (name, color) in enumerate(_COLORS.items()):
        x = 16 + index * 120
        lines.append(f'<rect x="{x}" y="38" width="12" height="12" fill="{color}"/>')
        lines.append(f'<text x="{x + 18}" y="49">{name}</text>')
    return lines


def _row(
    placement: Placement,
    y: int,
    widest_bytes: int,
    free_bytes: int | None,
    hop: str | None,
    stage: StagePrediction | None,
) -> list[str]:
    """One worker: its bar in proportion to the widest, and the hop to the next below it."""
    lines = [
        f'<text x="16" y="{y + 14}">{escape(placement.worker)}</text>',
        f'<text x="16" y="{y + 32}" fill="#666">layers {placement.start}:{placement.stop}</text>',
    ]
    x = float(_LEFT)
    sizes = (placement.weight_bytes, placement.kv_bytes, placement.activation_bytes)
    for color, size_bytes in zip(_COLORS.values(), sizes, strict=True):
        width = _BAR * size_bytes / widest_bytes
        lines.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="20" fill="{color}"/>')
        x += width
    free = "" if free_bytes is None else f" of {free_bytes / 2**20:,.0f} free"
    lines.append(f'<text x="{_LEFT}" y="{y + 36}" fill="#666">{placement.memory_bytes / 2**20:,.0f} MiB{free}</text>')
    if stage is not None:
        lines.append(f'<text x="{_LEFT + 190}" y="{y + 36}" fill="#666">{1e3 * stage.decode_s:.3g} ms a step</text>')
    if hop is not None:
        lines.append(f'<text x="{_LEFT + 330}" y="{y + 48}" fill="#666">&#8595; {escape(hop)}</text>')
    return lines


def _hop(plan: Plan, index: int, stage: StagePrediction | None) -> str:
    """The codec from this worker to the next, and what it should take; once deployed, what became of it."""
    if plan.boundaries and (boundary := plan.boundaries[index]).codec != boundary.wanted:
        if boundary.decode is not None:
            return f"prefill {boundary.prefill}, decode {boundary.decode}"
        return f"{boundary.codec}, as {boundary.wanted} was refused"
    if stage is None or not stage.codec:
        return plan.codecs[index]
    rate = f"{8e-6 * stage.link_bytes_per_s:,.0f} Mbit/s, {1e3 * stage.link_latency_s:.2g} ms"
    return f"{stage.codec}, {rate}: {1e3 * stage.wire_s:.2g} ms"
