"""One objective or several: how they are read and written, and what may stand together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finesweep.spec.study import StudySpec
from finesweep.spec.sweep import read_sweep

if TYPE_CHECKING:
    from conftest import Files

F1 = {"metric": "macro_f1", "direction": "maximize", "value": "best"}
LOSS = {"metric": "loss", "direction": "minimize", "value": "best"}
PARAMETERS = {"epochs": {"type": "int", "low": 1, "high": 3}}
COST = "{metric: trainable_parameters, direction: minimize}"
TIME = "{metric: train_seconds, direction: minimize}"
TWO = f"study.objective=[{{metric: macro_f1, direction: maximize}}, {COST}]"
TIMED = f"study.objective=[{{metric: macro_f1, direction: maximize}}, {TIME}]"
UNPRUNED = "study.pruner={type: none, compare_at: progress}"


@pytest.mark.parametrize("objective", [F1, [F1, LOSS]])
def test_objectives_are_stored_as_they_were_given(objective: Any) -> None:
    study = StudySpec.model_validate({"objective": objective, "parameters": PARAMETERS})
    stored = study.model_dump(mode="json")
    assert stored["objective"] == objective
    assert StudySpec.model_validate(stored) == study
    assert study.objective.metric == "macro_f1"
    assert [one.metric for one in study.objectives] == ["macro_f1", "loss"][: len(study.objectives)]


def test_a_list_of_one_is_one_objective() -> None:
    study = StudySpec.model_validate({"objective": [F1], "parameters": PARAMETERS})
    assert study.model_dump(mode="json")["objective"] == F1


def test_several_objectives_pass_and_come_back_with_the_sweep(files: Files) -> None:
    spec = files.load(TWO, UNPRUNED)
    assert [one.metric for one in spec.study.objectives] == ["macro_f1", "trainable_parameters"]
    assert read_sweep(spec.model_dump(mode="json")) == spec
    assert files.notes(TWO, UNPRUNED) == []


def test_one_of_several_objectives_can_be_set(files: Files) -> None:
    files.edit(
        "study",
        "objective: {metric: macro_f1, direction: maximize}",
        "objective:\n  - {metric: macro_f1, direction: maximize}\n  - {metric: loss, direction: minimize}",
    )
    assert files.load("study.objective.1.metric=model_mib").study.objectives[1].metric == "model_mib"
    files.edit("study", "{metric: loss", "{metric: los")
    assert files.faults()[0].startswith("studies/study.yaml:3: study.objective.1.metric: ")


def test_a_sampler_of_one_objective_is_refused(files: Files) -> None:
    assert files.faults(TWO, "study.sampler.type=cmaes") == [
        "--set: study.sampler.type: sampler cmaes knows one objective only. Use tpe, gp, nsga2, or give one objective."
    ]


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        ("{gpus_per_trial: 1}", None),
        ("{devices: [0, 1]}", None),
        ("{devices: cpu, max_parallel: 1}", None),
        ("{gpus_per_trial: 0.5}", "several share a device. Set resources.gpus_per_trial to 1, or use"),
        ("{devices: cpu}", "several share the CPU. Set resources.max_parallel to 1, or use"),
        ("{devices: cpu, max_parallel: 2}", "several share the CPU."),
        ("{address: auto}", "the machines of a cluster differ. Leave out resources.address, or use"),
    ],
)
def test_time_counts_only_where_trials_do_not_slow_each_other_down(
    files: Files, resources: str, problem: str | None
) -> None:
    faults = files.faults(TIMED, f"resources={resources}")
    if problem is None:
        assert faults == []
        return
    (fault,) = faults
    assert fault.startswith("--set: study.objective.1.metric: train_seconds cannot be compared between these trials: ")
    assert problem in fault
    assert files.faults(TWO, f"resources={resources}") == []


def test_notes_on_several_objectives(files: Files) -> None:
    (pruned,) = files.notes(TWO)
    assert pruned.startswith("studies/study.yaml:3: study.pruner: trials are pruned by macro_f1 alone, also those that")
    (better,) = files.notes(TWO.replace("minimize", "maximize"), UNPRUNED)
    assert "study.objective.1.direction: trainable_parameters is better the other way" in better
    notes = files.notes(TWO, "study.sampler.type=gp")
    assert [note for note in notes if note.endswith("sampler gp learns nothing from pruned trials; tpe does.")]


def test_a_metric_of_ones_own_may_not_be_called_like_a_cost(files: Files) -> None:
    (fault,) = files.faults("evaluation={metrics: {model_mib: statistics:mean}}")
    assert "evaluation.metrics.model_mib: model_mib is a metric that there is already." in fault


def test_a_cost_that_nothing_changes_is_noted(files: Files) -> None:
    one_method = "study.parameters={weight_decay: {type: float, low: 0, high: 0.1}}"
    notes = files.notes(TWO, UNPRUNED, one_method, "start_with=[]", "study.sampler.startup_trials=5")
    assert notes == [
        "--set: study.objective.1: trainable_parameters is the same for all trials: the study searches none of"
        " lora_rank, lora_target_modules, method, unfrozen_layers."
    ]
    assert files.notes(TWO, UNPRUNED) == []  # method is searched
