"""A trial that is a job: begun, followed, left, given up; on servers of all kinds. Time is what is slept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.unit.remote.conftest import KEY, UID, Fake, Recorder, Time, refusal

from finesweep.errors import RemoteError
from finesweep.events import AttemptResult, Decision, Ending, Grid, TrialSpec
from finesweep.layout import own_dir, remote_dir
from finesweep.remote import server
from finesweep.remote.ledger import SPENT, Ledger, Spent, ledger_key
from finesweep.remote.rows import prepare_rows
from finesweep.remote.tidy import tidy
from finesweep.remote.trainer import RemoteTrainer
from finesweep.spec.sweep import RemoteSweep

TRIAL = TrialSpec(0, 1, {"learning_rate_multiplier": 1.5})
GRID = Grid("examples", 4, 24)
EPOCHS = {"n_epochs": {"type": "int", "low": 1, "high": 2}}
OBJECTIVE = {"metric": "valid_loss", "direction": "minimize"}


class Life:
    """What becomes of a job, look by look: each entry changes the job or tells of a step."""

    def __init__(self, fake: Fake, *looks: Any) -> None:
        self._fake, self._looks = fake, list(looks)

    def __call__(self, job: dict[str, Any]) -> None:
        if job["status"] in ("failed", "cancelled"):
            return
        look = self._looks.pop(0) if self._looks else {}
        steps = look if isinstance(look, list) else look.get("steps", [])
        for step, values in steps:
            self._fake.tell(job["id"], step, **values)
        if isinstance(look, dict):
            job |= {key: value for key, value in look.items() if key != "steps"}


def step(number: int, loss: float, *, of: int | None = 6) -> tuple[int, dict[str, float]]:
    return number, {"valid_loss": loss, **({} if of is None else {"total_steps": of})}


DONE = {"status": "succeeded", "fine_tuned_model": "ft:1", "trained_tokens": 120}


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "artifacts" / "numbers"


@pytest.fixture
def make_trainer(
    make_sweep: Callable[..., RemoteSweep],
    artifacts: Path,
    tmp_path: Path,
    time: Time,
    client: openai.OpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., RemoteTrainer]:
    """Return a function that makes a worker's trainer; keywords are sections of the sweep, and `grid`."""
    monkeypatch.setattr(server, "connect", lambda remote: client)

    def make(*, grid: Grid = GRID, **sections: Any) -> RemoteTrainer:
        spec = make_sweep(**sections)
        files = prepare_rows(spec, cache_dir=tmp_path / "cache")
        return RemoteTrainer(spec, grid, files, artifact_dir=artifacts, uid=UID, sleep=time.sleep)

    return make


@pytest.fixture
def run(fake: Fake, make_trainer: Callable[..., RemoteTrainer]) -> Callable[..., tuple[AttemptResult, Recorder]]:
    """Return a function that trains a trial whose job lives through some looks."""

    def run(
        *looks: Any, told: Recorder | None = None, trial: TrialSpec = TRIAL, **options: Any
    ) -> tuple[AttemptResult, Recorder]:
        told = told or Recorder()
        fake.on_poll = Life(fake, *looks)
        return make_trainer(**options).run(trial, told), told

    return run


Run = Callable[..., tuple[AttemptResult, Recorder]]


def curve(told: Recorder) -> list[tuple[int, float]]:
    return [(report.examples_seen, report.metrics["valid_loss"]) for report in told.reports]


# --- from the beginning to the end --------------------------------------------------------------------------------


