"""Weights as they are, in the activations' own type."""

from dataclasses import dataclass

from hyperlane.quantization import Form, Parameter, Role
from hyperlane.quantization.reference import Blocks


@dataclass(kw_only=True, slots=True)
class NoQuantization:
    """Stores no matrix in blocks."""

    @property
    def name(self) -> str:
        return "none"

    def form(self, role: Role, source: Form | None) -> Form | None:
        return None

    def pack(self, form: Form, parameter: Parameter) -> Blocks:
        raise ValueError("quantization=none stores no matrix in blocks")
