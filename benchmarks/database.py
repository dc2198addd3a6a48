"""What the results database costs: looking at ten thousand trials, and storing what trials report.

    python benchmarks/database.py                  # 10,000 trials × 10 reports; 300 trials stored by each arm
    python benchmarks/database.py --trials 1000

Looking: a database is made by the events of finished trials, then each verb is timed in a process that has imported
what it needs, and as a command, from launch to end. `best` alone is no command; `export` reads it, and writes a file.

Storing, in one process, with nothing trained and configurations drawn at random:

    finesweep                          events as a broker hands them over, each batch durable before the next
    finesweep, Optuna's tables too     and finished trials copied into Optuna's tables beside it, as in a sweep
    finesweep, 16 trials together      the reports of a stack come together and are stored together
    Optuna on SQLite                   ask, report, tell on an RDBStorage as it comes
    Optuna on SQLite, WAL              the same with the journal and the fsyncs that finesweep has
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
import ours
from tables import Aim, Table, number, ratio
from trial_events import N_REPORTS, distributions, lives, metrics, sweep_spec, together

Answer = dict[str, Any]

N_TOGETHER = 16
REPEATS = 3  # of each verb; the median counts
MOST_S = 2.0  # of each verb, the aim
COMMANDS: dict[str, list[str] | None] = {
    "open": None,
    "status": ["status"],
    "status SWEEP": ["status", ours.NAME],
    "status SWEEP --metric loss": ["status", ours.NAME, "--metric", "loss"],
    "best": ["export", ours.NAME, "--to", "json", "--force", "--output", "best.json"],
    "compare SWEEP": ["compare", ours.NAME],
    "compare SWEEP --json": ["compare", ours.NAME, "--json"],
}


# --- looking -----------------------------------------------------------------------------------------------------


def looking_arm(folder: Path) -> Answer:
    settings = harness.settings_of(folder)
    path = folder / "finesweep.db"
    began_s = time.perf_counter()
    with _stored_sweep(path, settings["trials"]) as listen:
        for batches in lives(settings["trials"], settings["seed"]):
            listen([event for batch in batches for event in batch])
    made_s = time.perf_counter() - began_s
    return {
        "made_s": made_s,
        "mib": path.stat().st_size / 2**20,
        "in_process_s": {verb: _median_s(look) for verb, look in _looks(path).items()},
        "command_s": {verb: _median_s(lambda: _command(words, folder)) for verb, words in COMMANDS.items() if words},
    }


def _looks(path: Path) -> dict[str, Callable[[], object]]:
    """Give what each verb does, short of printing."""
    from finesweep.results.frames import open_results
    from finesweep.views.compare import compare, comparison_tables
    from finesweep.views.tables import leaderboard, sweeps_table

    results = open_results(path)
    return {
        "open": lambda: open_results(path),
        "status": lambda: sweeps_table(results),
        "status SWEEP": lambda: leaderboard(results, ours.NAME),
        "status SWEEP --metric loss": lambda: leaderboard(results, ours.NAME, metrics=["loss"]),
        "best": lambda: results.best(ours.NAME),
        "compare SWEEP": lambda: comparison_tables(compare(results, [ours.NAME])),
    }


def _command(words: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "finesweep", *words, "--results", "finesweep.db"]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)


def _median_s(act: Callable[[], object]) -> float:
    taken_s = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        act()
        taken_s.append(time.perf_counter() - began_s)
    return statistics.median(taken_s)


# --- storing -----------------------------------------------------------------------------------------------------


@contextmanager
def _stored_sweep(path: Path, n_trials: int) -> Iterator[Callable[[list[Any]], None]]:
    """Begin a sweep in a new database and give what stores its events."""
    from finesweep.events import Grid
    from finesweep.results.lease import Holder
    from finesweep.results.schema import SweepState
    from finesweep.results.writer import open_writer

    spec = sweep_spec(n_trials)
    with open_writer(path) as writer:
        writer.create_sweep(spec, grid=Grid("examples", 100, 100 * N_REPORTS), provenance={"artifact_dir": "/none"})
        writer.acquire(spec.name, Holder.this_process())
        yield writer.listener(spec.name)
        writer.set_state(spec.name, SweepState.FINISHED)
        writer.release(spec.name)


def writer_arm(folder: Path, *, n_together: int = 1) -> Answer:
    settings = harness.settings_of(folder)
    trials = list(lives(settings["stored"], settings["seed"]))
    with _stored_sweep(folder / "finesweep.db", len(trials)) as listen:
        began_s = time.perf_counter()
        for first in range(0, len(trials), n_together):
            for batch in together(trials[first : first + n_together]):
                listen(batch)
        return {"s": time.perf_counter() - began_s}


def mirrored_arm(folder: Path) -> Answer:
    """Store events, and have the mirror's thread copy what has ended, to the last trial."""
    import optuna

    from finesweep.search.mirror import OptunaMirror

    settings = harness.settings_of(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name=ours.NAME, direction="maximize")
    trials = list(lives(settings["stored"], settings["seed"]))
    with _stored_sweep(folder / "finesweep.db", len(trials)) as listen:
        mirror = OptunaMirror(f"sqlite:///{folder / 'finesweep.db'}", study)
        began_s = time.perf_counter()
        for batches in trials:
            for batch in batches:
                listen(batch)
            study.add_trial(_as_optunas(batches))
            mirror.follow()
        mirror.wait()
        mirror.complete()
        taken_s = time.perf_counter() - began_s
        mirror.close()
    return {"s": taken_s}


