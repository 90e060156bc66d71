"""One line of a benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measured value; `ratio` is value / reference where there is something to compare with."""

    what: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None


def compared(what: str, value: float, unit: str, reference: float) -> Row:
    """A row with its ratio to `reference`."""
    return Row(what=what, value=value, unit=unit, reference=reference, ratio=value / reference)
