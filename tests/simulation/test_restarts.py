"""A driver that dies between any two writes: what a new one makes of what was stored."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from finesweep.events import (
    AttemptStarted,
    Configuration,
    Event,
    Grid,
    Report,
    Reported,
    SweepHistory,
    TrialFinished,
    TrialRecord,
    TrialSpec,
    TrialState,
    TrialSuggested,
)
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.scheduling.simulated import Dies, Raises, Says, SimulatedBackend, Stage
from finesweep.scheduling.stacking import Stacking
from finesweep.search.broker import TrialBroker
from finesweep.spec.sweep import SweepSpec, read_sweep

GRID = Grid("examples", every=100, longest=900)
N_TRIALS = 8
ACCURACY = {"metric": "accuracy", "direction": "maximize"}
SIZE = {"metric": "size", "direction": "minimize"}
ONE = (ACCURACY,)
TWO = (ACCURACY, SIZE)
STUDIES = [
    *((sampler, pruner, ONE, 0, 1) for sampler in ("random", "tpe") for pruner in ("none", "asha")),
    *((sampler, "asha", ONE, 1, 1) for sampler in ("random", "tpe")),
    *((sampler, pruner, TWO, 0, 1) for sampler in ("random", "tpe", "nsga2") for pruner in ("none", "asha")),
    *((sampler, "asha", ONE, seed, 3) for sampler in ("random", "tpe") for seed in (0, 1)),
    ("nsga2", "asha", TWO, 0, 3),
]


class DeathError(Exception):
    """The driver is gone, and with it what it was about to store."""


def sweep_spec(sampler: str, pruner: str, objectives: Sequence[Mapping[str, str]], seed: int) -> SweepSpec:
    """Search a space so small that configurations repeat."""
    content = {
        "name": "mortal",
        "model": "none",
        "task": "classification",
        "data": {"train": "/t.jsonl", "validation": "/v.jsonl"},
        "budget": {"trials": N_TRIALS, "retries": 1},
        "study": {
            "objective": list(objectives),
            "sampler": {"type": sampler, "seed": seed, "startup_trials": 3},
            "pruner": {"type": pruner},
            "parameters": {
                "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
                "epochs": {"type": "int", "low": 1, "high": 3},
            },
        },
    }
    return read_sweep(content)


def stack_key(configuration: Configuration) -> str | None:
    """Let trials of short schedules be trained together."""
    return None if configuration["epochs"] == 3 else "short"


def life(trial: TrialSpec) -> Sequence[Stage]:
    """Draw a trial's stages from its configuration alone: some raise, some diverge, some lose their first worker."""
    chance = random.Random(str(sorted(trial.configuration.items())))
    kind = chance.choice(["good", "raises", "dies"])
    stages: list[Stage] = []
    level, size = chance.random(), chance.random()
    for step in (100, 300, 900):
        is_last = step == 900
        value = float("nan") if is_last and level > 0.9 else level + step / 10_000
        metrics = {"accuracy": value, "size": size + step}
        after_s = 5.0 if stack_key(trial.configuration) else chance.uniform(1, 9)  # those in step report together
        stages.append(Says(after_s, Report(step, metrics, step, final=step == 900)))
    if kind == "raises":
        stages[2] = Raises(1.0, "out of luck")
    if kind == "dies":
        stages.insert(1, Dies(1.0))
    return stages