def _as_optunas(batches: list[list[Any]]) -> Any:
    from optuna.trial import create_trial

    reports = [event.report for batch in batches for event in batch if hasattr(event, "report")]
    return create_trial(
        value=reports[-1].metrics["accuracy"],
        params=dict(batches[0][0].parameters),
        distributions=distributions(),
        intermediate_values={report.step: report.metrics["accuracy"] for report in reports},
    )


def optuna_arm(folder: Path, *, is_tuned: bool) -> Answer:
    import optuna
    from sqlalchemy import event

    settings = harness.settings_of(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    if is_tuned:

        @event.listens_for(storage.engine, "connect")
        def prepare(connection: Any, record: object) -> None:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
                connection.execute(f"PRAGMA {pragma}").close()

        storage.engine.dispose()  # connections made before the listener
    sampler = optuna.samplers.RandomSampler(seed=settings["seed"])
    study = optuna.create_study(storage=storage, direction="maximize", sampler=sampler)
    space = distributions()
    began_s = time.perf_counter()
    for number_of_trial in range(settings["stored"]):
        trial = study.ask(space)
        level = number_of_trial / settings["stored"]
        for step in range(1, N_REPORTS + 1):
            trial.report(metrics(level, step)["accuracy"], 100 * step)
        study.tell(trial, metrics(level, N_REPORTS)["accuracy"])
    return {"s": time.perf_counter() - began_s}


LOOKING, FINESWEEP, OPTUNA = "looking", "finesweep", "Optuna on SQLite"
STORING: dict[str, harness.Arm] = {
    FINESWEEP: writer_arm,
    "finesweep, Optuna's tables too": mirrored_arm,
    f"finesweep, {N_TOGETHER} trials together": lambda folder: writer_arm(folder, n_together=N_TOGETHER),
    OPTUNA: lambda folder: optuna_arm(folder, is_tuned=False),
    "Optuna on SQLite, WAL": lambda folder: optuna_arm(folder, is_tuned=True),
}


# --- tables ------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, folder: Path) -> None:
    settings = {"trials": options.trials, "stored": options.stored, "seed": options.seed}
    arms = [LOOKING, *STORING]
    ran = {arm: harness.run_arm(__file__, arm, folder / f"arm-{place}", settings) for place, arm in enumerate(arms)}
    looked = ran[LOOKING].answer
    in_process_s, command_s = looked["in_process_s"], looked["command_s"]
    looking = tuple((verb, *map(number, (in_process_s.get(verb), command_s.get(verb)))) for verb in COMMANDS)
    taken_s = {arm: ran[arm].answer["s"] / options.stored for arm in STORING}
    storing = tuple((arm, *map(number, (N_REPORTS / s, s, ratio(s, taken_s[FINESWEEP])))) for arm, s in taken_s.items())
    harness.finish(
        "database",
        tables=(
            Table(
                f"Looking at {options.trials:,} trials of {N_REPORTS} reports",
                ("verb", "s in a process", "s as a command"),
                looking,
            ),
            Table(
                f"Storing {options.stored:,} trials of {N_REPORTS} reports",
                ("arm", "reports per s", "s per trial", "ratio"),
                storing,
            ),
        ),
        aims=(
            Aim("seconds of the slowest verb, in a process", MOST_S, max(in_process_s.values()), at_most=True),
            Aim("seconds of the slowest verb, as a command", MOST_S, max(command_s.values()), at_most=True),
        ),
        notes=(
            f"the database has {looked['mib']:,.0f} MiB and was made in {looked['made_s']:,.0f} s; "
            f"seed {options.seed}; medians of {REPEATS}; a command's output goes nowhere, its start and imports count",
            "what is stored survives the death of any process; of a power cut only what Optuna on SQLite stores as it "
            "comes, with an fsync a write: the others may lose the last moments, never the order",
        ),
        ran=ran,
        results_dir=options.results_dir,
    )


def main() -> None:
    harness.serve({LOOKING: looking_arm, **STORING})
    parser = harness.options(__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="in the database that is looked at")
    parser.add_argument("--stored", type=int, default=300, help="trials that each arm stores")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.pop("FINESWEEP_RESULTS", None)
    with tempfile.TemporaryDirectory() as temporary:
        measure(options, Path(temporary))


if __name__ == "__main__":
    main()