def test_a_trial_from_its_job_to_its_model(fake: Fake, run: Run, artifacts: Path) -> None:
    assert fake.checkpoints is not None
    fake.checkpoints["ftjob-0"] = [
        {"id": "c1", "fine_tuned_model_checkpoint": "ft:1:early", "metrics": {"valid_loss": 1.0}},
        {"id": "c2", "fine_tuned_model_checkpoint": "ft:1", "metrics": {"valid_loss": 1.5}},
    ]
    looks = [
        {"status": "queued"},
        {"status": "running"},
        [step(2, 2.0), step(3, 1.0)],
        {**DONE, "steps": [step(6, 1.5)]},
    ]
    result, told = run(*looks, remote={"price_per_million": 2.0})
    assert (result.ending, result.artifacts) == (Ending.DONE, {"folder": "trial-0000/folder"})
    assert curve(told) == [(8, 2.0), (12, 1.0), (24, 1.5)]
    assert [report.final for report in told.reports] == [False, False, True]
    assert told.facts["hyperparameters"] == {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.5}
    assert told.facts["last_step"] == 24
    expected = {"job": "ftjob-0", "fine_tuned_model": "ft:1", "best_checkpoint": "ft:1:early", "trained_tokens": 120}
    assert expected.items() <= told.facts.items()
    assert told.facts["cost"] == pytest.approx(240e-6)
    kept = json.loads((own_dir(artifacts, 0) / "model.json").read_text())
    assert (kept["best_checkpoint"], len(kept["checkpoints"])) == ("ft:1:early", 2)
    assert Ledger(remote_dir(artifacts)).spent() == Spent(settled=120, reserved=0)
    assert KEY not in str(told.facts)


def test_of_the_last_value_the_tuned_model_is_the_best(fake: Fake, run: Run) -> None:
    assert fake.checkpoints is not None
    fake.checkpoints["ftjob-0"] = [
        {"id": "c1", "fine_tuned_model_checkpoint": "ft:1:early", "metrics": {"valid_loss": 1.0}}
    ]
    study = {
        "objective": {**OBJECTIVE, "value": "last"},
        "parameters": EPOCHS,
    }
    _, told = run({**DONE, "steps": [step(6, 1.5)]}, study=study, training={"batch_size": 4})
    assert told.facts["best_checkpoint"] == "ft:1"


@pytest.mark.parametrize("checkpoints", [None, {}, {"ftjob-0": [{"id": "c"}, {"id": "d", "metrics": None}]}])
def test_without_checkpoints_it_is_too(fake: Fake, run: Run, checkpoints: Any) -> None:
    fake.checkpoints = checkpoints
    result, told = run({**DONE, "steps": [step(6, 1.5)]})
    assert result.ending is Ending.DONE
    assert told.facts["best_checkpoint"] == "ft:1"


def test_events_are_not_asked_for_before_there_can_be_any(fake: Fake, run: Run) -> None:
    run(*[{"status": "validating_files"}] * 3, {"status": "queued"}, {**DONE, "steps": [step(6, 1.0)]})
    assert fake.count("GET", "/fine_tuning/jobs/ftjob-0/events") == 2  # of what was begun as running, and at the end


def test_what_the_server_chose_is_known_once_it_runs(fake: Fake, run: Run, artifacts: Path) -> None:
    auto = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    settled = {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 1.5}
    looks = [
        {"hyperparameters": auto, "status": "running", "steps": [(3, {"valid_loss": 3.0})]},
        {"hyperparameters": settled},
        {**DONE, "steps": [(18, {"valid_loss": 1.0})]},
    ]
    _, told = run(*looks, training={})
    assert curve(told) == [(6, 3.0), (36, 1.0)]
    assert told.facts["hyperparameters"] == settled
    assert told.facts["last_step"] == 36


def test_epochs_that_the_server_chose_are_reserved_instead_of_ten(
    fake: Fake, run: Run, artifacts: Path, make_trainer: Callable[..., RemoteTrainer]
) -> None:
    reserved: list[int] = []

    class Looking(Recorder):
        def poll(self) -> Decision:
            reserved.append(Ledger(remote_dir(artifacts)).spent().reserved)
            return Decision.CONTINUE

    looks = [{"hyperparameters": {"n_epochs": 2, "batch_size": 4}}, {}, {**DONE, "steps": [step(6, 1.0)]}]
    run(*looks, told=Looking(), training={})
    n_bytes = make_trainer()._files.train.n_bytes
    assert {10 * n_bytes, 2 * n_bytes} <= set(reserved)


HYPERPARAMETERS = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.5}


