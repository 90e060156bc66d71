from hypothesis import given
from hypothesis import strategies as st

from hyperlane.generate.stream import StopStrings


def test_text_that_could_begin_a_stop_string_waits() -> None:
    stops = StopStrings(["END"])
    assert [stops.push(piece) for piece in ("abE", "N", "x", "E")] == ["ab", "", "ENx", ""]
    assert stops.finish() == "E"
    assert stops.text == "abENxE"


def test_a_stop_string_over_several_pieces_is_cut_off() -> None:
    stops = StopStrings(["\n\n", "END"])
    shown = "".join(stops.push(piece) for piece in ("one\n", "\ntwo", "three"))
    assert (shown, stops.stopped, stops.text) == ("one", True, "one")
    assert stops.finish() == ""


@given(
    st.lists(st.text("abc", max_size=4), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=3), max_size=3),
)
def test_what_is_shown_is_the_text_up_to_the_first_stop(pieces: list[str], wanted: list[str]) -> None:
    stops = StopStrings(wanted)
    shown = "".join(stops.push(piece) for piece in pieces) + stops.finish()
    assert shown == stops.text
    assert not any(stop in shown for stop in wanted)
    whole = "".join(pieces)
    assert whole.startswith(shown)
    if not any(stop in whole for stop in wanted):
        assert shown == whole
