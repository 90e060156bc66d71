"""`python -m hyperlane.verify RUN_A RUN_B`: did two runs read and make the same? Names the first difference."""

import json
import sys
from pathlib import Path

from hyperlane.errors import HyperlaneError, StoreError

_USAGE = "usage: python -m hyperlane.verify RUN_A RUN_B"


def main() -> None:
    try:
        sys.exit(_verify(sys.argv[1:]))
    except HyperlaneError as error:
        sys.exit(_fail(str(error)))


def first_difference(a: dict[str, object], b: dict[str, object]) -> str | None:
    """The first digest that differs between two run.json records, in the order in which a run makes them."""
    if a.get("config_sha256") != b.get("config_sha256"):
        return f"config_sha256: {a.get('config_sha256')} and {b.get('config_sha256')}"
    for section in ("inputs", "outputs"):
        left, right = _section(a, section), _section(b, section)
        for name in [*left, *(key for key in right if key not in left)]:
            if left.get(name) != right.get(name):
                return f"{section}.{name}: {left.get(name, 'absent')} and {right.get(name, 'absent')}"
    return None


def _verify(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"]):
        print(f"{__doc__}\n\n{_USAGE}")
        return 0
    if len(arguments) != 2:
        return _fail(_USAGE)
    a, b = (_read(Path(folder)) for folder in arguments)
    difference = first_difference(a, b)
    if difference is None:
        count = len(_section(a, "inputs")) + len(_section(a, "outputs"))
        print(f"same: the config and {count} digests agree")
        return 0
    print(f"different: {difference}")
    return 1


def _read(folder: Path) -> dict[str, object]:
    path = folder if folder.name == "run.json" else folder / "run.json"
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); give the folder of a finished run") from error
    except json.JSONDecodeError as error:
        raise StoreError(f"{path} is no run.json ({error}); run it again") from error
    if not isinstance(record, dict) or not {"config_sha256", "inputs", "outputs"} <= record.keys():
        raise StoreError(f"{path} is no run.json; give the folder of a finished run")
    return record


def _section(record: dict[str, object], name: str) -> dict[str, str]:
    section = record.get(name)
    return section if isinstance(section, dict) else {}


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