@pytest.mark.parametrize(
    "shown",
    [
        {"hyperparameters": None, "method": {"type": "supervised", "supervised": {"hyperparameters": HYPERPARAMETERS}}},
        {"hyperparameters": None, "method": None},
        {"hyperparameters": {}},
        {"hyperparameters": dict.fromkeys(HYPERPARAMETERS, "auto")},
    ],
)
def test_servers_that_tell_hyperparameters_elsewhere_or_not_at_all(run: Run, shown: dict[str, Any]) -> None:
    result, told = run({**shown, "steps": [step(3, 2.0)]}, {**DONE, "steps": [step(6, 1.0)]})
    assert result.ending is Ending.DONE
    assert curve(told) == [(12, 2.0), (24, 1.0)]


def test_where_nobody_knows_how_long_a_job_is_its_end_tells(run: Run) -> None:
    unknown = {"hyperparameters": {"batch_size": 4}}
    looks = [{**unknown, "steps": [(3, {"valid_loss": 2.0})]}, {**DONE, "steps": [(9, {"valid_loss": 1.0})]}]
    result, told = run(*looks, training={})
    assert result.ending is Ending.DONE
    assert curve(told) == [(12, 2.0), (36, 1.0)]


def test_where_nothing_is_known_the_way_out_is_told(run: Run) -> None:
    result, _ = run({"hyperparameters": {}}, {**DONE, "steps": [(9, {"valid_loss": 1.0})]}, training={})
    assert result.ending is Ending.FAILED
    assert result.reason is not None
    assert "set training.n_epochs and training.batch_size" in result.reason


def test_no_report_is_taken_for_the_end_before_it(run: Run) -> None:
    """Of 12 rows a batch of 5 makes 3 steps an epoch: 5 examples a step would be beyond the end at step 5."""
    training = {"batch_size": 5, "n_epochs": 2}
    steps = [(number, {"valid_loss": 9.0 - number}) for number in range(1, 7)]
    _, told = run(
        {"hyperparameters": {"n_epochs": 2, "batch_size": 5}, "steps": steps[:5]},
        {**DONE, "steps": steps[5:]},
        training=training,
    )
    assert [report.final for report in told.reports] == [False] * 5 + [True]
    assert [report.examples_seen for report in told.reports] == [4, 8, 12, 16, 20, 24]


# --- events that are late, or not what they should be ---------------------------------------------------------------


def test_events_that_come_after_the_end_are_waited_for(run: Run) -> None:
    result, told = run([step(3, 2.0)], DONE, {}, {"steps": [step(6, 1.0)]})
    assert result.ending is Ending.DONE
    assert curve(told) == [(12, 2.0), (24, 1.0)]
    assert told.reports[-1].final


def test_not_for_ever(run: Run, time: Time) -> None:
    result, told = run([step(3, 2.0)], DONE)
    assert result.ending is Ending.DONE
    assert curve(told) == [(12, 2.0)]
    assert time.now_s < 60


def test_where_the_server_does_not_count_steps_nothing_is_waited_for(fake: Fake, run: Run) -> None:
    run({**DONE, "steps": [step(6, 1.0, of=None)]})
    assert fake.count("GET", "/fine_tuning/jobs/ftjob-0/events") == 2


def test_a_metric_that_is_told_later_of_a_step_is_waited_for(run: Run) -> None:
    study = {"objective": {"metric": "loss", "direction": "minimize"}, "parameters": EPOCHS}
    looks = [
        [(3, {"train_loss": 4.0, "total_steps": 6})],
        [(3, {"full_valid_loss": 2.0}), (4, {"train_loss": 3.0})],
        {**DONE, "steps": [(6, {"full_valid_loss": 1.0, "total_steps": 6})]},
    ]
    _, told = run(*looks, study=study, trial=TrialSpec(0, 1, {"n_epochs": 2}), training={"batch_size": 4})
    assert [(report.examples_seen, report.metrics["loss"]) for report in told.reports] == [(12, 2.0), (24, 1.0)]
    assert [report.metrics["train_loss"] for report in told.reports] == [4.0, 3.0]