class Drive:
    """One driver after another on one database; what workers have written survives them all."""

    def __init__(
        self,
        writer: ResultsWriter,
        spec: SweepSpec,
        *,
        checkpoints: Mapping[int, int] | None = None,
        n_lanes: int = 1,
    ) -> None:
        self.writer, self.spec = writer, spec
        self.stacking = Stacking(n_lanes=n_lanes, key=stack_key)
        self.checkpoints = dict(checkpoints or {})
        self.told: list[Event] = []
        self.most_together = 0  # reports that were stored at once
        self.broker: TrialBroker | None = None

    def go(self, *, before_write: Callable[[int], None] = lambda n_written: None) -> None:
        """Drive the sweep to its end, asking before each write; a driver that must die is told so there."""
        store = self.writer.listener(self.spec.name)
        n_written = 0

        def hear(events: Sequence[Event]) -> None:
            nonlocal n_written
            before_write(n_written)
            store(events)
            self.told.extend(events)
            self.most_together = max(self.most_together, sum(isinstance(event, Reported) for event in events))
            n_written += 1

        self.broker = TrialBroker(
            self.spec.study,
            name=self.spec.name,
            grid=GRID,
            n_trials=self.spec.budget.trials,
            retries=self.spec.budget.retries,
            listener=hear,
            history=self.history(),
        )
        backend = SimulatedBackend(life, n_slots=2, checkpoints=self.checkpoints, stacking=self.stacking)
        backend.run(self.broker, lambda: None)

    def history(self) -> SweepHistory:
        return self.writer.history(self.spec.name)


def open_results(path: Path) -> ResultsWriter:
    return open_writer(path, clock=lambda: 1000.0)


def drive_until(path: Path, spec: SweepSpec, *deaths: int, n_lanes: int = 1) -> tuple[list[SweepHistory], Drive]:
    """Drive with a death of each driver but the last; give what was stored after each."""
    stored = []
    with open_results(path) as writer:
        writer.create_sweep(spec, grid=GRID, provenance={})
        drive = Drive(writer, spec, n_lanes=n_lanes)
        for death in deaths:
            with suppress(DeathError):
                drive.go(before_write=partial(die_at, death))
            if death % 2:  # the last checkpoints were not written yet: known steps are reported again
                drive.checkpoints.clear()
            stored.append(drive.history())
        drive.go()
        stored.append(drive.history())
    return stored, drive


def die_at(death: int, n_written: int) -> None:
    if n_written == death:
        raise DeathError


@pytest.mark.parametrize(("sampler", "pruner", "objectives", "seed", "n_lanes"), STUDIES)
def test_a_sweep_survives_the_death_of_its_driver_between_any_two_writes(
    tmp_path: Path, sampler: str, pruner: str, objectives: Sequence[Mapping[str, str]], seed: int, n_lanes: int
) -> None:
    """The database as it was before each write, and the checkpoints, are what a death there leaves."""
    spec = sweep_spec(sampler, pruner, objectives, seed)
    left: list[tuple[Path, Mapping[int, int]]] = []
    with open_results(tmp_path / "undisturbed.db") as writer:
        writer.create_sweep(spec, grid=GRID, provenance={})
        drive = Drive(writer, spec, n_lanes=n_lanes)

        def keep_copy(n_written: int) -> None:
            left.append((tmp_path / f"{n_written}.db", dict(drive.checkpoints)))
            copy_database(tmp_path / "undisturbed.db", left[-1][0])

        drive.go(before_write=keep_copy)
        told = list(drive.told)
        assert (drive.most_together > 1) == (n_lanes > 1)
    assert len(left) > (4 if n_lanes == 1 else 3) * N_TRIALS
    for n_written, (path, checkpoints) in enumerate(left):
        is_late = n_written % 2  # the last checkpoints were not written yet: known steps are reported again
        with open_results(path) as writer:
            drive = Drive(writer, spec, checkpoints={} if is_late else checkpoints, n_lanes=n_lanes)
            before = drive.history()
            drive.go()
            drive.told = [*stored_events(told, before), *drive.told]
            check([before, drive.history()], drive)


def copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def stored_events(told: Sequence[Event], history: SweepHistory) -> Sequence[Event]:
    """Give those of the undisturbed events that the history knows."""
    known: set[tuple[object, ...]] = set()
    for record in history.trials:
        known.add((TrialSuggested, record.number))
        known |= {(AttemptStarted, record.number, attempt + 1) for attempt in range(record.attempts)}
        known |= {(Reported, record.number, report.step) for report in record.reports}
        if record.state.is_final:
            known.add((TrialFinished, record.number))
    return [event for event in told if identity(event) in known]


