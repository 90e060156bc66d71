"""int4: golden bytes, what goes as it is, patches, rate, independence of rows, hostile payloads, native code."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.errors import TransportError
from hyperlane.transport.calibrate import calibrate, relative_error
from hyperlane.transport.codec.rows import CODED, HALF
from hyperlane.transport.codec.scalar_tables import ScalarTables, vectors
from hyperlane.transport.codec.tabled import TabledCodec
from hyperlane.transport.codec.tables import Tables
from tests.transport.codec.test_rotated import codec, decoded, encoded, isas, positions, states, typical


def coder(tables: Tables, isa: str | None = None) -> TabledCodec:
    return TabledCodec("int4", tables, native=isa is not None, isa=isa or "")


def tables(width: int = 64) -> Tables:
    return codec("int4", width).tables


def test_golden_row() -> None:
    """Two channels: y = (x / r - mean) / step; one string of one step."""
    scalar = ScalarTables(
        loudness=2.0,
        step_D=np.array([0.5, 0.25], np.float16),
        order_D=np.array([1, 0], np.uint32),
        shift_D=np.array([0, 1], np.uint8),
        table_V=np.zeros(1, np.uint8),
        frequency_TK=np.array([[0] * 12 + [16] * 4 + [96, 64, 32] + [0] * 13], np.uint8),
    )
    own = Tables(2.0, np.array([0.5, -0.5], np.float16), np.ones(2, np.float16), scalar)
    row = np.array([[1.0, 3.0]], np.float32)  # RMS sqrt(5) = 2.236, r 2.25; y -.111, 7.33; g 1.875; k 0, 4
    payload = encoded(coder(own), row)
    assert payload.tobytes()[9:16].hex(" ") == "81 5f 00 40 00 00 00"  # r 2.25, g 1.875, low bits, a string of 64
    np.testing.assert_allclose(decoded(coder(own), payload, row.shape), [[1.125, 3.09375]])


def test_rows_keep_their_bits_over_other_rows_than_those_of_the_calibration() -> None:
    rows = typical(576, 512, seed=3)
    rows[::3] *= 5  # the size of a row is no matter
    payload = codec("int4", 576, native=True).encode(rows, positions(rows))
    assert 3.85 <= 8 * len(payload) / rows.size <= 4.0


def test_a_value_beyond_its_table_is_patched() -> None:
    rows = typical(64, 40, seed=2)
    rows[7, 3] = 40
    plain = codec("int4", 64)
    payload = encoded(plain, rows)
    assert states(payload, 40) == [CODED] * 40
    out = decoded(plain, payload, rows.shape)
    step = float(plain.reference.step[3]) * np.sqrt((rows[7] ** 2).mean())
    assert abs(out[7, 3] - 40) < 5 * step
    without = rows.copy()
    without[7] = rows[6]
    assert len(payload) - len(encoded(plain, without)) < 24


def test_a_row_with_too_many_values_beyond_their_tables_goes_as_it_is() -> None:
    rows = typical(64, 3, seed=2)
    rows[1, :3] = (60, -60, 60)  # patches are two at most
    payload = encoded(codec("int4", 64), rows)
    assert states(payload, 3) == [CODED, HALF, CODED]
    np.testing.assert_array_equal(decoded(codec("int4", 64), payload, rows.shape)[1], rows[1].astype(np.float16))


def test_what_a_row_decodes_to_does_not_depend_on_the_rows_beside_it() -> None:
    rows = typical(200, 170, seed=4)
    plain = codec("int4", 200, native=True)
    together = decoded(plain, encoded(plain, rows), rows.shape)
    for row in (0, 100, 169):
        alone = decoded(plain, encoded(plain, rows[row : row + 1]), (1, 200))
        np.testing.assert_array_equal(alone[0], together[row])


def test_relative_error_falls_with_the_bits() -> None:
    """A Gaussian's bound is 2^(-2 bits); an entropy code takes .25 bits more, and .07 here go to what each row has."""
    rows = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    plain = coder(calibrate(rows[:256]), "")
    payload = encoded(plain, rows[256:])
    bits = 8 * len(payload) / rows[256:].size
    error = relative_error(rows[256:], decoded(plain, payload, rows[256:].shape))
    assert error < 1.65 * 2 ** (-2 * bits)


@st.composite
def any_tables(draw: st.DrawFn) -> Tables:
    """Sound tables of any shifts, order and frequencies."""
    width = draw(st.sampled_from([1, 2, 31, 32, 33, 100, 256, 257, 576, 700]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 5))
    frequency = np.zeros((count, 32), np.uint8)
    for row in frequency:
        first = int(rng.integers(0, 16))
        last = int(rng.integers(16, 32))
        parts = np.sort(rng.choice(np.arange(1, 256), last - first, replace=False))
        row[first : last + 1] = np.diff(np.concatenate([[0], parts, [256]]))
    order = np.concatenate([a + rng.permutation(min(256, width - a)) for a in range(0, width, 256)])
    scalar = ScalarTables(
        loudness=float(np.float32(rng.uniform(0.5, 6))),
        step_D=rng.uniform(0.05, 0.6, width).astype(np.float16),
        order_D=order.astype(np.uint32),
        shift_D=rng.choice([0, 0, 0, 1, 1, 2, 7], width).astype(np.uint8),
        table_V=rng.integers(0, count, vectors(width)).astype(np.uint8),
        frequency_TK=frequency,
    )
    calibrated = calibrate(typical(width, 64))
    return replace(calibrated, scalar=scalar)


