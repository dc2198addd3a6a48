"""A driver that dies between any two writes: what a new one makes of what was stored."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from finesweep.events import (
    AttemptStarted,
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
from finesweep.search.broker import TrialBroker
from finesweep.spec.sweep import SweepSpec

GRID = Grid("examples", every=100, longest=900)
N_TRIALS = 8
STUDIES = [
    (sampler, pruner, seed)
    for sampler in ("random", "tpe")
    for pruner, seeds in {"none": (0,), "asha": (0, 1)}.items()
    for seed in seeds
]


class DeathError(Exception):
    """The driver is gone, and with it what it was about to store."""


def sweep_spec(sampler: str, pruner: str, seed: int) -> SweepSpec:
    """Search a space so small that configurations repeat."""
    content = {
        "name": "mortal",
        "model": "none",
        "task": "classification",
        "data": {"train": "/t.jsonl", "validation": "/v.jsonl"},
        "budget": {"trials": N_TRIALS, "retries": 1},
        "study": {
            "objective": {"metric": "accuracy", "direction": "maximize"},
            "sampler": {"type": sampler, "seed": seed, "startup_trials": 3},
            "pruner": {"type": pruner},
            "parameters": {
                "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
                "epochs": {"type": "int", "low": 1, "high": 3},
            },
        },
    }
    return SweepSpec.model_validate(content)


def life(trial: TrialSpec) -> Sequence[Stage]:
    """Draw a trial's stages from its configuration alone: some raise, some diverge, some lose their first worker."""
    chance = random.Random(str(sorted(trial.configuration.items())))
    kind = chance.choice(["good", "raises", "dies"])
    stages: list[Stage] = []
    level = chance.random()
    for step in (100, 300, 900):
        is_last = step == 900
        value = float("nan") if is_last and level > 0.9 else level + step / 10_000
        stages.append(Says(chance.uniform(1, 9), Report(step, {"accuracy": value}, step, final=step == 900)))
    if kind == "raises":
        stages[2] = Raises(1.0, "out of luck")
    if kind == "dies":
        stages.insert(1, Dies(1.0))
    return stages


class Drive:
    """One driver after another on one database; what workers have written survives them all."""

    def __init__(self, writer: ResultsWriter, spec: SweepSpec) -> None:
        self.writer, self.spec = writer, spec
        self.checkpoints: dict[int, int] = {}
        self.told: list[Event] = []
        self.broker: TrialBroker | None = None
        writer.create_sweep(spec, grid=GRID, provenance={})

    def go(self, *, dies_at: int | None = None) -> None:
        """Drive the sweep to its end, or until the driver dies instead of storing its `dies_at`-th events."""
        store = self.writer.listener(self.spec.name)
        n_stored = 0

        def hear(events: Sequence[Event]) -> None:
            nonlocal n_stored
            if n_stored == dies_at:
                raise DeathError
            store(events)
            self.told.extend(events)
            n_stored += 1

        self.broker = TrialBroker(
            self.spec.study,
            name=self.spec.name,
            grid=GRID,
            n_trials=self.spec.budget.trials,
            retries=self.spec.budget.retries,
            listener=hear,
            history=self.history(),
        )
        SimulatedBackend(life, n_slots=2, checkpoints=self.checkpoints).run(self.broker, lambda: None)

    def history(self) -> SweepHistory:
        return self.writer.history(self.spec.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drives")


def drive_until(path: Path, spec: SweepSpec, *deaths: int) -> tuple[list[SweepHistory], Drive]:
    """Drive with a death of each driver but the last; give what was stored after each."""
    path.unlink(missing_ok=True)
    stored = []
    with open_writer(path, clock=lambda: 1000.0) as writer:
        drive = Drive(writer, spec)
        for death in deaths:
            with suppress(DeathError):
                drive.go(dies_at=death)
            if death % 2:  # the last checkpoints were not written yet: known steps are reported again
                drive.checkpoints.clear()
            stored.append(drive.history())
        drive.go()
        stored.append(drive.history())
    return stored, drive


@pytest.mark.parametrize(("sampler", "pruner", "seed"), STUDIES)
def test_a_sweep_survives_the_death_of_its_driver_between_any_two_writes(
    folder: Path, sampler: str, pruner: str, seed: int
) -> None:
    spec = sweep_spec(sampler, pruner, seed)
    _, undisturbed = drive_until(folder / "undisturbed.db", spec)
    n_writes = writes_of(undisturbed)
    assert n_writes > 4 * N_TRIALS
    for death in range(n_writes):
        stored, drive = drive_until(folder / "mortal.db", spec, death)
        check(stored, drive)


@pytest.mark.parametrize(("sampler", "pruner", "seed"), STUDIES)
def test_a_sweep_survives_many_deaths(folder: Path, sampler: str, pruner: str, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        deaths = [chance.randrange(1, 9) for _ in range(chance.randrange(2, 12))]
        stored, drive = drive_until(folder / "mortal.db", sweep_spec(sampler, pruner, seed), *deaths)
        check(stored, drive)


@pytest.mark.parametrize(("sampler", "pruner"), [("random", "asha"), ("tpe", "asha")])
def test_the_same_seed_gives_the_same_trace(folder: Path, sampler: str, pruner: str) -> None:
    traces = [drive_until(folder / "trace.db", sweep_spec(sampler, pruner, seed), 9)[1].told for seed in (3, 3, 4)]
    assert repr(traces[0]) == repr(traces[1])
    assert repr(traces[0]) != repr(traces[2])


def writes_of(drive: Drive) -> int:
    """Count the times that events were handed over: a death at the last finds all done."""
    n_writes = 0

    def count(events: Sequence[Event]) -> None:
        nonlocal n_writes
        n_writes += 1

    broker = TrialBroker(
        drive.spec.study,
        name=drive.spec.name,
        grid=GRID,
        n_trials=drive.spec.budget.trials,
        retries=drive.spec.budget.retries,
        listener=count,
    )
    SimulatedBackend(life, n_slots=2).run(broker, lambda: None)
    return n_writes


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
        (type(event), event.number, event.report.step if isinstance(event, Reported) else getattr(event, "attempt", 0))
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
        assert list(trial.intermediate_values) == [report.step for report in origin.reports]
        assert trial.system_attrs == record.attributes
        if record.state is TrialState.COMPLETE:
            assert trial.value == record.value