def identity(event: Event) -> tuple[object, ...]:
    """Name what may happen once only."""
    match event:
        case Reported():
            return Reported, event.number, event.report.step
        case AttemptStarted():
            return AttemptStarted, event.number, event.attempt
        case _:
            return type(event), event.number


@pytest.mark.parametrize(("sampler", "pruner", "objectives", "seed", "n_lanes"), STUDIES)
def test_a_sweep_survives_many_deaths(
    tmp_path: Path, sampler: str, pruner: str, objectives: Sequence[Mapping[str, str]], seed: int, n_lanes: int
) -> None:
    chance = random.Random(seed)
    for name in ("1.db", "2.db", "3.db"):
        deaths = [chance.randrange(1, 9) for _ in range(chance.randrange(2, 12))]
        stored, drive = drive_until(
            tmp_path / name, sweep_spec(sampler, pruner, objectives, seed), *deaths, n_lanes=n_lanes
        )
        check(stored, drive)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("objectives", [ONE, TWO], ids=len)
@pytest.mark.parametrize("n_lanes", [1, 3])
def test_the_same_seed_gives_the_same_trace(
    tmp_path: Path, sampler: str, objectives: Sequence[Mapping[str, str]], n_lanes: int
) -> None:
    seeds = {"a": 3, "b": 3, "c": 4}
    traces = [
        drive_until(tmp_path / name, sweep_spec(sampler, "asha", objectives, seed), 9, n_lanes=n_lanes)[1].told
        for name, seed in seeds.items()
    ]
    assert repr(traces[0]) == repr(traces[1])
    assert repr(traces[0]) != repr(traces[2])


def check(stored: Sequence[SweepHistory], drive: Drive) -> None:
    trials = stored[-1].trials
    assert [record.number for record in trials] == list(range(len(trials)))
    assert all(record.state.is_final for record in trials)
    charged = [record for record in trials if record.reused_from is None]
    assert len(charged) == N_TRIALS
    for record in trials:
        if record.reused_from is not None:
            check_reused(record, trials[record.reused_from])
    for earlier in stored[:-1]:
        for before, after in zip(earlier.trials, trials, strict=False):
            if before.state.is_final:
                assert repr(after) == repr(before)
            assert repr(after.reports[: len(before.reports)]) == repr(before.reports)
            assert after.configuration == before.configuration
    told = Counter(
        identity(event)
        for event in drive.told
        if isinstance(event, TrialSuggested | AttemptStarted | Reported | TrialFinished)
    )
    assert set(told.values()) == {1}
    check_study(drive, trials)


def check_reused(record: TrialRecord, origin: TrialRecord) -> None:
    assert record.configuration == origin.configuration
    assert record.attempts == 0
    assert (record.state, record.value, record.value_step) == (origin.state, origin.value, origin.value_step)


def check_study(drive: Drive, trials: Sequence[TrialRecord]) -> None:
    """Compare with Optuna's study of the last driver."""
    assert drive.broker is not None
    states = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED", TrialState.FAILED: "FAIL"}
    for record, trial in zip(trials, drive.broker.study.get_trials(deepcopy=False), strict=True):
        origin = record if record.reused_from is None else trials[record.reused_from]
        assert trial.state.name == states[record.state]
        assert trial.params == record.parameters
        is_one = len(drive.spec.study.objectives) == 1
        assert list(trial.intermediate_values) == [report.step for report in origin.reports if is_one]
        assert trial.system_attrs == record.attributes
        if record.state is TrialState.COMPLETE:
            report = next(report for report in origin.reports if report.step == record.value_step)
            assert trial.values[0] == record.value
            assert trial.values == [report.metrics[objective.metric] for objective in drive.spec.study.objectives]