def test_of_several_objectives_reports_hold_all(run: Run) -> None:
    study = {
        "objective": [OBJECTIVE, {"metric": "train_loss", "direction": "minimize"}],
        "sampler": {"type": "nsga2"},
        "parameters": EPOCHS,
    }
    looks = [
        [(2, {"valid_loss": 2.0, "total_steps": 6})],
        {**DONE, "steps": [(3, {"train_loss": 4.0}), (6, {"train_loss": 3.0, "valid_loss": 1.0, "total_steps": 6})]},
    ]
    _, told = run(*looks, study=study, trial=TrialSpec(0, 1, {"n_epochs": 2}), training={"batch_size": 4})
    assert [(report.examples_seen, *report.metrics.values()) for report in told.reports] == [(24, 3.0, 1.0)]


def test_a_job_that_tells_nothing_fails_its_trial(run: Run) -> None:
    result, _ = run({**DONE, "steps": [(6, {"train_loss": 1.0})]})
    assert (result.ending, result.reason) == (Ending.FAILED, "job ftjob-0 has told no valid_loss")


def test_a_job_that_diverges_is_told_as_such(fake: Fake, run: Run) -> None:
    told = Recorder(lambda n: Decision.STOP)
    result, _ = run(
        [step(1, 2.0)], [(2, {"valid_loss": "NaN"})], [step(3, 1e30)], told=told, grid=Grid("examples", 12, 24)
    )
    assert result.ending is Ending.STOPPED
    assert curve(told) == [(12, 1e30)]  # a text is no number


# --- jobs that fail, and servers that do ------------------------------------------------------------------------------


def test_a_failed_job_fails_with_the_servers_words(run: Run) -> None:
    error = {"code": "invalid_training_file", "message": "Line 3 is odd.", "param": "training_file"}
    result, _ = run({"status": "failed", "error": error})
    assert result.ending is Ending.FAILED
    assert result.reason == "job ftjob-0 failed (invalid_training_file): Line 3 is odd."


def test_a_job_that_failed_before_its_first_step_took_nothing(fake: Fake, run: Run, artifacts: Path) -> None:
    refused = {"status": "failed", "error": {"code": "invalid_training_file", "message": "no", "param": None}}
    assert run(refused)[0].ending is Ending.FAILED
    assert Ledger(remote_dir(artifacts)).spent() == Spent(0, 0)


def test_a_job_that_somebody_else_cancelled_fails(run: Run) -> None:
    result, _ = run({"status": "canceled"})
    assert (result.ending, "by somebody else" in str(result.reason)) == (Ending.FAILED, True)


def test_hyperparameters_that_are_ignored_pause_the_sweep(fake: Fake, run: Run, artifacts: Path) -> None:
    ignored = {"hyperparameters": {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1}}
    result, _ = run({**ignored, "steps": [step(3, 2.0)]})
    assert result.ending is Ending.BLOCKED
    assert result.reason is not None
    assert "is trained with n_epochs 3, batch_size 8, learning_rate_multiplier 1" in result.reason
    assert "set remote.hyperparameters to the other one" in result.reason
    assert fake.jobs[0]["status"] == "cancelled"
    assert not Ledger(remote_dir(artifacts)).has_open()


def test_a_job_that_cannot_be_looked_at_yet_is_waited_for(fake: Fake, run: Run) -> None:
    """Begun at one of a server's machines, not known yet at another."""
    gone = refusal(404, "Could not find fine tune: ftjob-0")
    fake.answers = {"GET /fine_tuning/jobs/ftjob-0": [gone, gone], "GET /fine_tuning/jobs/ftjob-0/events": [gone]}
    result, told = run({**DONE, "steps": [step(6, 1.0)]})
    assert result.ending is Ending.DONE
    assert curve(told) == [(24, 1.0)]


def test_a_job_that_is_gone_fails_its_trial(fake: Fake, run: Run, artifacts: Path) -> None:
    fake.answers = {"GET /fine_tuning/jobs/ftjob-0": [refusal(404, "Could not find fine tune: ftjob-0")] * 9}
    with pytest.raises(RemoteError, match="404"):
        run()
    assert fake.jobs[0]["status"] == "cancelled"
    assert not Ledger(remote_dir(artifacts)).has_open()


