"""An installed wheel works from any folder: it brings its configuration, and needs no checkout and no compiler."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.cli import Done, environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds the wheel, and beside it what these tests' environment holds."""
    folder = tmp_path_factory.mktemp("wheel")
    pip, no_index = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"], ("--no-deps", "--no-index")
    build = [*pip, "wheel", *no_index, "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    without_compiler = {**os.environ, "SKBUILD_WHEEL_CMAKE": "false", "SKBUILD_BUILD_DIR": str(folder / "build")}
    subprocess.run(build, check=True, timeout=100, env=without_compiler)
    (wheel,) = folder.glob("hyperlane-*.whl")
    assert "hyperlane/conf/config.yaml" in zipfile.ZipFile(wheel).namelist()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60)
    python = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    # Plain paths: the hook of an editable install is not taken along.
    (site / "beside.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    subprocess.run([*pip, "--python", str(python), "install", *no_index, str(wheel)], check=True, timeout=100)
    return python


def test_it_runs_from_any_folder(python: Path, tmp_path: Path) -> None:
    where = "import hyperlane; print(hyperlane.__file__)"
    found = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert Path(found.stdout.strip()).is_relative_to(python.parents[1])
    command = [python, "-m", "hyperlane", "model=tiny", "prompt=Hi, you", "generate.max_new_tokens=5"]
    command += ["generate.context=64", "generate.ignore_eos=true"]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path / "store"), timeout=100
    )
    done = Done(run.returncode, run.stdout, run.stderr)
    assert len(done.generation["requests"][0]["token_ids"]) == 5
    assert done.folder.is_relative_to(tmp_path)
    assert "warning: hyperlane._native is not built: links and codecs run in Python" in done.err
