"""One door per dependency: who may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hyperlane

ROOT = Path(hyperlane.__file__).parent
DOORS = {
    "hydra": ("command.py", "compose.py", "sweep.py"),
    "omegaconf": ("command.py", "compose.py", "config.py", "sweep.py"),
    "grpc": ("control/",),
    "grpc_health": ("control/",),
    "grpc_reflection": ("control/",),
    "onnxruntime": ("worker/session.py", "quantization/"),
    "torch": ("model/",),
    "transformers": ("model/", "generate/tokenizer.py"),
    "onnx": ("model/",),
    "zeroconf": ("cluster/",),
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", DOORS)
def test_a_dependency_has_one_door(package: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if package in imports(path)}
    assert users, f"{package} is used nowhere: take it off the list"
    assert [user for user in users if not user.startswith(DOORS[package])] == []


@pytest.mark.parametrize("module", ["hyperlane.worker.__main__", "hyperlane.worker.serve", "hyperlane.worker.session"])
def test_a_worker_reads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'onnx', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_help_is_quick_because_it_reads_no_torch() -> None:
    code = "import sys, hyperlane.command; print([m for m in ('torch', 'transformers', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
