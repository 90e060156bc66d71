"""A run: for each stage, are its inputs there, is it done already? If not run it, save it, log it."""

import logging
from collections.abc import Mapping
from pathlib import Path

from hyperlane.artifacts import digest
from hyperlane.config import Config
from hyperlane.errors import ConfigError
from hyperlane.rundir import RunDir, write_run_json
from hyperlane.stages import STAGES, Context, Stage

log = logging.getLogger(__name__)


async def run(config: Config, folder: Path) -> Context:
    """Run the configured stages in `folder`; returns the context that holds their artifacts."""
    stages = [_stage(name) for name in config.stages]
    run_dir = RunDir(folder)
    async with Context.open(config, run_dir) as context:
        for stage in stages:
            await _run_stage(stage, context, run_dir)
        inputs, outputs = record_of(context)
        write_run_json(run_dir, config.sha256, config.generate.seed, inputs, outputs)
    return context


def record_of(context: Context) -> tuple[dict[str, str], dict[str, str]]:
    """The digests of everything that the run read and made, in the order in which it made them."""
    artifacts = {name: context.artifacts[name] for name in STAGES if name in context.artifacts}
    outputs = {name: digest(artifact) for name, artifact in artifacts.items() if name != "discover"}
    for part in context.manifest.parts if "export" in artifacts else ():
        outputs[f"{part.name}.graph"] = part.graph.sha256
        outputs[f"{part.name}.weights"] = part.weights.sha256
    inputs = dict(context.inputs)
    if "discover" in artifacts:
        inputs["cluster"] = digest(artifacts["discover"])
    return inputs, outputs


async def _run_stage(stage: Stage, context: Context, run_dir: RunDir) -> None:
    for name in stage.needs:
        if name not in context.artifacts:
            needed = STAGES[name]
            context.artifacts[name] = run_dir.load(name, needed.file, needed.kind)
    inputs = _inputs(stage, context)
    if not stage.always and run_dir.done(stage.name, inputs):
        context.artifacts[stage.name] = run_dir.load(stage.name, stage.file, stage.kind)
        log.info("%s: kept from the earlier run", stage.name)
        stage.show(context)
        return
    log.info("%s: begins", stage.name)
    context.artifacts[stage.name] = await stage.run(context)
    run_dir.save(stage.name, stage.file, context.artifacts[stage.name], inputs)
    log.info("%s: done", stage.name)
    stage.show(context)


def _inputs(stage: Stage, context: Context) -> Mapping[str, str]:
    """What the stage's result depends on: the artifacts that it needs and the configuration that it reads."""
    needed = {name: digest(context.artifacts[name]) for name in stage.needs}
    outside = {name: context.inputs[name] for name in stage.inputs if name in context.inputs}
    return {**needed, **outside, "config": context.config.digest(stage.reads)}


def _stage(name: str) -> Stage:
    if name not in STAGES:
        raise ConfigError(f"unknown stage {name} in stages=; there are {', '.join(STAGES)}")
    return STAGES[name]
