"""One line of a benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measured value; `ratio` is value / reference where there is something to compare with.

    Where the reference is a peer, `reference` is its name and `reference_value` its figure, None where it is missing;
    `ratio` is then above 1 where we are better.
    """

    what: str
    value: float
    unit: str
    reference: float | str | None = None
    reference_value: float | None = None
    ratio: float | None = None


def compared(what: str, value: float, unit: str, reference: float) -> Row:
    """A row with its ratio to `reference`."""
    return Row(what=what, value=value, unit=unit, reference=reference, ratio=value / reference)


def against(what: str, value: float, unit: str, peer: str, figure: float | None, *, more_is_better: bool) -> Row:
    """A row next to a peer's; no ratio where the peer is missing."""
    ratio = None
    if figure is not None:
        ratio = value / figure if more_is_better else figure / value
    return Row(what=what, value=value, unit=unit, reference=peer, reference_value=figure, ratio=ratio)