@given(own=any_tables(), rows=st.integers(1, 70), seed=st.integers(0, 2**32), half=st.booleans())
@settings(max_examples=60, deadline=None)
def test_native_gives_the_bits_of_the_reference_for_any_tables(own: Tables, rows: int, seed: int, half: bool) -> None:
    hidden = typical(own.width, rows, seed).astype(np.float16 if half else np.float32)
    expected = encoded(coder(own), hidden)
    expected_rows = decoded(coder(own), expected, hidden.shape, hidden.dtype.type)
    for isa in isas():
        np.testing.assert_array_equal(encoded(coder(own, isa), hidden), expected, err_msg=isa)
        got = decoded(coder(own, isa), expected, hidden.shape, hidden.dtype.type)
        np.testing.assert_array_equal(got, expected_rows, err_msg=isa)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_altered_payloads_are_refused_or_decode_to_rows(data: st.DataObject) -> None:
    """Whatever arrives: no crash, no read beyond the end; native code and the reference agree on what is wrong."""
    rows = typical(100, 30, seed=5)
    rows[9, 9] = 40
    payload = bytearray(encoded(codec("int4", 100), rows).tobytes())
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(8, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.sampled_from([len(payload), len(payload) - 1, len(payload) // 2]))]
    outcomes = []
    for own in (codec("int4", 100), *(codec("int4", 100, native=True, isa=isa) for isa in isas())):
        try:
            outcomes.append(decoded(own, np.frombuffer(bytes(payload), np.uint8), rows.shape))
        except TransportError:
            outcomes.append(None)
    for outcome in outcomes[1:]:
        assert (outcome is None) == (outcomes[0] is None)
        if outcome is not None:
            np.testing.assert_array_equal(outcome, outcomes[0])


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e5, 1e20])
@pytest.mark.parametrize("tenth", [1, 10])
def test_rows_that_fp16_cannot_size_leave_the_tables_alone(size: float, tenth: int) -> None:
    """They go as they are; all of them, or nine of ten among others."""
    rows = typical(64, 200, seed=6)
    rows[np.arange(200) % 10 != tenth] *= np.float32(size)
    own = calibrate(rows)
    assert own.scalar.sound()
    plain = coder(own)
    assert relative_error(rows, decoded(plain, encoded(plain, rows), rows.shape)) < 0.01


@pytest.mark.parametrize(
    "rows",
    [typical(64, 1), np.ones((30, 64), np.float32), np.full((1, 1), 2, np.float32), np.eye(70, dtype=np.float32)],
    ids=["one", "constant", "one value", "one channel each"],
)
def test_degenerate_texts_give_sound_tables(rows: np.ndarray) -> None:
    own = Tables.from_bytes(calibrate(rows).to_bytes())
    plain = coder(own)
    assert relative_error(rows, decoded(plain, encoded(plain, rows), rows.shape)) < 0.005


def test_tables_that_do_not_fit_are_refused() -> None:
    own = tables()
    wrong = {
        "step_D": np.zeros(64, np.float16),
        "order_D": np.zeros(64, np.uint32),
        "shift_D": np.full(64, 8, np.uint8),
        "table_V": np.full(2, 9, np.uint8),
        "frequency_TK": np.full((1, 32), 7, np.uint8),
        "loudness": float("nan"),
    }
    for name, value in wrong.items():
        with pytest.raises(TransportError, match="tables of width 64 are inconsistent"):
            replace(own, scalar=replace(own.scalar, **{name: value}))
    gap = np.zeros((1, 32), np.uint8)
    gap[0, [3, 20]] = 128
    with pytest.raises(TransportError, match="inconsistent"):
        replace(own, scalar=replace(own.scalar, frequency_TK=gap, table_V=np.zeros(2, np.uint8)))
    across = np.roll(np.arange(600, dtype=np.uint32), 300)  # sorted across blocks of 256
    with pytest.raises(TransportError, match="inconsistent"):
        replace(tables(600), scalar=replace(tables(600).scalar, order_D=across))


def test_golden_payload_of_many_rows() -> None:
    payload = encoded(codec("int4", 576), typical(576, 60, seed=1))  # a string of 56 rows, one of 4
    assert hashlib.sha256(payload.tobytes()).hexdigest()[:16] == "7aa9b89ff6f58867"
