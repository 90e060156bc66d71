"""Weights on CPUs as the default stores them; on GPUs FP16 or INT4, whichever is faster there when deployed."""

from dataclasses import dataclass

from hyperlane.quantization import Form, Parameter, Quantization, Role
from hyperlane.quantization.int4 import Int4
from hyperlane.quantization.none import NoQuantization
from hyperlane.quantization.reference import Blocks
from hyperlane.quantization.source import Source


@dataclass(kw_only=True, slots=True)
class Auto:
    """Itself the choice for CPUs; `on_gpus` are those between which a measurement decides, the exact one first."""

    @property
    def name(self) -> str:
        """The CPUs' own: what is stored is the same."""
        return Source().name

    def form(self, role: Role, source: Form | None) -> Form | None:
        return Source().form(role, source)

    def pack(self, form: Form, parameter: Parameter) -> Blocks:
        return Source().pack(form, parameter)


def on_gpus() -> tuple[Quantization, Quantization]:
    """Weights in the activations' FP16; and in symmetric INT4 blocks, which GPUs have fast products for."""
    return NoQuantization(), Int4(minima=False)
