"""Weights in the blocks that the checkpoint itself stores, exactly; INT8 where it stores none that we can."""

from dataclasses import dataclass

from hyperlane.quantization import Form, Parameter, Role
from hyperlane.quantization.int8 import FORM as INT8
from hyperlane.quantization.int8 import round_to_int8
from hyperlane.quantization.reference import Blocks


@dataclass(kw_only=True, slots=True)
class Source:
    """GGUF's Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 keep their values to the bit."""

    @property
    def name(self) -> str:
        return "source"

    def form(self, role: Role, source: Form | None) -> Form | None:
        return source or INT8

    def pack(self, form: Form, parameter: Parameter) -> Blocks:
        return parameter.blocks() or round_to_int8(parameter.values())