def test_what_goes_wrong_here_leaves_no_job_behind(fake: Fake, run: Run, artifacts: Path) -> None:
    class Broken(Recorder):
        def report(self, report: Any) -> Decision:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run([step(3, 2.0)], told=Broken())
    assert fake.jobs[0]["status"] == "cancelled"
    assert not Ledger(remote_dir(artifacts)).has_open()


@pytest.mark.parametrize(
    "answer",
    [refusal(401, "no"), refusal(402, "pay"), refusal(403, "no"), refusal(429, "pay", "insufficient_quota")],
)
def test_what_other_trials_would_meet_too_pauses_the_sweep_and_leaves_the_job(
    fake: Fake, run: Run, artifacts: Path, answer: Any
) -> None:
    fake.answers = {"GET /fine_tuning/jobs/ftjob-0": [answer]}
    result, _ = run()
    assert result.ending is Ending.BLOCKED
    assert str(answer.status_code) in str(result.reason)
    assert fake.jobs[0]["status"] == "running"
    assert Ledger(remote_dir(artifacts)).open_keys() == {"ftjob-0"}


def test_a_refused_job_is_given_back_to_the_budget(fake: Fake, run: Run, artifacts: Path) -> None:
    fake.answers = {"POST /fine_tuning/jobs": [refusal(400, "batch_size too large")]}
    with pytest.raises(RemoteError, match="batch_size too large"):
        run()
    assert Ledger(remote_dir(artifacts)).spent() == Spent(0, 0)


def test_a_server_that_is_away_leaves_what_is_set_aside(fake: Fake, run: Run, artifacts: Path) -> None:
    fake.answers = {"POST /fine_tuning/jobs": [refusal(503, "busy")] * 9}
    result, _ = run(remote={"patience_minutes": 0.01})
    assert result.ending is Ending.BLOCKED
    assert Ledger(remote_dir(artifacts)).open_keys() == {ledger_key(0)}  # perhaps the job was begun


def test_a_trial_that_resumes_after_that_finds_its_job(fake: Fake, run: Run, artifacts: Path) -> None:
    fake.lost = {2}
    fake.answers = {"GET /fine_tuning/jobs": [None, *[refusal(503, "busy")] * 9]}
    assert run(remote={"patience_minutes": 0.01})[0].ending is Ending.BLOCKED
    fake.answers = {}
    result, _ = run({**DONE, "steps": [step(6, 1.0)]})
    assert result.ending is Ending.DONE
    assert len(fake.jobs) == 1
    assert Ledger(remote_dir(artifacts)).spent() == Spent(120, 0)


# --- leaving ----------------------------------------------------------------------------------------------------------


def test_after_stop_the_job_is_cancelled_and_what_it_took_looked_for(fake: Fake, run: Run, artifacts: Path) -> None:
    def count(job: dict[str, Any]) -> None:
        if job["status"] == "cancelled":
            job["trained_tokens"] = 55

    class Stopping(Recorder):
        def report(self, report: Any) -> Decision:
            fake.on_poll = count
            return Decision.STOP

    result, _ = run([step(3, 2.0)], told=Stopping())
    assert result.ending is Ending.STOPPED
    assert fake.jobs[0]["status"] == "cancelled"
    assert Ledger(remote_dir(artifacts)).spent() == Spent(55, 0)


def test_a_server_that_never_counts_has_taken_all(
    fake: Fake, run: Run, time: Time, artifacts: Path, make_trainer: Callable[..., RemoteTrainer]
) -> None:
    result, _ = run([step(3, 2.0)], told=Recorder(lambda n: Decision.STOP))
    assert result.ending is Ending.STOPPED
    assert Ledger(remote_dir(artifacts)).spent() == Spent(2 * make_trainer()._files.train.n_bytes, 0)
    assert time.now_s < 30


def test_tokens_that_are_never_told_are_no_zero(run: Run) -> None:
    _, told = run({**DONE, "trained_tokens": None, "steps": [step(6, 1.0)]}, remote={"price_per_million": 2.0})
    assert not {"trained_tokens", "cost"} & told.facts.keys()


