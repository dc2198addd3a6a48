"""Driving a sweep on a virtual clock: limits, stops, signals, take-overs; a real database, no real time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from finesweep.driver import BY_REQUEST, HOURS, Driver, SweepEnd
from finesweep.errors import ResourcesError, ResultsError, SweepHeldError
from finesweep.events import Grid, Report, TrialSpec
from finesweep.results.frames import open_results
from finesweep.results.lease import Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.scheduling.simulated import Says, SimulatedBackend, VirtualClock
from finesweep.search.broker import TrialBroker
from finesweep.spec.sweep import SweepSpec
from finesweep.views.live import PlainView

GRID = Grid("examples", 100, 300)
HOUR_S = 3600.0
PARAMETERS = {"learning_rate": {"type": "float", "low": 1e-6, "high": 1e-3, "log": True}}


@dataclass
class Sweep:
    """A sweep of trials that take three virtual minutes each, on two slots."""

    spec: SweepSpec
    path: Path
    clock: VirtualClock = field(default_factory=VirtualClock)
    lines: list[str] = field(default_factory=list)
    checkpoints: dict[int, int] = field(default_factory=dict)
    on_begin: Callable[[TrialSpec], None] = lambda trial: None

    def script(self, trial: TrialSpec) -> Sequence[Says]:
        self.on_begin(trial)
        value = 0.5 + trial.number / 100
        return [Says(60.0, Report(100 * i, {"accuracy": value}, 100 * i, final=i == 3)) for i in (1, 2, 3)]

    def drive(self, *, holder: Holder | None = None) -> SweepEnd:
        with open_writer(self.path, clock=self.clock) as writer:
            writer.acquire(self.spec.name, holder or Holder.this_process())
            try:
                backend = SimulatedBackend(self.script, n_slots=2, clock=self.clock, checkpoints=self.checkpoints)
                return self.driver(writer).drive(backend)
            finally:
                writer.release(self.spec.name)

    def driver(self, writer: ResultsWriter) -> Driver:
        def make_broker(listener: Any) -> TrialBroker:
            return TrialBroker(
                self.spec.study,
                name=self.spec.name,
                grid=GRID,
                n_trials=writer.standing(self.spec.name).budget_trials,
                retries=2,
                listener=listener,
                history=writer.history(self.spec.name),
            )

        view = PlainView(self.lines.append)
        view.begin(self.spec.study.objectives, self.spec.budget.trials, writer.history(self.spec.name))
        return Driver(self.spec, writer=writer, make_broker=make_broker, listeners=[], view=view, clock=self.clock)

    def states(self) -> list[str]:
        return list(open_results(self.path).trials(self.spec.name)["state"])

    def study(self) -> optuna.Study:
        return optuna.load_study(study_name=self.spec.name, storage=f"sqlite:///{self.path}")


@pytest.fixture
def make_sweep(tmp_path: Path, make_spec: Callable[..., SweepSpec]) -> Iterator[Callable[..., Sweep]]:
    def make(parameters: Any = PARAMETERS, **budget: Any) -> Sweep:
        study = {"objective": {"metric": "accuracy", "direction": "maximize"}, "parameters": parameters}
        sweep = Sweep(make_spec(study=study, budget={"trials": 6, **budget}), tmp_path / "finesweep.db")
        with open_writer(sweep.path) as writer:
            writer.create_sweep(sweep.spec, grid=GRID, provenance={})
        return sweep

    yield make


def elsewhere(sweep: Sweep, act: Callable[[ResultsWriter], None]) -> None:
    """Do something to the database as another process would."""
    with open_writer(sweep.path, clock=sweep.clock) as writer:
        act(writer)


def test_a_drive_to_the_end_leaves_optunas_tables_complete(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep()
    end = sweep.drive()
    assert end == SweepEnd("tickets", SweepState.FINISHED, None, 0)
    assert sweep.states() == ["COMPLETE"] * 6
    assert [trial.value for trial in sweep.study().trials] == [0.5, 0.51, 0.52, 0.53, 0.54, 0.55]


def test_a_drive_with_nothing_left_to_do_runs_nothing(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep()
    sweep.drive()
    sweep.on_begin = lambda trial: pytest.fail(f"trial {trial.number} was begun")
    assert sweep.drive().state is SweepState.FINISHED
    assert "All 6 trials are done" in sweep.lines[-1]


def test_a_used_up_space_ends_the_sweep_and_says_so_and_resume_adds_nothing(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep({"batch_size": {"type": "categorical", "choices": [8, 16]}})
    end = sweep.drive()
    assert end.state is SweepState.FINISHED
    assert end.reason is not None and "used up" in end.reason
    trials = open_results(sweep.path).trials("tickets")
    assert trials["reused_from"].isna().sum() == 2  # trained
    again = sweep.drive()
    assert again.reason == end.reason
    assert len(open_results(sweep.path).trials("tickets")) == len(trials)


def test_when_the_hours_are_over_running_trials_finish(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep(hours=200 / HOUR_S)
    end = sweep.drive()
    assert (end.state, end.reason, end.n_unfinished) == (SweepState.FINISHED, HOURS, 0)
    assert sweep.states() == ["COMPLETE"] * 4  # two at a time, three minutes each


def test_hours_may_interrupt_and_more_of_them_go_on(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep(hours=200 / HOUR_S, at_end="interrupt")
    end = sweep.drive()
    assert (end.state, end.reason, end.n_unfinished) == (SweepState.INTERRUPTED, HOURS, 2)
    assert sweep.states() == ["COMPLETE", "COMPLETE", "INTERRUPTED", "INTERRUPTED"]
    again = sweep.drive()  # no hours left: nothing is begun
    assert (again.reason, again.n_unfinished) == (HOURS, 2)
    elsewhere(sweep, lambda writer: writer.extend("tickets", hours=1.0))
    assert sweep.drive().state is SweepState.FINISHED
    assert sweep.states() == ["COMPLETE"] * 6


def test_why_a_drive_ended_early_is_kept_until_the_next_one(make_sweep: Callable[..., Sweep]) -> None:
    def kept() -> str | None:
        [reason] = open_results(sweep.path).sweeps()["end_reason"]
        return None if pd.isna(reason) else reason

    sweep = make_sweep(hours=200 / HOUR_S, at_end="interrupt")
    sweep.drive()
    assert kept() == HOURS
    elsewhere(sweep, lambda writer: writer.extend("tickets", hours=1.0))
    sweep.on_begin = lambda trial: seen.append(kept())
    seen: list[str | None] = []
    sweep.drive()
    assert set(seen) == {None}, "it runs"
    assert kept() is None, "its budget is used up"


def test_an_error_that_ends_a_drive_is_its_reason(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep()

    def fail(trial: TrialSpec) -> None:
        raise ResourcesError("the cluster is gone")

    sweep.on_begin = fail
    with pytest.raises(ResourcesError):
        sweep.drive()
    [row] = open_results(sweep.path).sweeps().to_dict("records")
    assert (row["state"], row["end_reason"]) == ("INTERRUPTED", "the cluster is gone")


def test_a_larger_total_is_taken_up_while_it_runs(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep()

    def extend(trial: TrialSpec) -> None:
        if trial.number == 3:
            elsewhere(sweep, lambda writer: writer.extend("tickets", trials=8))

    sweep.on_begin = extend
    assert sweep.drive().state is SweepState.FINISHED
    assert sweep.states() == ["COMPLETE"] * 8
    assert "the total is now 8 trials" in sweep.lines


def test_a_stop_from_elsewhere_pauses_and_resume_finishes(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep()

    def stop(trial: TrialSpec) -> None:
        if trial.number == 3:
            elsewhere(sweep, lambda writer: writer.request_stop("tickets"))

    sweep.on_begin = stop
    end = sweep.drive()
    assert (end.state, end.reason, end.n_unfinished) == (SweepState.INTERRUPTED, BY_REQUEST, 2)
    sweep.on_begin = lambda trial: None
    assert sweep.drive().state is SweepState.FINISHED
    assert sweep.states() == ["COMPLETE"] * 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_pauses_and_its_handler_is_given_back(
    make_sweep: Callable[..., Sweep], number: signal.Signals
) -> None:
    sweep = make_sweep()
    before = signal.getsignal(number)
    sweep.on_begin = lambda trial: os.kill(os.getpid(), number) if trial.number == 2 else None
    end = sweep.drive()
    assert (end.state, end.n_unfinished) == (SweepState.INTERRUPTED, 2)
    assert end.reason is not None and end.reason.startswith("stopped")
    assert signal.getsignal(number) is before


def test_ctrl_c_still_stops_when_the_hours_are_over(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep(hours=100 / HOUR_S)
    with open_writer(sweep.path, clock=sweep.clock) as writer:
        writer.acquire("tickets", Holder.this_process())
        driver = sweep.driver(writer)

        class Backend(SimulatedBackend):
            def run(self, broker: TrialBroker, tick: Callable[[], None]) -> None:
                def tick_and_interrupt() -> None:
                    if self.clock.now_s == 120.0 and broker.halted == HOURS:
                        os.kill(os.getpid(), signal.SIGINT)
                    tick()

                super().run(broker, tick_and_interrupt)

        end = driver.drive(Backend(sweep.script, n_slots=2, clock=sweep.clock))
    assert end.n_unfinished == 2
    assert sweep.states() == ["INTERRUPTED"] * 2


def test_a_second_ctrl_c_stops_at_once_and_nothing_stored_is_lost(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep()

    def twice(trial: TrialSpec) -> None:
        if trial.number == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    sweep.on_begin = twice
    with pytest.raises(KeyboardInterrupt):
        sweep.drive()
    assert sweep.states().count("COMPLETE") >= 2
    assert open_results(sweep.path).sweeps()["state"].iloc[0] == SweepState.INTERRUPTED
    sweep.on_begin = lambda trial: None
    assert sweep.drive().state is SweepState.FINISHED
    assert sweep.states() == ["COMPLETE"] * 6


def test_a_driver_that_was_replaced_stores_nothing_more(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep()
    gone = Holder("another-host", 1, None)

    def take_over(trial: TrialSpec) -> None:
        if trial.number == 3:
            sweep.clock.now_s += 120.0  # the lease has run out
            elsewhere(sweep, lambda writer: writer.acquire("tickets", Holder.this_process()))

    sweep.on_begin = take_over
    with pytest.raises(SweepHeldError, match="taken over"):
        sweep.drive(holder=gone)
    stored = sweep.states()
    assert stored.count("COMPLETE") < 6
    # Optuna's tables hold no trial as finished that ours do not
    finished = {trial.number for trial in sweep.study().trials if trial.state.is_finished()}
    assert finished <= {number for number, state in enumerate(stored) if state == "COMPLETE"}


def test_a_mirror_that_cannot_be_written_is_said_in_our_words(
    make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep()

    def drop_optunas_table(trial: TrialSpec) -> None:
        import sqlite3

        if trial.number == 5:
            with sqlite3.connect(sweep.path) as connection:
                connection.execute("DROP TABLE trial_user_attributes")

    sweep.on_begin = drop_optunas_table
    with pytest.raises(ResultsError, match="resume"):
        sweep.drive()
