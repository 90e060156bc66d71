"""Artifacts as JSON and back, and their digests."""

import hashlib
import json
from dataclasses import field, fields, is_dataclass
from typing import Any, TypeVar

import cattrs
from cattrs.preconf.json import make_converter

T = TypeVar("T")

MEASURED = {"measured": True}


def measured(**kwargs: Any) -> Any:
    """A dataclass field that varies from run to run and therefore stays out of digests."""
    return field(metadata=MEASURED, **kwargs)


_CONVERTER = make_converter(forbid_extra_keys=True)


def to_json(artifact: object) -> str:
    """The artifact as indented JSON with a final newline."""
    return json.dumps(_CONVERTER.unstructure(artifact), indent=2, ensure_ascii=False) + "\n"


def from_json(kind: type[T], text: str) -> T:
    """Read an artifact back; raises ValueError where the text is not one of `kind`."""
    try:
        return _CONVERTER.structure(json.loads(text), kind)
    except (json.JSONDecodeError, cattrs.BaseValidationError) as error:
        raise ValueError(f"not a valid {kind.__name__}: {error}") from error


def digest(artifact: object) -> str:
    """SHA-256 (hex) of the artifact without its measured fields."""
    text = json.dumps(_stable(artifact), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _stable(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in fields(value) if f.metadata != MEASURED)
        return {f.name: _stable(getattr(value, f.name)) for f in kept}
    if isinstance(value, (list, tuple)):
        return [_stable(item) for item in value]
    return value
