"""The main job on a small random model: every stage, resume, sweeps, reproduction."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli import Done, hyperlane

TINY = ("model=tiny", "generate.context=128", "generate.max_new_tokens=8", "generate.ignore_eos=true")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def first(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    done = hyperlane(*TINY, "prompt=Hello", "transport/codec=raw", cwd=tmp_path_factory.mktemp("first"), store=store)
    assert done.code == 0, done.err
    return done


def test_generation_json_has_the_documented_shape(first: Done) -> None:
    generation = first.generation
    assert generation.keys() == {"requests", "links", "workers", "accuracy", "moves"}
    assert generation["accuracy"] is None  # nothing was timed
    (request,) = generation["requests"]
    assert request.keys() == {
        "prompt",
        "prompt_token_ids",
        "token_ids",
        "text",
        "finish_reason",
        "ttft_s",
        "decode_tokens_per_s",
        "cached_tokens",
        "drafted_tokens",
        "accepted_tokens",
    }
    assert request["prompt"] == "Hello"
    assert (len(request["token_ids"]), request["finish_reason"]) == (8, "length")
    assert request["ttft_s"] > 0
    assert request["decode_tokens_per_s"] > 0
    assert [(w["name"], w["start"], w["stop"]) for w in generation["workers"]] == [
        ("local-0", 0, 2),
        ("local-1", 2, 4),
    ]
    links = generation["links"]
    assert [(link["source"], link["target"], link["codec"]) for link in links] == [
        ("coordinator", "local-0", "tokens"),
        ("local-0", "local-1", "raw"),
        ("local-1", "coordinator", "candidates"),
    ]
    rows = len(request["prompt_token_ids"]) + 7
    assert links[1]["fp16_bytes"] == rows * 64 * 2
    assert links[1]["wire_bytes"] > rows * 64 * 4
    assert all(link["frames"] == 8 for link in links)


def test_the_folder_has_everything(first: Done) -> None:
    record = json.loads((first.folder / "run.json").read_text())
    assert record.keys() >= {"config_sha256", "versions", "git_commit", "inputs", "outputs"}
    for file in ("discover/cluster.json", "plan/plan.json", "plan/plan.svg", "export/manifest.json"):
        assert (first.folder / file).stat().st_size > 0
    assert (first.folder / ".hydra" / "overrides.yaml").is_file()
    assert first.folder.parts[-3] == "outputs"
    for figure in ("workers", "layers", "bytes on the wire", "compression", "time to first token", "folder"):
        assert figure in first.out


def test_the_same_config_gives_the_same_digests(first: Done, store: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh-store"
    again = hyperlane(*TINY, "prompt=Hello", "transport/codec=raw", cwd=tmp_path, store=fresh)
    command = [sys.executable, "-m", "hyperlane.verify", str(first.folder), str(again.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "same")
    other = hyperlane(*TINY, "prompt=Bye", "transport/codec=raw", cwd=tmp_path, store=store)
    done = subprocess.run([*command[:-1], str(other.folder)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, "config_sha256" in done.stdout) == (1, True)


def test_export_happens_once_whatever_the_split(first: Done, store: Path, tmp_path: Path) -> None:
    assert first.artifact("export", "manifest.json")["exported"] == 6  # embedding, four layers, head
    for override in ("cluster.workers=3", "partition=knapsack", "partition=manual partition.layers=[3,1]"):
        done = hyperlane(*TINY, "prompt=Hello", "transport/codec=raw", *override.split(), cwd=tmp_path, store=store)
        assert done.artifact("export", "manifest.json")["exported"] == 0, override
        assert done.generation["requests"][0]["token_ids"] == first.generation["requests"][0]["token_ids"]


def test_a_run_goes_on_where_it_stopped(store: Path, tmp_path: Path) -> None:
    planned = hyperlane(*TINY, "prompt=Hello", "stages=[discover,plan]", cwd=tmp_path, store=store)
    assert planned.code == 0, planned.err
    assert not (planned.folder / "generate").exists()
    stages = "stages=[discover,plan,export,deploy,generate]"
    done = hyperlane(f"run_dir={planned.folder}", stages, cwd=tmp_path, store=store)
    assert done.code == 0, done.err
    assert done.folder == planned.folder
    assert "plan: kept from the earlier run" in (done.folder / "hyperlane.log").read_text()
    assert done.generation["requests"][0]["prompt"] == "Hello"
    tokens = (done.folder / "generate" / "stamp.json").stat().st_mtime_ns
    again = hyperlane(f"run_dir={planned.folder}", cwd=tmp_path, store=store)
    assert (again.folder / "generate" / "stamp.json").stat().st_mtime_ns == tokens
    assert done.generation["requests"][0]["text"] in again.out


def test_stages_can_be_run_one_by_one(store: Path, tmp_path: Path) -> None:
    first = hyperlane(*TINY, "prompt=Hi", "stages=[discover,plan]", cwd=tmp_path, store=store)
    for stages in ("[export]", "[deploy,generate]"):
        done = hyperlane(f"run_dir={first.folder}", f"stages={stages}", cwd=tmp_path, store=store)
        assert done.code == 0, done.err
    assert done.generation["requests"][0]["finish_reason"] == "length"


def test_a_sweep_gives_a_folder_a_job_and_one_table(store: Path, tmp_path: Path) -> None:
    done = hyperlane(
        "-m",
        *TINY,
        'prompts=["one, two","three"]',
        "transport/codec=raw,int4_plain",
        cwd=tmp_path,
        store=store,
    )
    assert done.code == 0, done.err
    folders = [Path(line.removeprefix("run: ")) for line in done.out.splitlines() if line.startswith("run: ")]
    assert len(set(folders)) == 4
    (results,) = tmp_path.glob("outputs/*/*/results.csv")
    with results.open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["folder"]) for row in rows] == folders
    assert {(row["prompt"], row["transport/codec"]) for row in rows} == {
        (prompt, codec) for prompt in ("one, two", "three") for codec in ("raw", "int4_plain")
    }
    assert len({folder.parent for folder in folders}) == 2, "runs of one deployment stand together"
    prompts = {json.loads((f / "generate/generation.json").read_text())["requests"][0]["prompt"] for f in folders}
    assert prompts == {"one, two", "three"}


def test_a_failing_job_does_not_end_a_sweep(store: Path, tmp_path: Path) -> None:
    done = hyperlane("-m", *TINY, "generate.context=32,128", f"prompt={'x' * 60}", cwd=tmp_path, store=store)
    assert done.code == 2
    assert done.err.count("error: ") == 1
    (results,) = tmp_path.glob("outputs/*/*/results.csv")
    with results.open() as file:
        rows = list(csv.DictReader(file))
    assert ["context" in row["failure"] for row in rows] == [True, False]


def test_a_file_of_prompts_is_one_batch(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('"first"\n{"prompt": "second"}\n\n"third"\n"fourth"\n"fifth"\n"sixth"\n')
    done = hyperlane(*TINY, f"prompts_file={file}", "generate.slots=2", cwd=tmp_path, store=store)
    assert done.code == 0, done.err
    requests = done.generation["requests"]
    assert [r["prompt"] for r in requests] == ["first", "second", "third", "fourth", "fifth", "sixth"]
    for name in ("first", "sixth"):
        alone = hyperlane(*TINY, f"prompt={name}", cwd=tmp_path, store=store)
        batched = next(r for r in requests if r["prompt"] == name)
        assert alone.generation["requests"][0]["token_ids"] == batched["token_ids"]


def test_sampling_reproduces_and_a_seed_changes_it(store: Path, tmp_path: Path) -> None:
    sampled = ("prompt=Hello", "transport/codec=raw", "generate.temperature=1.5", "generate.max_new_tokens=24")
    runs = [
        hyperlane(*TINY, *sampled, f"generate.seed={seed}", *more, cwd=tmp_path, store=store).generation
        for seed, more in ((1, ()), (1, ("cluster.workers=1",)), (2, ()))
    ]
    tokens = [run["requests"][0]["token_ids"] for run in runs]
    assert tokens[0] == tokens[1]
    assert tokens[0] != tokens[2]


def test_chat_answers_each_line(store: Path, tmp_path: Path) -> None:
    done = hyperlane("chat", *TINY, cwd=tmp_path, store=store, input="hello\n/reset\nhello\n/exit\n")
    assert done.code == 0, done.err
    turns = done.artifact("chat", "chat.json")["requests"]
    assert [turn["prompt"] for turn in turns] == ["hello", "hello"]
    assert turns[0]["token_ids"] == turns[1]["token_ids"]
    assert turns[0]["text"] in done.out


def test_help_config_and_completion_are_hydras(tmp_path: Path, store: Path) -> None:
    assert (
        "partition: balanced, knapsack, manual, optimal, uniform" in hyperlane("--help", cwd=tmp_path, store=store).out
    )
    shown = hyperlane("--cfg", "job", "partition=manual", "partition.layers=[2,2]", cwd=tmp_path, store=store)
    assert "kind: manual" in shown.out
    assert "hydra_bash_completion" in hyperlane("-sc", "install=bash", cwd=tmp_path, store=store).out
    assert not (tmp_path / "outputs").exists()


def test_a_users_own_config_folder_is_used_and_checked(tmp_path: Path, store: Path) -> None:
    (tmp_path / "mine" / "partition").mkdir(parents=True)
    own = tmp_path / "mine" / "partition" / "last_heavy.yaml"
    own.write_text("kind: manual\nlayers: [1, 3]\nworkers: []\nreserve: 0.1\n")
    overrides = (*TINY, "partition=last_heavy", "stages=[discover,plan]")
    done = hyperlane("--config-dir", str(tmp_path / "mine"), *overrides, cwd=tmp_path, store=store)
    assert done.code == 0, done.err
    plan = done.artifact("plan", "plan.json")
    assert [(p["start"], p["stop"]) for p in plan["placements"]] == [(0, 1), (1, 4)]
