"""int8 and int4_plain: golden bytes, error bounds, sizes, native code against the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.errors import TransportError
from hyperlane.transport.codec import Codec, make_codec
from hyperlane.transport.codec.int4_plain import Int4Plain
from hyperlane.transport.codec.int8 import Int8
from hyperlane.transport.frame import Frame, Kind, Run, pack
from hyperlane.transport.native import extension

GROUPED = {"int8": Int8, "int4_plain": Int4Plain}
LEVELS = {"int8": 127, "int4_plain": 7}
DTYPES = (np.float32, np.float16)


def decoded(codec: Codec, payload: np.ndarray, shape: tuple[int, int], dtype: type) -> np.ndarray:
    out = np.empty(shape, dtype)
    codec.decode(payload, np.zeros(shape[0], np.uint32), out)
    return out


def encoded(codec: Codec, rows: np.ndarray) -> np.ndarray:
    return np.asarray(codec.encode(rows, np.zeros(len(rows), np.uint32)))


def test_golden_bytes_of_int8() -> None:
    rows = np.array([[127, -127, 0.5, 1.5, 0, 63.4]], np.float32)  # scale 1; halves round to even
    assert encoded(Int8(native=False), rows).tobytes().hex(" ", 2) == "003c 7f81 0002 003f"


def test_golden_bytes_of_int4_plain() -> None:
    rows = np.array([[7, -7, 0.5, 1.5, 3]], np.float32)  # low nibbles 7 -7 0.5, high 1.5 3 and padding
    assert encoded(Int4Plain(native=False), rows).tobytes().hex(" ") == "00 3c af b1 88"


@st.composite
def hard_rows(draw: st.DrawFn) -> np.ndarray:
    """Rows of normal values at some scale, with NaN, Inf, denormals, zeros and ties strewn in."""
    rows = draw(st.integers(0, 5))
    width = draw(st.one_of(st.integers(1, 200), st.sampled_from([1024, 1100, 4200])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(DTYPES))
    scale = draw(st.sampled_from([1e-40, 1e-8, 1e-6, 1e-3, 1.0, 127.0, 3e4, 1e7, 1e30]))
    with np.errstate(over="ignore"):
        hidden = (rng.standard_normal((rows, width)) * scale).astype(dtype)
    hard = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 65504, 6e-8, 0.5, 1.5, -2.5, 127], dtype)
    strewn = rng.random(hidden.shape) < draw(st.sampled_from([0.0, 0.01, 0.3]))
    return np.where(strewn, rng.choice(hard, hidden.shape), hidden)


@pytest.mark.parametrize("name", GROUPED)
@given(rows=hard_rows(), out_dtype=st.sampled_from(DTYPES))
@settings(max_examples=150, deadline=None)
def test_native_gives_the_bits_of_the_reference(name: str, rows: np.ndarray, out_dtype: type) -> None:
    native = extension()
    assert native is not None, "hyperlane._native is not built; run pip install -e ."
    reference = GROUPED[name](native=False)
    payload = encoded(reference, rows)
    values = decoded(reference, payload, rows.shape, out_dtype)
    for isa in native.isas():
        native_payload = np.empty_like(payload)
        getattr(native, f"{name}_encode")(rows, native_payload, isa)
        assert native_payload.tobytes() == payload.tobytes(), isa
        out = np.empty(rows.shape, out_dtype)
        getattr(native, f"{name}_decode")(payload, out, isa)
        assert out.tobytes() == values.tobytes(), isa


@pytest.mark.parametrize("name", GROUPED)
@given(rows=hard_rows())
@settings(max_examples=100, deadline=None)
def test_a_value_is_off_by_half_a_step_and_a_nan_stays_in_its_group(name: str, rows: np.ndarray) -> None:
    codec = make_codec(name)
    out = decoded(codec, encoded(codec, rows), rows.shape, np.float32)
    for start in range(0, rows.shape[1], 64):
        source, result = rows[:, start : start + 64].astype(np.float32), out[:, start : start + 64]
        finite = np.isfinite(source).all(axis=1)
        assert np.isnan(result[~finite]).all()
        source, result = source[finite].astype(np.float64), result[finite]
        absmax = np.abs(source).max(axis=1, keepdims=True, initial=0)
        held = (absmax < 65504 * LEVELS[name]) & (absmax > 6.2e-5 * LEVELS[name])  # the scale is a normal half
        step = absmax / LEVELS[name]
        assert (np.abs(source - result) <= np.where(held, 0.5 * step + absmax / 2**11, np.inf)).all()


@pytest.mark.parametrize(("name", "share"), [("int8", 0.54), ("int4_plain", 0.275)])
@pytest.mark.parametrize("width", [576, 640, 4096])
def test_frames_of_64_rows_keep_to_their_share_of_fp16(name: str, share: float, width: int) -> None:
    rows = np.ones((64, width), np.float16)
    codec = make_codec(name)
    payload = codec.encode(rows, np.arange(64, dtype=np.uint32))
    decode_runs = tuple(Run(slot, 1, 100, 1) for slot in range(64))
    for runs in (decode_runs, (Run(0, 0, 0, 64),)):
        frame = Frame(
            kind=Kind.HIDDEN,
            codec=codec.id,
            rows=64,
            width=width,
            runs=runs,
            payload=memoryview(payload).cast("B"),
        )
        assert len(pack(frame)) <= share * rows.nbytes


@pytest.mark.parametrize("name", ["raw", "int8", "int4_plain"])
@pytest.mark.parametrize("native", [True, False])
def test_a_payload_of_another_length_is_refused(name: str, native: bool) -> None:
    codec = make_codec(name) if native or name == "raw" else GROUPED[name](native=False)
    payload = encoded(codec, np.ones((3, 70), np.float32))
    for wrong in (payload[:-1], np.concatenate([payload, payload[:1]])):
        with pytest.raises(TransportError, match="rows"):
            decoded(codec, wrong, (3, 70), np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_keeps_every_bit(dtype: type) -> None:
    rows = np.random.default_rng(0).standard_normal((5, 33)).astype(dtype)
    codec = make_codec("raw")
    assert decoded(codec, encoded(codec, rows), rows.shape, dtype).tobytes() == rows.tobytes()
    assert decoded(codec, encoded(codec, rows[:, ::2]), (5, 17), dtype).tobytes() == rows[:, ::2].tobytes()
