from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest

from finesweep.errors import ExportError
from finesweep.events import (
    AttemptEnded,
    AttemptResult,
    Ending,
    Event,
    Source,
    TrialFinished,
    TrialState,
    TrialSuggested,
)
from finesweep.export.record import export_record
from finesweep.results.frames import Results

Events = Callable[..., list[Event]]


def test_a_record_resolves_the_incumbent(launch: Callable[..., Results], trial_events: Events) -> None:
    training = {"weight_decay": 0.01, "lr_scheduler_type": "cosine", "seed": 7}
    configuration = {"learning_rate": 3.2e-05, "batch_size": 16}
    facts = {"warmup_steps_asked": 1000, "warmup_steps": 40, "device_batch_size": 4, "accumulation": 4}
    best = trial_events(0, [0.9, 0.8], configuration=configuration, facts=facts)
    results = launch(best, trial_events(1, [0.2]), training=training)
    record = export_record(results, "tickets")
    assert (record.sweep, record.trial, record.value, record.value_step) == ("tickets", 0, 0.9, 100)
    assert record.metrics == {"accuracy": 0.9, "loss": 1.0}
    assert record.settings["learning_rate"] == 3.2e-05
    assert record.settings["weight_decay"] == 0.01
    assert record.settings["lr_scheduler_type"] == "cosine"
    assert record.settings["epochs"] == 3
    assert record.seed == 7
    assert record.facts == {"device": "cpu", **facts}
    assert record.model is not None
    assert {"name": "tiny", "dtype": "float32", "fingerprint": "sha256:m"}.items() <= record.model.items()
    assert record.data["train"] == "/data/train.jsonl"
    assert record.data["fingerprint"] == "sha256:d"
    assert record.provenance == results.provenance("tickets")
    assert record.provenance["versions"] == {"torch": "2.13"}
    assert record.grid == {"unit": "examples", "every": 100, "longest": 1000}
    assert (record.n_devices, record.verification) == (1, None)


def test_the_command_repeats_just_this_trial(launch: Callable[..., Results], trial_events: Events) -> None:
    study = {
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "parameters": {
            "method": {"type": "categorical", "choices": ["full", "feature-extraction"]},
            "batch_size": {"type": "categorical", "choices": [8, 16]},
            "warmup_steps": {"value": "2 * batch_size"},
            "weight_decay": {"by": "method", "full": {"value": 0.1}},
        },
    }
    configuration = {"method": "full", "batch_size": 8, "warmup_steps": 16, "weight_decay": 0.1}
    record = export_record(launch(trial_events(0, configuration=configuration), study=study), "tickets")
    assert record.command is not None
    words = shlex.split(record.command)
    assert words[:5] == ["finesweep", "run", "my sweeps/tickets.yaml", "--name", "tickets-0"]
    settings = dict(word.split("=", 1) for word in words[6::2])
    assert json.loads(settings.pop("start_with")) == [{"method": "full", "batch_size": 8}]
    assert settings == {"try_defaults": "false", "budget.trials": "1"}


def test_without_a_file_there_is_no_command(launch: Callable[..., Results], trial_events: Events) -> None:
    configuration = {"learning_rate": 3.2e-05}
    assert export_record(launch(trial_events(0, configuration=configuration), provenance={}), "tickets").command is None


def test_a_reused_result_has_the_facts_of_the_trial_that_was_trained(
    launch: Callable[..., Results], trial_events: Events
) -> None:
    configuration = {"learning_rate": 3.2e-05}
    first = trial_events(0, [0.5, 0.6], configuration=configuration)
    first[-2] = AttemptEnded(0, 1, AttemptResult(Ending.DONE, artifacts={"model": "0/1/model"}))
    twin = [
        TrialSuggested(1, configuration, configuration, {}, Source.SAMPLER, {}, {}, twin_of=0),
        TrialFinished(1, TrialState.COMPLETE, None, 0.6, 200, reused_from=0),
    ]
    record = export_record(launch(first, twin), "tickets", 1)
    assert (record.trial, record.metrics["accuracy"], record.examples_seen) == (1, 0.6, 204)
    assert record.facts == {"device": "cpu"}
    assert record.artifacts == {"model": "0/1/model"}


def test_only_complete_trials_are_exported(launch: Callable[..., Results], trial_events: Events) -> None:
    results = launch(trial_events(0, state=TrialState.PRUNED, reason="rung"), trial_events(1, state=None))
    with pytest.raises(ExportError, match="'tickets' has no COMPLETE trial to export yet"):
        export_record(results, "tickets")
    with pytest.raises(ExportError, match=r"trial tickets:0 is PRUNED \(rung\); only a COMPLETE trial"):
        export_record(results, "tickets", 0)
    with pytest.raises(ExportError, match=r"trial tickets:1 is INTERRUPTED; only"):
        export_record(results, "tickets", 1)


def test_of_several_objectives_a_trial_must_be_named_unless_one_beats_all(
    launch: Callable[..., Results], trial_events: Events
) -> None:
    rate = {"learning_rate": 3.2e-05}
    trials = {0: (0.9, 2000.0), 1: (0.5, 1.0), 2: (0.4, 3000.0)}
    batches = [trial_events(n, [v], others={"size": (size,)}, configuration=rate) for n, (v, size) in trials.items()]
    results = launch(*batches, others={"size": "minimize"})
    with pytest.raises(ExportError) as raised:
        export_record(results, "tickets")
    assert str(raised.value).splitlines() == [
        "sweep 'tickets' has several objectives, and no trial is the best in all of them. "
        "Name one of those that no other beats, as in tickets:0:",
        "  tickets:0  accuracy 0.9, size 2,000",
        "  tickets:1  accuracy 0.5, size 1",
    ]
    record = export_record(results, "tickets", 1)
    assert (record.value, record.metrics["size"]) == (0.5, 1.0)
    assert [objective["metric"] for objective in record.objective] == ["accuracy", "size"]


def test_a_trial_that_beats_all_others_needs_no_number(launch: Callable[..., Results], trial_events: Events) -> None:
    rate = {"learning_rate": 3.2e-05}
    results = launch(
        trial_events(0, [0.4], others={"size": (9.0,)}, configuration=rate),
        trial_events(1, [0.5], others={"size": (1.0,)}, configuration=rate),
        others={"size": "minimize"},
    )
    assert export_record(results, "tickets").trial == 1
