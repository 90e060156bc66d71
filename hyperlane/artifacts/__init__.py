"""The frozen types that pass between stages: Cluster -> Plan -> Manifest -> Deployment -> Generation.

Each stage writes one of them to its run folder as JSON. A field marked `measured()` (a latency, free memory, a time)
is written too but stays out of the artifact's digest, so that the same config gives the same digests.
"""

from hyperlane.artifacts.cluster import (
    HANDOFF_S,
    TURN_S,
    Checkup,
    Cluster,
    CodecSpeed,
    Finding,
    LinkInfo,
    Rejected,
    StepTime,
    WorkerInfo,
    WorkerSpeed,
)
from hyperlane.artifacts.deployment import (
    Boundary,
    Deployment,
    GpuWeights,
    SelfTest,
    Shard,
    WeightsTime,
)
from hyperlane.artifacts.generation import (
    Accuracy,
    GeneratedText,
    Generation,
    LinkReport,
    Move,
    StageAccuracy,
    StepTimes,
    WorkerRange,
)
from hyperlane.artifacts.manifest import (
    Blob,
    Manifest,
    Part,
)
from hyperlane.artifacts.plan import (
    ModelSpec,
    Placement,
    Plan,
    Prediction,
    ReplicaReport,
    Simulation,
    StagePrediction,
)
from hyperlane.artifacts.written import (
    digest,
    from_json,
    measured,
    to_json,
)

__all__ = [
    "HANDOFF_S",
    "TURN_S",
    "Accuracy",
    "Blob",
    "Boundary",
    "Checkup",
    "Cluster",
    "CodecSpeed",
    "Deployment",
    "Finding",
    "GeneratedText",
    "Generation",
    "GpuWeights",
    "LinkInfo",
    "LinkReport",
    "Manifest",
    "ModelSpec",
    "Move",
    "Part",
    "Placement",
    "Plan",
    "Prediction",
    "Rejected",
    "ReplicaReport",
    "SelfTest",
    "Shard",
    "Simulation",
    "StageAccuracy",
    "StagePrediction",
    "StepTime",
    "StepTimes",
    "WeightsTime",
    "WorkerInfo",
    "WorkerRange",
    "WorkerSpeed",
    "digest",
    "from_json",
    "measured",
    "to_json",
]
