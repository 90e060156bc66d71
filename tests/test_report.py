"""The run's table: what crossed the links, and how."""

from hyperlane.artifacts import Boundary, LinkReport
from hyperlane.report import _codecs, compression


def link(codec: str, wire_bytes: int) -> LinkReport:
    return LinkReport(source="a", target="b", codec=codec, frames=2, wire_bytes=wire_bytes, fp16_bytes=1000)


BOUNDARY = Boundary(layer=3, wanted="int4", codec="int4")


def test_a_shortcut_is_named_and_not_taken_for_compression() -> None:
    taken = [link("cuda ipc", 40)]
    assert _codecs(taken, [BOUNDARY]) == "int4; a -> b cuda ipc, not coded"
    assert compression(taken) == "no hidden states crossed a socket (cuda ipc)"


def test_links_by_tcp_are_as_they_were_beside_it() -> None:
    both = [link("cuda ipc", 40), link("int4", 250)]
    assert compression(both) == "4.00 times smaller than FP16 (int4)"
    assert _codecs([link("int4", 250)], [BOUNDARY]) == "int4"
    assert _codecs([], []) == "no link between workers"