def test_a_stopped_trial_stays_so_where_its_job_cannot_be_cancelled(
    fake: Fake, run: Run, artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stopping(Recorder):
        def report(self, report: Any) -> Decision:
            fake.answers = {"POST /fine_tuning/jobs/ftjob-0/cancel": [refusal(405, "no cancelling here")]}
            return Decision.STOP

    result, _ = run([step(3, 2.0)], told=Stopping())
    assert result.ending is Ending.STOPPED
    assert "its job goes on" in caplog.text
    assert Ledger(remote_dir(artifacts)).has_open()


def test_between_reports_it_returns_at_once(fake: Fake, run: Run, time: Time) -> None:
    class Impatient(Recorder):
        def poll(self) -> Decision:
            return Decision.PAUSE if time.now_s > 3 else Decision.CONTINUE

    result, _ = run(told=Impatient(), remote={"poll_s": 3600})
    assert result.ending is Ending.PAUSED
    assert time.now_s < 5
    assert fake.jobs[0]["status"] == "running"


def test_a_trial_that_goes_on_reports_its_curve_again_and_begins_nothing(fake: Fake, run: Run) -> None:
    paused, _ = run([step(3, 2.0)], told=Recorder(lambda n: Decision.PAUSE))
    assert paused.ending is Ending.PAUSED
    result, told = run({**DONE, "steps": [step(6, 1.0)]}, trial=TrialSpec(0, 2, TRIAL.configuration))
    assert result.ending is Ending.DONE
    assert curve(told) == [(12, 2.0), (24, 1.0)]
    assert len(fake.jobs) == 1
    assert fake.count("POST", "/files") == 1


def test_a_stop_at_the_last_report_is_too_late(fake: Fake, run: Run) -> None:
    result, _ = run({**DONE, "steps": [step(6, 1.0)]}, told=Recorder(lambda n: Decision.STOP))
    assert result.ending is Ending.DONE


def test_on_a_server_without_metadata_a_job_is_found_by_the_note_of_it(fake: Fake, run: Run) -> None:
    fake.keeps_metadata = False
    assert run([step(3, 2.0)], told=Recorder(lambda n: Decision.PAUSE))[0].ending is Ending.PAUSED
    result, _ = run({**DONE, "steps": [step(6, 1.0)]})
    assert result.ending is Ending.DONE
    assert len(fake.jobs) == 1
    again, _ = run([step(3, 2.0)], told=Recorder(lambda n: Decision.STOP), trial=TrialSpec(1, 1, TRIAL.configuration))
    assert again.ending is Ending.STOPPED
    assert [job["status"] for job in fake.jobs] == ["succeeded", "cancelled"]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"job": 3}', '{"job": "ftjob-9"}'])
def test_a_note_that_is_of_no_use_is_none(fake: Fake, run: Run, artifacts: Path, note: str) -> None:
    own_dir(artifacts, 0).mkdir(parents=True)
    (own_dir(artifacts, 0) / "job.json").write_text(note)
    assert run({**DONE, "steps": [step(6, 1.0)]})[0].ending is Ending.DONE


def test_a_twin_that_shows_up_is_cancelled(fake: Fake, run: Run, artifacts: Path) -> None:
    fake.lost, fake.n_lists_late = {2}, 5
    fake.add_job(uid="others", trial=0, status="succeeded")
    result, told = run({}, {**DONE, "steps": [step(6, 1.0)]})
    assert result.ending is Ending.DONE
    assert [job["status"] for job in fake.jobs] == ["succeeded", "cancelled", "succeeded"]
    assert told.facts["job"] == "ftjob-2"
    ledger = Ledger(remote_dir(artifacts))
    assert not ledger.has_open()
    assert ledger.spent().settled > (fake.jobs[2]["trained_tokens"] or 0)  # the twin is charged, too


# --- the budget -------------------------------------------------------------------------------------------------------


def test_where_nothing_more_fits_the_sweep_pauses(fake: Fake, run: Run, artifacts: Path) -> None:
    Ledger(remote_dir(artifacts)).allow(10)
    result, _ = run()
    assert (result.ending, result.reason) == (Ending.BLOCKED, SPENT)
    assert fake.jobs == []


