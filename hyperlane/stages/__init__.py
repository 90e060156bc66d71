"""The stages of a run, in order. Each takes the context, and returns the artifact that the next ones need."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from hyperlane.artifacts import Checkup, Cluster, Deployment, Generation, Manifest, Plan, Simulation
from hyperlane.stages import chat, deploy, discover, doctor, export, generate, plan, simulate
from hyperlane.stages.context import Context

__all__ = ["STAGES", "Context", "Stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`file` under the stage's folder holds its artifact of type `kind`; `reads` are the config keys it depends on."""

    name: str
    file: str
    kind: type
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    inputs: tuple[str, ...] = ()  # of `Context.inputs`: what was read from outside
    run: Callable[[Context], Awaitable[object]]
    show: Callable[[Context], None]
    always: bool = False  # what it is about can change behind our back: never taken from an earlier run


_ROOM = ("generate.slots", "generate.context", "generate.kv_cache", "generate.prefill_chunk")

STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="discover",
            file="cluster.json",
            kind=Cluster,
            needs=(),
            reads=("cluster",),
            run=discover.run,
            show=discover.show,
            always=True,
        ),
        Stage(
            name="doctor",
            file="checkup.json",
            kind=Checkup,
            needs=("discover",),
            reads=("model", "quantization", "partition", *_ROOM),
            run=doctor.run,
            show=doctor.show,
            always=True,
        ),
        Stage(
            name="plan",
            file="plan.json",
            kind=Plan,
            needs=("discover",),
            reads=("model", "quantization", "partition", "transport.codec", *_ROOM),
            run=plan.run,
            show=plan.show,
        ),
        Stage(
            name="simulate",
            file="simulation.json",
            kind=Simulation,
            needs=("discover", "plan"),
            reads=("simulate", "generate", "partition", "transport.codec"),
            run=simulate.run,
            show=simulate.show,
            always=True,  # figures of speed are outside of digests
        ),
        Stage(
            name="export",
            file="manifest.json",
            kind=Manifest,
            needs=(),
            reads=("model", "quantization", "store"),
            run=export.run,
            show=export.show,
            always=True,  # cheap when the layer store holds everything, and it notices when it does not
        ),
        Stage(
            name="deploy",
            file="deployment.json",
            kind=Deployment,
            needs=("plan", "export"),
            reads=(),
            run=deploy.run,
            show=deploy.show,
            always=True,
        ),
        Stage(
            name="generate",
            file="generation.json",
            kind=Generation,
            needs=("discover", "plan", "export", "deploy"),
            reads=("model", "generate"),
            inputs=("prompts",),
            run=generate.run,
            show=generate.show,
        ),
        Stage(
            name="chat",
            file="chat.json",
            kind=Generation,
            needs=("discover", "plan", "export", "deploy"),
            reads=(),
            run=chat.run,
            show=chat.show,
            always=True,
        ),
    )
}
