"""What servers answer, in all the ways in which they do."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from tests.unit.remote.conftest import Fake, event

from finesweep.remote.answers import metrics_of, read_job
from finesweep.remote.calls import NotOfProtocolError


def answered(**fields: Any) -> Any:
    """Give a job as the client makes it of what came: unchecked."""
    return construct_type(type_=FineTuningJob, value=Fake().add_job(**fields))


def told(*data: Any) -> list[Any]:
    return [construct_type(type_=FineTuningJobEvent, value=event(str(n), 1, one)) for n, one in enumerate(data)]


@pytest.mark.parametrize("answer", ["<html>", None, [], {"id": "j"}])
def test_what_is_no_job_is_none(answer: Any) -> None:
    with pytest.raises(NotOfProtocolError):
        read_job(answer)


def test_a_job_without_an_id_is_none() -> None:
    with pytest.raises(NotOfProtocolError):
        read_job(construct_type(type_=FineTuningJob, value={"error": "unexpected"}))


def test_a_job_of_which_nearly_nothing_is_told() -> None:
    job = read_job(construct_type(type_=FineTuningJob, value={"id": "j", "status": "queued"}))
    assert (job.id, job.outcome, dict(job.metadata), job.made) == ("j", None, {}, {})
    assert (job.trained_tokens, job.fine_tuned_model) == (None, None)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("validating_files", None),
        ("queued", None),
        ("running", None),
        ("paused", None),
        ("cancelling", None),
        ("something_new", None),
        ("succeeded", "succeeded"),
        ("completed", "succeeded"),
        ("failed", "failed"),
        ("error", "failed"),
        ("cancelled", "cancelled"),
        ("canceled", "cancelled"),
        ("Canceled", "cancelled"),
    ],
)
def test_words_for_how_a_job_stands(status: str, outcome: str | None) -> None:
    job = read_job(answered(status=status))
    assert (job.outcome, job.is_over, job.status) == (outcome, outcome is not None, status)
    assert job.may_count == (outcome in (None, "succeeded"))


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"finished_at": 1700000000, "fine_tuned_model": "ft:x"}, "succeeded"),
        ({"finished_at": 1700000000}, "failed"),
        ({"finished_at": 0}, None),
    ],
)
def test_a_word_that_nobody_knows_is_no_reason_to_wait_for_ever(fields: dict[str, Any], outcome: str | None) -> None:
    assert read_job(answered(status="retired", **fields)).outcome == outcome


def test_a_job_that_runs_is_not_over_whatever_end_is_foreseen() -> None:
    assert read_job(answered(status="running", finished_at=1700000000)).outcome is None


@pytest.mark.parametrize(("status", "is_waiting"), [("validating_files", True), ("queued", True), ("running", False)])
def test_who_has_not_begun_has_nothing_to_tell(status: str, is_waiting: bool) -> None:
    assert read_job(answered(status=status)).is_waiting == is_waiting


MADE = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 0.5}


@pytest.mark.parametrize(
    "fields",
    [
        {"hyperparameters": MADE},
        {"hyperparameters": MADE, "method": {"type": "supervised", "supervised": {"hyperparameters": MADE}}},
        {"hyperparameters": None, "method": {"type": "supervised", "supervised": {"hyperparameters": MADE}}},
        {
            "hyperparameters": dict.fromkeys(MADE, "auto"),
            "method": {"type": "supervised", "supervised": {"hyperparameters": MADE}},
        },
        {
            "hyperparameters": {"n_epochs": 3},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {**MADE, "n_epochs": "auto"}}},
        },
    ],
)
def test_hyperparameters_are_read_wherever_they_stand(fields: dict[str, Any]) -> None:
    assert read_job(answered(**fields)).made == MADE


@pytest.mark.parametrize(
    "fields",
    [
        {"hyperparameters": None},
        {"hyperparameters": None, "method": None},
        {"hyperparameters": None, "method": {"type": "supervised", "supervised": None}},
        {"hyperparameters": None, "method": {"type": "dpo", "dpo": {}}},
        {"hyperparameters": {"n_epochs": -1, "batch_size": None, "learning_rate_multiplier": "auto"}},  # as Azure's
        {"hyperparameters": {"n_epochs": 0, "learning_rate_multiplier": math.nan}},
        {"hyperparameters": "none"},
    ],
)
def test_what_is_not_settled_is_not_known(fields: dict[str, Any]) -> None:
    assert read_job(answered(**fields)).made == {}


@pytest.mark.parametrize(("value", "tokens"), [(None, None), (5, 5), (5.0, 5), (0, 0), (-1, None), ("many", None)])
def test_tokens(value: Any, tokens: int | None) -> None:
    assert read_job(answered(trained_tokens=value)).trained_tokens == tokens


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"code": "invalid_training_file", "message": "Line 3.", "param": None}, " (invalid_training_file): Line 3."),
        ({"code": None, "message": "Line 3."}, ": Line 3."),
        ({"code": None, "message": None, "param": None}, ": the server does not say why"),
        ({}, ": the server does not say why"),
        (None, ": the server does not say why"),
    ],
)
def test_why_a_job_failed(error: Any, said: str) -> None:
    assert read_job(answered(status="failed", error=error)).why_failed == said


@pytest.mark.parametrize("metadata", [None, {}, "none"])
def test_metadata_may_be_missing(metadata: Any) -> None:
    assert dict(read_job(answered(metadata=metadata)).metadata) == {}


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        "step 3",
        [3],
        {"train_loss": 1.0},
        {"step": None, "train_loss": 1.0},
        {"step": "3", "train_loss": 1.0},
        {"step": math.nan, "train_loss": 1.0},
        {"step": math.inf, "train_loss": 1.0},
        {"step": True, "train_loss": 1.0},
        {"step": -1, "train_loss": 1.0},
    ],
)
def test_events_without_a_step_tell_nothing(data: Any) -> None:
    assert metrics_of(told(data)) == []


def test_of_metrics_only_numbers_are_taken() -> None:
    [point] = metrics_of(told({"step": 3.0, "valid_loss": 1, "train_loss": None, "note": "x", "done": True, "lr": 0.5}))
    assert (point.step, dict(point.values)) == (3, {"valid_loss": 1.0, "lr": 0.5})


def test_a_loss_that_is_not_finite_is_told_as_it_is() -> None:
    """The trial has diverged, which others must hear."""
    [point] = metrics_of(told({"step": 3, "valid_loss": math.nan}))
    assert math.isnan(point.values["valid_loss"])


@pytest.mark.parametrize(("total", "n_steps"), [(10, 10), (10.0, 10), (2, None), (None, None), ("10", None), (0, None)])
def test_how_many_steps_a_job_has(total: Any, n_steps: int | None) -> None:
    [point] = metrics_of(told({"step": 3, "valid_loss": 1.0, "total_steps": total}))
    assert (point.n_steps, dict(point.values)) == (n_steps, {"valid_loss": 1.0})


_ODD = st.sampled_from([None, True, 0, 1, 2, 7, -1, 10**30, 0.5, math.nan, math.inf, -math.inf, "", "3", [], [1], {}])


@given(st.lists(st.dictionaries(st.sampled_from(["step", "total_steps", "valid_loss", "x"]), _ODD), max_size=6))
def test_whatever_events_hold_steps_rise(data: list[dict[str, Any]]) -> None:
    points = metrics_of(told(*data))
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))
    assert all(isinstance(value, float) for point in points for value in point.values.values())
