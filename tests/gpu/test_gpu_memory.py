"""A GPU's memory runs out: batches are split, results stay, what cannot fit fails alone.

How much a trial needs is measured first, so that the limits hold on any GPU.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tests.gpu.conftest import facts_by_trial, limit_memory, note
from tests.integration.conftest import Workplace
from tests.training.conftest import Bench, Recorder

from finesweep.events import Decision, Ending, TrialSpec
from finesweep.scheduling.backend import run_attempt

BATCH = 32
TRIAL = {"batch_size": BATCH, "epochs": 0.5}


def reserved_gib(bench: Bench, **trial: Any) -> tuple[float, Recorder]:
    """Run a trial and tell how much torch had to reserve for it."""
    reserved: list[int] = []

    def look(_: object) -> Decision:
        reserved.append(torch.cuda.max_memory_reserved())
        return Decision.CONTINUE

    torch.cuda.empty_cache()
    result, told = bench.run(Recorder(decide=look, on_poll=look), **trial)
    assert result.ending is Ending.DONE
    return max(reserved) / 2**30, told


def test_a_batch_that_does_not_fit_is_halved_until_it_does(bench: Callable[..., Bench]) -> None:
    rows = 4
    needed_gib, began_small = reserved_gib(bench(kind="decoder", device_batch_size=rows, folder="small"), **TRIAL)
    limit_memory(needed_gib * 1.05)
    result, told = bench(kind="decoder").run(number=1, **TRIAL)
    at_once, n_oom = told.facts["device_batch_size"], told.facts["n_oom"]
    note("halved", needed_gib=needed_gib, device_batch_size=at_once, n_oom=n_oom)
    assert result.ending is Ending.DONE
    assert at_once <= rows
    assert at_once * told.facts["accumulation"] == BATCH
    assert n_oom == (BATCH // at_once).bit_length() - 1
    assert told.steps == began_small.steps
    for one, other in zip(told.reports, began_small.reports, strict=True):
        for metric in ("loss", "train_loss"):
            assert one.metrics[metric] == pytest.approx(other.metrics[metric], rel=1e-3)

    _, later = bench(kind="decoder").run(number=2, **TRIAL)
    assert "n_oom" not in later.facts, "it begins with what has fitted"
    assert later.facts["device_batch_size"] == at_once


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_what_does_not_fit_at_all_fails_and_says_of_what(bench: Callable[..., Bench], share: float) -> None:
    """Of what the weights take in float32, and of what weights, gradients and moments take."""
    weights_gib = 4 * 222e6 / 2**30
    limit_memory(weights_gib * (share if share < 0.5 else 4 * share))
    trial = TrialSpec(1, 1, TRIAL)
    told = Recorder()
    result = run_attempt(bench(kind="decoder").trainer, trial, told, log=contextlib.nullcontext())
    assert result.ending is Ending.FAILED
    expected = "the model alone does not fit the device" if share < 0.5 else "a single row of up to 128 tokens"
    assert result.reason is not None
    assert result.reason.startswith(f"out of memory: {expected}")

    torch.cuda.set_per_process_memory_fraction(1.0)
    after, _ = bench(kind="encoder").run(number=2, epochs=0.5)
    assert after.ending is Ending.DONE
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() < 2**28, "nothing of the failed trial is held"


def test_an_evaluation_that_does_not_fit_is_split(bench: Callable[..., Bench]) -> None:
    """Evaluation takes many more rows at once than this training, and so more memory."""
    trial = {"batch_size": 1, "learning_rate": 1e-5}
    data = {"max_train_rows": 64}
    _, whole = bench(data=data, folder="whole").run(**trial)
    needed_gib = whole.facts["peak_memory_gib"]
    limit_memory(needed_gib * 0.9)
    result, told = bench(data=data).run(number=1, **trial)
    at_once = told.facts["eval_batch_size"]
    note("evaluation", needed_gib=needed_gib, rows=at_once, before=whole.facts["eval_batch_size"])
    assert result.ending is Ending.DONE
    assert 1 <= at_once < whole.facts["eval_batch_size"]
    assert "n_oom" not in told.facts, "training itself fits"
    for one, other in zip(told.reports, whole.reports, strict=True):
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-4)


def test_a_trial_that_wants_more_than_its_share_takes_no_neighbour_with_it(
    workplace: Callable[..., Workplace],
) -> None:
    """Adapters fit into a share of about 3 GiB, all weights with their gradients and moments do not."""
    total_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    place = workplace(**METHODS, resources={"gpus_per_trial": 1 / round(total_gib / 3), "max_parallel": 2})
    place.run("run", "sweep.yaml")
    survivor = _check_neighbours(place)
    assert "n_oom" not in survivor, "it has its share to itself"
    assert survivor["device_batch_size"] == 4


def test_a_smoke_test_tells_what_a_share_holds(workplace: Callable[..., Workplace]) -> None:
    total_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    place = workplace(
        kind="decoder", training={"batch_size": 64}, resources={"gpus_per_trial": 1 / round(total_gib / 5)}
    )
    said = place.say("check", "sweep.yaml", "--smoke").stderr
    found = re.search(r"one step on (.+): full, batch size 64 \((\d+) at a time\)", said)
    assert found, said
    memory = re.search(r"memory: ([0-9.]+) GiB", said)
    assert memory, said
    note("smoke", device=found[1], rows=int(found[2]), memory_gib=float(memory[1]))
    assert found[1] == torch.cuda.get_device_name(0)
    assert int(found[2]) < 64
    assert float(memory[1]) < 5


METHODS: Mapping[str, Any] = {
    "kind": "decoder",
    "study": {"parameters": {"method": {"type": "categorical", "choices": ["lora", "full"]}}},
    "start_with": [{"method": "lora"}, {"method": "full"}],
    "budget": {"trials": 2},
    "data": {"max_train_rows": 256, "max_validation_rows": 64},
    "training": {"epochs": 6, "batch_size": 8, "device_batch_size": 4, "eval_every": 512, "learning_rate": 1e-5},
}


def _check_neighbours(place: Workplace) -> Mapping[str, Any]:
    """Hold the two trials to their ends; give the facts of the one that lives."""
    trials = place.results.trials("gpu").set_index("method")
    facts = facts_by_trial(place, "gpu")
    told = ("device_batch_size", "accumulation", "n_oom", "peak_memory_gib", "eval_batch_size")
    note(
        "neighbours",
        ends=list(trials["reason"].astype(str)),
        facts=[{n: f.get(n) for n in told} for f in facts.values()],
    )
    assert dict(trials["state"]) == {"lora": "COMPLETE", "full": "FAILED"}
    assert trials.loc["full", "reason"].startswith("out of memory: ")
    assert facts[0]["pid"] != facts[1]["pid"]
    return facts[int(trials.loc["lora", "number"])]
