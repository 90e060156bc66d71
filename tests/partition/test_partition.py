"""Every strategy covers each layer once, in order, counts KV, and says what does not fit."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlane.artifacts import Cluster, ModelSpec, WorkerInfo
from hyperlane.errors import PlanError
from hyperlane.partition import Partition, Range, check_cover, place
from hyperlane.partition.balanced import Balanced, balanced_bounds
from hyperlane.partition.knapsack import Knapsack
from hyperlane.partition.manual import Manual
from hyperlane.partition.memory import Workload
from hyperlane.partition.optimal import Optimal
from hyperlane.partition.uniform import Uniform

MIB = 1 << 20
WORKLOAD = Workload(slots=2, context=128, prefill_chunk=32)


def model(layers: int = 8) -> ModelSpec:
    return ModelSpec(
        source="toy",
        family="llama",
        layers=layers,
        hidden_size=64,
        vocab_size=256,
        max_positions=512,
        dtype="float32",
        embedding_bytes=MIB,
        layer_bytes=(10 * MIB,) * layers,
        head_bytes=MIB,
        kv_bytes_per_token=(512,) * layers,
    )


def cluster(*memory_mib: int) -> Cluster:
    return Cluster(
        workers=tuple(
            WorkerInfo(
                name=f"w{index}",
                device="cpu",
                memory_total_bytes=size * MIB,
                memory_free_bytes=size * MIB,
                control_address=f"127.0.0.1:{index}",
                data_addresses=(),
                latency_s=0.0,
            )
            for index, size in enumerate(memory_mib)
        )
    )


def cut(strategy: Partition, model: ModelSpec, cluster: Cluster) -> list[tuple[str, int, int]]:
    return [(p.worker, p.start, p.stop) for p in place(strategy, model, cluster, WORKLOAD)]


def test_uniform_gives_the_first_workers_what_does_not_divide() -> None:
    assert cut(Uniform(), model(8), cluster(500, 500, 500)) == [("w0", 0, 3), ("w1", 3, 6), ("w2", 6, 8)]


def test_uniform_leaves_out_workers_beyond_the_layers() -> None:
    assert cut(Uniform(), model(2), cluster(500, 500, 500)) == [("w0", 0, 1), ("w1", 1, 2)]


def test_balanced_counts_the_head() -> None:
    smollm2 = replace(model(30), hidden_size=576, layer_products=(3_538_944,) * 30, head_products=28_311_552)
    assert cut(Balanced(), smollm2, cluster(5000, 5000)) == [("w0", 0, 18), ("w1", 18, 30)]
    assert cut(Balanced(), smollm2, cluster(5000, 5000, 5000)) == [("w0", 0, 12), ("w1", 12, 24), ("w2", 24, 30)]


def test_balanced_counts_what_a_layer_does_besides_its_products_the_more_the_longer_the_texts() -> None:
    small = replace(model(30), hidden_size=576, layer_products=(3_538_944,) * 30, head_products=28_311_552)
    cuts = []
    for prompt in (1, 4000):
        workload = replace(WORKLOAD, context=8192, prompt_tokens=prompt)
        cuts.append(place(Balanced(), small, cluster(90_000, 90_000), workload)[0].stop)
    assert cuts[0] == 18
    assert cuts[1] < 18


@given(layers=st.lists(st.integers(1, 9), min_size=1, max_size=9), head=st.integers(0, 30), parts=st.integers(1, 4))
def test_no_cut_has_a_smaller_largest_part(layers: list[int], head: int, parts: int) -> None:
    parts = min(parts, len(layers))

    def largest(bounds: Sequence[int]) -> int:
        sizes = [sum(layers[a:b]) for a, b in pairwise(bounds)]
        return max([*sizes[:-1], sizes[-1] + head])

    every = [(0, *inner, len(layers)) for inner in combinations(range(1, len(layers)), parts - 1)]
    assert largest(balanced_bounds(layers, head, parts)) == min(map(largest, every))


def test_knapsack_fills_the_largest_first_and_leaves_the_rest_out() -> None:
    assert cut(Knapsack(), model(8), cluster(60, 5000, 60)) == [("w1", 0, 8)]


def test_knapsack_spills_over_where_memory_ends() -> None:
    assert [w for w, _, _ in cut(Knapsack(), model(8), cluster(60, 60, 60))] == ["w0", "w1"]


def test_manual_follows_the_user() -> None:
    strategy = Manual(layers=[5, 3], workers=["w1", "w0"])
    assert cut(strategy, model(8), cluster(500, 500)) == [("w1", 0, 5), ("w0", 5, 8)]


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (Manual(layers=[5, 4]), "add up to the model's 8 layers"),
        (Manual(layers=[8, 0]), "must be positive"),
        (Manual(layers=[4, 2, 2]), "needs 3 workers, there are 2"),
        (Manual(layers=[4, 4], workers=["w0", "elsewhere"]), "names elsewhere"),
        (Manual(layers=[4, 4], workers=["w0", "w0"]), "named twice"),
        (Uniform(reserve=1.5), "partition.reserve=1.5"),
    ],
)
def test_a_wrong_split_is_said(strategy: Partition, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        place(strategy, model(8), cluster(500, 500), WORKLOAD)


@pytest.mark.parametrize("strategy", [Balanced(), Uniform(), Knapsack(), Manual(layers=[4, 4]), Optimal()])
def test_a_model_that_does_not_fit_says_need_and_have(strategy: Partition) -> None:
    with pytest.raises(PlanError, match=r"toy does not fit.*w0.*GiB.*w1.*GiB"):
        place(strategy, model(8), cluster(20, 20), WORKLOAD)


def test_kv_and_activations_count() -> None:
    (only,) = place(Uniform(), model(8), cluster(500), WORKLOAD)
    assert only.weight_bytes == 82 * MIB
    assert only.kv_bytes == 8 * 512 * 2 * 129
    assert only.activation_bytes > 0
    assert only.memory_bytes == only.weight_bytes + only.kv_bytes + only.activation_bytes


def test_attention_scores_count_where_workers_hold_them() -> None:
    (held,) = place(Uniform(), model(8), cluster(500), WORKLOAD)
    (own,) = place(Uniform(), model(8), cluster(500), replace(WORKLOAD, scores=False))
    rows, heads = max(WORKLOAD.prefill_chunk, WORKLOAD.slots), max(1, model(8).hidden_size // 64)
    assert held.activation_bytes - own.activation_bytes == 4 * rows * heads * (WORKLOAD.context + 1)


@given(st.integers(1, 40), st.lists(st.integers(30, 300), min_size=1, max_size=6))
def test_whatever_fits_is_covered_once_within_memory(layers: int, memory_mib: list[int]) -> None:
    for strategy in (Uniform(), Knapsack(), Optimal()):
        try:
            placements = place(strategy, model(layers), cluster(*memory_mib), WORKLOAD)
        except PlanError:
            continue
        assert [p.start for p in placements[1:]] == [p.stop for p in placements[:-1]]
        assert (placements[0].start, placements[-1].stop) == (0, layers)
        for placement in placements:
            assert placement.memory_bytes <= memory_mib[int(placement.worker[1:])] * MIB * 0.9


@pytest.mark.parametrize(
    "ranges",
    [
        [Range("a", 0, 2), Range("b", 3, 4)],
        [Range("a", 0, 3), Range("b", 2, 4)],
        [Range("a", 0, 3)],
        [Range("a", 0, 4), Range("b", 4, 4)],
    ],
)
def test_gaps_overlaps_and_empty_ranges_are_refused(ranges: Sequence[Range]) -> None:
    with pytest.raises(PlanError):
        check_cover(ranges, 4)
