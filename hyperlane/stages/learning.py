"""What runs taught of each worker, kept in the store for the next plan."""

import hashlib
import json
import logging
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from hyperlane.artifacts import Accuracy, Cluster, ModelSpec, WorkerInfo
from hyperlane.config import Config
from hyperlane.errors import StoreError
from hyperlane.partition.calibration import WorkerCalibration, calibrated, learnt, subject
from hyperlane.rundir import write_atomic

log = logging.getLogger(__name__)


def with_experience(cluster: Cluster, model: ModelSpec, config: Config) -> Cluster:
    """`cluster` with what earlier runs taught of its workers."""
    return calibrated(cluster, _known(cluster, model, config)) if config.learn else cluster


def learn(cluster: Cluster, model: ModelSpec, accuracy: Accuracy, config: Config) -> None:
    """Keep what a run taught. Where it cannot be kept a warning says so."""
    known = learnt(cluster, _known(cluster, model, config), accuracy)
    workers = {worker.name: worker for worker in cluster.workers}
    try:
        for name, calibration in known.items():
            write_atomic(_path(workers[name], model, config), json.dumps(asdict(calibration), indent=2) + "\n")
    except StoreError as error:
        log.warning("what the run taught is lost: %s", error)


def _known(cluster: Cluster, model: ModelSpec, config: Config) -> dict[str, WorkerCalibration]:
    found = {}
    for worker in cluster.workers:
        with suppress(OSError, ValueError, TypeError):
            found[worker.name] = WorkerCalibration(**json.loads(_path(worker, model, config).read_text()))
    return found


def _path(worker: WorkerInfo, model: ModelSpec, config: Config) -> Path:
    key = hashlib.sha256(json.dumps(subject(worker, model, config.choices["cluster"])).encode()).hexdigest()
    return config.store.path / "experience" / f"{key}.json"
