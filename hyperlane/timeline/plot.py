"""A timeline as a picture: a band a worker with its computes, coloured by lane, and what surrounds them."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from hyperlane.timeline.record import StepRecord
from hyperlane.timeline.timeline import Timeline, WorkerLine, busy_shares

MOST_STEPS = 48
_WIDTH, _LEFT, _RIGHT, _TOP, _BAND = 1200, 150, 40, 62, 84
_LANES = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#eeca3b", "#9d755d", "#72b7b2", "#e45756")
_KINDS = {"wire": "#bbbbbb", "decode": "#2ca25f", "encode": "#d95f0e"}


def draw_timeline(timeline: Timeline) -> str:
    """Some steps from the middle of the run, as an SVG document; the busy shares are those of the whole run."""
    shown = timeline.part(_middle(timeline))
    spans = [step for line in shown.workers for step in line.steps]
    start_ns = min((step.arrived_ns for step in spans), default=0)
    stop_ns = max((step.sent_ns for step in spans), default=1)
    scale = _Scale(start_ns, max(stop_ns, start_ns + 1))
    height = _TOP + _BAND * len(shown.workers) + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"',
        '     font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="24" font-size="15">{len({step.step for step in spans})} of {len(timeline.trips)} steps, '
        f"{(stop_ns - start_ns) / 1e6:,.1f} ms; computes are coloured by lane</text>",
        *_legend(),
    ]
    for index, (line, share) in enumerate(zip(shown.workers, busy_shares(timeline), strict=True)):
        lines += _band(line, share, shown.arrivals(index), _TOP + _BAND * index, scale)
    return "\n".join([*lines, *_axis(scale, _TOP + _BAND * len(shown.workers)), "</svg>\n"])


class _Scale:
    """From times to places."""

    def __init__(self, start_ns: int, stop_ns: int) -> None:
        self.start_ns, self.stop_ns = start_ns, stop_ns

    def x(self, time_ns: int) -> float:
        share = (time_ns - self.start_ns) / (self.stop_ns - self.start_ns)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0)

    def bar(self, start_ns: int, stop_ns: int, y: int, height: int, color: str, title: str) -> str:
        x = self.x(start_ns)
        width = max(self.x(stop_ns) - x, 0.3)
        return (
            f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{height}" fill="{color}">'
            f"<title>{escape(title)}: {(stop_ns - start_ns) / 1e3:,.0f} us</title></rect>"
        )


def _middle(timeline: Timeline) -> Sequence[int]:
    numbers = sorted(trip.step for trip in timeline.trips)
    start = max(0, (len(numbers) - MOST_STEPS) // 2)
    return numbers[start : start + MOST_STEPS]


def _legend() -> list[str]:
    lines = []
    for index, (name, color) in enumerate(_KINDS.items()):
        x = _LEFT + index * 100
        lines.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{color}"/>')
        lines.append(f'<text x="{x + 18}" y="47">{name}</text>')
    return lines


def _band(line: WorkerLine, share: float | None, arrivals: dict[int, int], y: int, scale: _Scale) -> list[str]:
    """Computes on a light ground, where gaps are bubbles; decode and encode below them, the wire at the bottom."""
    busy = "" if share is None else f"busy {100 * share:.1f} %"
    width = _WIDTH - _LEFT - _RIGHT
    lines = [
        f'<text x="16" y="{y + 18}">{escape(line.name)}</text>',
        f'<text x="16" y="{y + 36}" fill="#666">{busy}</text>',
        f'<rect x="{_LEFT}" y="{y}" width="{width}" height="34" fill="#f3f3f3"/>',
    ]
    for step in line.steps:
        what = _text(step)
        color = _LANES[step.lane % len(_LANES)]
        lines.append(scale.bar(step.started_ns, step.computed_ns, y, 34, color, f"compute, {what}"))
        lines.append(scale.bar(step.taken_ns, step.decoded_ns, y + 37, 8, _KINDS["decode"], f"decode, {what}"))
        lines.append(scale.bar(step.encoding_ns, step.encoded_ns, y + 37, 8, _KINDS["encode"], f"encode, {what}"))
        arrived_ns = arrivals.get(step.step)
        if arrived_ns is not None:
            lines.append(scale.bar(step.encoded_ns, arrived_ns, y + 48, 8, _KINDS["wire"], f"wire, {what}"))
    return lines


def _text(step: StepRecord) -> str:
    phase = "prefill" if step.prefill else "decode"
    return f"step {step.step}, lane {step.lane}, " + (f"{phase} of {step.rows} rows" if step.rows else "copy")


def _axis(scale: _Scale, y: int) -> list[str]:
    lines = []
    for tenth in range(11):
        time_ns = scale.start_ns + (scale.stop_ns - scale.start_ns) * tenth // 10
        x = scale.x(time_ns)
        lines.append(f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 6}" stroke="#666"/>')
        label = f"{(time_ns - scale.start_ns) / 1e6:.1f} ms"
        lines.append(f'<text x="{x:.1f}" y="{y + 20}" text-anchor="middle" fill="#666">{label}</text>')
    return lines