def test_it_waits_for_what_others_may_leave_also_where_their_worker_is_lost(
    fake: Fake, run: Run, artifacts: Path, make_trainer: Callable[..., RemoteTrainer]
) -> None:
    n_bytes = make_trainer()._files.train.n_bytes
    ledger = Ledger(remote_dir(artifacts))
    ledger.allow(2 * n_bytes + 100)
    lost = fake.add_job(trial=7, id="lost")
    ledger.reserve("lost", n_epochs=2, most_per_epoch=n_bytes)

    class Ending7(Recorder):
        def poll(self) -> Decision:
            if fake.count("GET", "/fine_tuning/jobs") > 3:
                lost.update(status="succeeded", trained_tokens=90)
            return Decision.CONTINUE

    result, _ = run({**DONE, "steps": [step(6, 1.0)]}, told=Ending7(), trial=TrialSpec(8, 1, TRIAL.configuration))
    assert result.ending is Ending.DONE
    assert ledger.spent() == Spent(90 + 120, 0)


def test_what_a_lost_worker_set_aside_and_never_used_is_given_back(
    run: Run, artifacts: Path, time: Time, make_trainer: Callable[..., RemoteTrainer]
) -> None:
    n_bytes = make_trainer()._files.train.n_bytes
    ledger = Ledger(remote_dir(artifacts))
    ledger.allow(2 * n_bytes)
    ledger.reserve(ledger_key(7), n_epochs=1, most_per_epoch=n_bytes)
    result, _ = run({**DONE, "steps": [step(6, 1.0)]}, remote={"poll_s": 20, "patience_minutes": 3})
    assert result.ending is Ending.DONE
    assert ledger.spent() == Spent(120, 0)
    assert 360 < time.now_s < 600  # not before whoever lives would have begun a job


def test_a_job_under_way_goes_on_whatever_the_limit_has_become(fake: Fake, run: Run, artifacts: Path) -> None:
    run([step(3, 2.0)], told=Recorder(lambda n: Decision.PAUSE))
    Ledger(remote_dir(artifacts)).allow(1)
    assert run({**DONE, "steps": [step(6, 1.0)]})[0].ending is Ending.DONE


def test_epochs_that_a_server_chooses_beyond_the_budget_cost_no_more(
    fake: Fake, run: Run, artifacts: Path, make_trainer: Callable[..., RemoteTrainer]
) -> None:
    ledger = Ledger(remote_dir(artifacts))
    ledger.allow(12 * make_trainer()._files.train.n_bytes)  # holds the ten that are expected
    looks = [{"hyperparameters": {"n_epochs": 25, "batch_size": 4}}, {}, {}]
    result, _ = run(*looks, training={})
    assert (result.ending, result.reason) == (Ending.BLOCKED, SPENT)
    assert fake.jobs[0]["status"] == "cancelled"
    result, _ = run(training={})  # and from now on so many are expected
    assert (result.ending, result.reason) == (Ending.BLOCKED, SPENT)
    assert len(fake.jobs) == 1


# --- tidying up -------------------------------------------------------------------------------------------------------


def test_before_a_sweep_goes_on_its_jobs_are_entered_and_others_cancelled(
    fake: Fake, make_trainer: Callable[..., RemoteTrainer], make_sweep: Callable[..., RemoteSweep], artifacts: Path
) -> None:
    make_trainer()
    fake.add_job(trial=0, status="succeeded", trained_tokens=50)
    wanted = fake.add_job(trial=1)
    orphan = fake.add_job(trial=2, trained_tokens=9)
    of_others = fake.add_job(trial=2, uid="another sweep")
    ledger = Ledger(remote_dir(artifacts))
    for key in (wanted["id"], "never begun", ledger_key(1)):
        ledger.reserve(key, n_epochs=1, most_per_epoch=100)
    assert tidy(make_sweep(), artifacts, uid=UID, wanted=[1], most_per_epoch=100) == [orphan["id"]]
    assert (orphan["status"], wanted["status"], of_others["status"]) == ("cancelled", "running", "running")
    assert ledger.open_keys() == {wanted["id"], ledger_key(1)}
    assert ledger.spent().settled == 59
    assert tidy(make_sweep(), artifacts, uid=UID, wanted=[1], most_per_epoch=100) == []
