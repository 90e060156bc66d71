"""A sweep's table: everything in the CSV, what differs on the terminal."""

from pathlib import Path

from hyperlane.sweep import Row, for_a_terminal, make_row, table_of


def job(number: int, codec: str, bytes_said: str, failure: str = "") -> Row:
    figures = {"workers": "2", "codec": codec, "bytes on the wire": bytes_said} if not failure else {}
    return make_row(
        number, [f"transport/codec={codec[:2]}", "prompt='a (b)'"], figures, failure, 0, Path(f"/runs/{number}")
    )


def test_the_csv_holds_everything() -> None:
    header, lines = table_of([job(0, "h8 (int4 refused)", "10 (hidden states 5)"), job(1, "raw", "20")])
    assert header == ["job", "transport/codec", "workers", "codec", "bytes on the wire", "folder"]
    assert lines[0] == ["0", "h8", "2", "h8 (int4 refused)", "10 (hidden states 5)", "/runs/0"]


def test_a_terminal_shows_what_differs_without_asides() -> None:
    header, lines = for_a_terminal([job(0, "h8 (int4 refused)", "10 (hidden states 5)"), job(1, "raw", "20")])
    assert header == ["job", "transport/codec", "codec", "bytes on the wire"]
    assert lines == [["0", "h8", "h8", "10"], ["1", "ra", "raw", "20"]]


def test_a_failure_is_shown_whole() -> None:
    header, lines = for_a_terminal([job(0, "h8", "10"), job(1, "raw", "", failure="it broke (here)")])
    assert header[-1] == "failure"
    assert [line[-1] for line in lines] == ["", "it broke (here)"]


def test_one_job_shows_all_its_figures() -> None:
    assert for_a_terminal([job(0, "h8", "10")])[0] == ["job", "workers", "codec", "bytes on the wire"]
