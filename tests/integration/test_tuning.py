"""A sweep that tunes, its jobs in parallel processes: hydra-optuna-sweeper and hydra-joblib-launcher."""

import csv
from pathlib import Path

from tests.integration.cli import hyperlane


def test_a_tuning_sweep_finds_the_quickest_of_its_jobs(tmp_path: Path) -> None:
    done = hyperlane(
        "-m",
        "hydra/sweeper=optuna",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "hydra.sweeper.n_trials=2",
        "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.sampler.seed=1",
        "model=tiny",
        "prompt=Hello",
        "transport/codec=raw",
        "minimize=ttft_s",
        "cluster.workers=1",
        "generate.context=64",
        "generate.max_new_tokens=2",
        "generate.slots=choice(1,2)",
        cwd=tmp_path,
        store=tmp_path / "store",
    )
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "outputs" / "run-sweep").iterdir()
    with (folder / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    found = (folder / "optimization_results.yaml").read_text()
    assert 0 < float(found.rpartition("best_value:")[2]) < 60  # the seconds that `minimize` asks for


def test_a_job_that_fails_in_another_process_is_the_sweeps_exit_code(tmp_path: Path) -> None:
    done = hyperlane(
        "-m",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "model=tiny",
        "cluster=simulated",
        "partition=uniform",
        "stages=[discover,plan]",
        "generate.context=64,1",
        cwd=tmp_path,
        store=tmp_path / "store",
    )
    assert done.code == 2, done.err
    (folder,) = (tmp_path / "outputs" / "run-sweep").iterdir()
    with (folder / "results.csv").open() as file:
        failures = [line["failure"] for line in csv.DictReader(file)]
    assert failures == ["", "generate.context=1 is out of range; give 2 or more"]
