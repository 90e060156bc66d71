"""h4, int4 and h8: golden bytes, bounds, escapes, and native code that gives the bits of the reference.

What is int4's alone is in test_entropy.py.
"""

import hashlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.errors import ConfigError, TransportError
from hyperlane.transport.calibrate import calibrate, relative_error
from hyperlane.transport.codec.rows import CODED, HALF, SINGLE, ZERO
from hyperlane.transport.codec.tabled import TABLED_NAMES, TabledCodec
from hyperlane.transport.codec.tables import Tables
from hyperlane.transport.native import extension

DTYPES = (np.float32, np.float16)


def typical(width: int, rows: int, seed: int = 0) -> np.ndarray:
    """Rows as a transformer's: a few strong channels, means that are not zero. Exact in any NumPy."""
    rng = np.random.PCG64(seed)
    uniform = (rng.random_raw(rows * width * 4).reshape(rows, width, 4) >> np.uint64(40)).astype(np.float64) / 2**24
    normal = uniform.sum(axis=2) - 2
    channel = np.arange(width)
    strength = 0.25 + (channel * 37 % 64) / 32 + 8 * (channel % 97 == 5)
    return (normal * strength + (channel % 5 - 2) / 4).astype(np.float32)


@cache
def codec(name: str, width: int, *, native: bool = False, isa: str = "") -> TabledCodec:
    return TabledCodec(name, calibrate(typical(width, 256)), native=native, isa=isa)


def positions(rows: np.ndarray) -> np.ndarray:
    return np.arange(1, len(rows) + 1, dtype=np.uint32)


def encoded(codec: TabledCodec, rows: np.ndarray) -> np.ndarray:
    return codec.encode(rows, positions(rows))


def decoded(codec: TabledCodec, payload: np.ndarray, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    out = np.full(shape, 99, dtype)
    codec.decode(payload, np.ones(shape[0], np.uint32), out)
    return out


def states(payload: np.ndarray, rows: int) -> list[int]:
    return [int(payload[8 + row // 4] >> (2 * (row % 4))) & 3 for row in range(rows)]


def test_golden_tables() -> None:
    tables = calibrate(typical(100, 256))
    assert tables.digest == "1db430989d6ab302f04c78e7f0bb1cb1e0474b928bcfac4b72b915c12270fb46"
    assert Tables.from_bytes(tables.to_bytes()).digest == tables.digest


@pytest.mark.parametrize(
    ("name", "digest"),
    [("h4", "0a75e1b50467cfbf"), ("int4", "5f01b85c964993ed"), ("h8", "99c4667355f87f78")],
)
def test_golden_bytes(name: str, digest: str) -> None:
    payload = encoded(codec(name, 100), typical(100, 9, seed=1))
    assert hashlib.sha256(payload.tobytes()).hexdigest()[:16] == digest


def test_golden_row_of_h4() -> None:
    row = encoded(codec("h4", 4), np.array([[1, 2, -1, 0.5]], np.float32))
    assert row.tobytes()[8:].hex(" ") == "00 00 3d e3 7d fe"


@pytest.mark.parametrize(("name", "bits"), [("h4", 4.2), ("int4", 4.0), ("h8", 8.25)])
@pytest.mark.parametrize("width", [576, 4096])
def test_a_frame_of_512_rows_keeps_to_its_bits(name: str, bits: float, width: int) -> None:
    header_bytes = 48 + 12 + 4
    rows = typical(width, 512)
    payload = codec(name, width, native=True).encode(rows, np.arange(512, dtype=np.uint32))
    assert states(payload, 512) == [HALF] + [CODED] * 511
    assert 8 * (len(payload) + header_bytes) <= bits * rows.size


@pytest.mark.parametrize(("name", "bound"), [("h4", 0.006), ("int4", 0.0035), ("h8", 5e-5)])
def test_relative_error(name: str, bound: float) -> None:
    rows = typical(576, 256, seed=1)
    coder = codec(name, 576, native=True)
    assert relative_error(rows, decoded(coder, encoded(coder, rows), rows.shape)) < bound


def test_states_of_rows_that_are_not_coded() -> None:
    coder = codec("int4", 64)
    rows = typical(64, 8)
    rows[1] *= 50  # far above the median
    rows[2, 7] = np.nan
    rows[3, 0] = np.inf
    rows[4] = -0.0
    rows[5] *= 1e-9
    rows[6] *= 1e9
    at = np.array([0, *range(1, 8)], np.uint32)
    payload = coder.encode(rows, at)
    assert states(payload, 8) == [HALF, HALF, SINGLE, SINGLE, ZERO, SINGLE, SINGLE, CODED]
    out = decoded(coder, payload, rows.shape)
    np.testing.assert_array_equal(out[2:7], rows[2:7])
    np.testing.assert_array_equal(out[:2], rows[:2].astype(np.float16))
    assert np.isfinite(out[[0, 1, 7]]).all()


def test_a_row_that_no_scale_can_hold_is_sent_as_it_is() -> None:
    tables = replace(codec("h4", 64).tables, mean_D=np.zeros(64, np.float16), scale_D=np.full(64, 2**-6, np.float16))
    rows = np.zeros((2, 64), np.float32)
    rows[:, 5] = 8  # rotated: 64 everywhere, where E4M3 ends at 28
    for name in ("h4", "h8"):
        coder = TabledCodec(name, tables)
        payload = encoded(coder, rows)
        assert states(payload, 2) == [HALF, HALF]
        np.testing.assert_array_equal(decoded(coder, payload, rows.shape), rows)


def test_frames_name_their_tables() -> None:
    rows = typical(64, 4)
    ours = codec("int4", 64, native=True)
    theirs = TabledCodec("int4", calibrate(typical(64, 256, seed=5)))
    payload = encoded(theirs, rows)
    with pytest.raises(TransportError, match=f"{theirs.tables.id.hex()}.*{ours.tables.id.hex()}"):
        decoded(ours, payload, rows.shape)


@pytest.mark.parametrize("native", [True, False])
def test_malformed_payloads(native: bool) -> None:
    rows = typical(64, 5)
    coder = codec("h8", 64, native=native)
    payload = encoded(coder, rows)
    for wrong in (payload[:-1], payload[:9], payload[:0], np.append(payload, np.uint8(0))):
        with pytest.raises(TransportError, match="bytes"):
            decoded(coder, wrong, rows.shape)
    with pytest.raises(TransportError, match="width 65"):
        decoded(coder, payload, (5, 65))
    with pytest.raises(TransportError, match="width 65"):
        encoded(coder, typical(65, 2))


def test_tables_that_are_none() -> None:
    data = codec("h4", 40).tables.to_bytes()
    for wrong in (b"", data[:-1], data + b"\0", b"HYT9" + data[4:], data[:20] + b"\xff\x7f" + data[22:]):
        with pytest.raises(TransportError, match="tables"):
            Tables.from_bytes(wrong)
    with pytest.raises(ConfigError, match="raw"):
        TabledCodec("raw", Tables.from_bytes(data))


def test_what_calibration_leaves_out() -> None:
    rows = typical(64, 100)
    strange = np.concatenate([rows, rows[:3] * 100, np.full((1, 64), np.nan), np.zeros((2, 64))]).astype(np.float32)
    plain, same = calibrate(rows), calibrate(strange)
    assert plain.median_rms == pytest.approx(same.median_rms, rel=0.05)
    np.testing.assert_array_equal(plain.mean_D, same.mean_D)
    with pytest.raises(ValueError, match="finite row"):
        calibrate(np.zeros((3, 64), np.float32))


@st.composite
def hard_rows(draw: st.DrawFn) -> np.ndarray:
    """Rows near the calibrated ones, or far off, with NaN, Inf, denormals, equal rows, zero rows strewn in."""
    rows, width = draw(st.integers(1, 6)), draw(st.sampled_from([1, 2, 3, 5, 36, 63, 64, 65, 127, 128, 192, 200]))
    hidden = typical(width, rows, draw(st.integers(0, 2**32)))
    factors = [1.0, 1.0, 1.0, 3.9, 4.1, 0.01, 1e-5, 1e-8, 1e-40, 1e4, 1e20, 0.0]
    hidden *= np.array([draw(st.sampled_from(factors)) for _ in range(rows)], np.float32)[:, None]
    for value in draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 6e4, 7e4, 1e-45, 30.0]), max_size=2)):
        hidden[draw(st.integers(0, rows - 1)), draw(st.integers(0, width - 1))] = value
    if draw(st.booleans()):
        hidden[draw(st.integers(0, rows - 1))] = draw(st.sampled_from([1.0, -3.0, 0.0, 1e-42]))
    with np.errstate(over="ignore"):
        return hidden.astype(draw(st.sampled_from(DTYPES)))


def isas() -> list[str]:
    native = extension()
    assert native is not None, "hyperlane._native is not built; run pip install -e ."
    names: list[str] = native.isas()
    return names


@pytest.mark.parametrize("name", TABLED_NAMES)
@given(rows=hard_rows(), out_dtype=st.sampled_from(DTYPES))
@settings(max_examples=80, deadline=None)
def test_native_gives_the_bits_of_the_reference(name: str, rows: np.ndarray, out_dtype: type) -> None:
    reference = codec(name, rows.shape[1])
    expected = encoded(reference, rows)
    expected_rows = decoded(reference, expected, rows.shape, out_dtype)
    for isa in isas():
        native = codec(name, rows.shape[1], native=True, isa=isa)
        np.testing.assert_array_equal(encoded(native, rows), expected, err_msg=isa)
        got = decoded(native, expected, rows.shape, out_dtype)
        np.testing.assert_array_equal(got, expected_rows, err_msg=isa)


@pytest.mark.parametrize("name", TABLED_NAMES)
def test_native_gives_the_bits_of_the_reference_for_many_rows_of_halves(name: str) -> None:
    rows = typical(200, 37, seed=6).astype(np.float16)  # twice sixteen, and some
    reference = codec(name, 200)
    expected = encoded(reference, rows)
    expected_rows = decoded(reference, expected, rows.shape, np.float16)
    for isa in isas():
        native = codec(name, 200, native=True, isa=isa)
        np.testing.assert_array_equal(encoded(native, rows), expected, err_msg=isa)
        np.testing.assert_array_equal(decoded(native, expected, rows.shape, np.float16), expected_rows, err_msg=isa)


@pytest.mark.parametrize("name", TABLED_NAMES)
@given(rows=hard_rows())
@settings(max_examples=60, deadline=None)
def test_errors_stay_in_their_row_and_in_bounds(name: str, rows: np.ndarray) -> None:
    coder = codec(name, rows.shape[1], native=True)
    payload = encoded(coder, rows)
    out = decoded(coder, payload, rows.shape)
    sane = np.isfinite(rows).all(axis=1)
    np.testing.assert_array_equal(out[~sane], rows[~sane].astype(np.float32))
    assert np.isfinite(out[sane]).all()
    exact = rows[sane].astype(np.float64)
    scale = np.sqrt((exact**2).mean(axis=1)) + np.abs(coder.tables.median_rms) * 0.01
    spread = coder.tables.scale_D.max() / coder.tables.scale_D.min()
    # Nothing beyond the weighted energy of the row itself is ever lost.
    assert (np.sqrt(((out[sane] - exact) ** 2).mean(axis=1)) <= 2 * float(spread) * scale).all()


@pytest.mark.parametrize("name", TABLED_NAMES)
def test_ten_thousand_rows_and_none(name: str) -> None:
    native, reference = codec(name, 100, native=True), codec(name, 100)
    rows = typical(100, 10_000, seed=2)
    rows[5_000:5_040:19] *= 50  # which are sent as they are
    rows = rows.astype(np.float16)
    payload = encoded(native, rows)
    np.testing.assert_array_equal(payload, encoded(reference, rows))
    out = decoded(native, payload, rows.shape, np.float16)
    np.testing.assert_array_equal(out, decoded(reference, payload, rows.shape, np.float16))
    assert relative_error(rows, out) < 0.02
    none = np.empty((0, 100), np.float32)
    assert len(encoded(native, none)) == len(encoded(reference, none)) == 8
    assert decoded(native, encoded(native, none), (0, 100)).size == 0
