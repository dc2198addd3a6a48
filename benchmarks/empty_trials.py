"""What a sweep costs beside the training: trials that only report, ten times each.

    python benchmarks/empty_trials.py [--trials 60] [--slots 2]

Arms, one after another in processes of their own, same machine, same number of trials:

    finesweep   Ray Tune with warm workers, TPE, every report durable, Optuna's tables complete at the end
    ray-optuna  Ray Tune, function trainable, OptunaSearch on SQLite, as Ray's documentation has it
    optuna      study.optimize on SQLite, one process

Seconds per trial are taken from the first to the last trial's end, without the start of Ray; the ratio is to finesweep.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

N_REPORTS = 10


def value(learning_rate: float, step: int) -> float:
    return step / N_REPORTS - abs(learning_rate - 1e-3)


# --- finesweep ---------------------------------------------------------------------------------------------------


class ReportingTrainer:
    """Ten reports and nothing else."""

    def run(self, trial, reporter):
        from finesweep.events import AttemptResult, Decision, Ending, Report

        for step in range(1, N_REPORTS + 1):
            metrics = {"accuracy": value(trial.configuration["learning_rate"], step)}
            report = Report(step * 100, metrics, step * 100, final=step == N_REPORTS)
            if reporter.report(report) is not Decision.CONTINUE:
                return AttemptResult(Ending.STOPPED)
        return AttemptResult(Ending.DONE)


def finesweep_arm(folder: Path, n_trials: int, n_slots: int) -> list[float]:
    from finesweep.driver import Driver
    from finesweep.events import Grid, TrialFinished
    from finesweep.results.lease import Holder
    from finesweep.results.writer import open_writer
    from finesweep.scheduling.ray_tune import RayBackend
    from finesweep.scheduling.slots import Slots
    from finesweep.search.broker import TrialBroker
    from finesweep.spec.sweep import read_sweep
    from finesweep.views.live import PlainView

    spec = read_sweep(
        {
            "name": "empty",
            "model": "none",
            "task": "classification",
            "data": {"train": "none.csv", "validation": "none.csv"},
            "budget": {"trials": n_trials},
            "study": {
                "objective": {"metric": "accuracy", "direction": "maximize"},
                "parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}},
            },
        }
    )
    grid = Grid("examples", 100, 1000)
    ends: list[float] = []
    with open_writer(folder / "finesweep.db") as writer:
        writer.create_sweep(spec, grid=grid, provenance={})
        writer.acquire(spec.name, Holder.this_process())

        def make_broker(listener):
            return TrialBroker(spec.study, name=spec.name, grid=grid, n_trials=n_trials, retries=0, listener=listener)

        def note(events):
            ends.extend(time.perf_counter() for event in events if isinstance(event, TrialFinished))

        view = PlainView(lambda line: None)
        driver = Driver(spec, writer=writer, make_broker=make_broker, listeners=[note], view=view)
        slots = Slots((), 0.0, 1, n_slots)
        driver.drive(RayBackend(ReportingTrainer, spec.resources, slots, log_dir=folder / "artifacts"))
        ends[-1] = time.perf_counter()  # the mirror is complete now
    return ends


# --- the peers ---------------------------------------------------------------------------------------------------


def ray_optuna_arm(folder: Path, n_trials: int, n_slots: int) -> list[float]:
    import logging

    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    ray.init(num_cpus=n_slots, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ends: list[float] = []

    class Clock(tune.Callback):
        def on_trial_complete(self, **_):
            ends.append(time.perf_counter())

    def trainable(config):
        for step in range(1, N_REPORTS + 1):
            tune.report({"accuracy": value(config["learning_rate"], step)})

    search = OptunaSearch(metric="accuracy", mode="max", storage=optuna.storages.RDBStorage(f"sqlite:///{folder}/o.db"))
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"learning_rate": tune.loguniform(1e-5, 1e-1)},
        tune_config=tune.TuneConfig(search_alg=search, num_samples=n_trials, max_concurrent_trials=n_slots),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0, callbacks=[Clock()]),
    )
    tuner.fit()
    ray.shutdown()
    return ends


def optuna_arm(folder: Path, n_trials: int, n_slots: int) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{folder}/o.db", direction="maximize")
    ends: list[float] = []

    def objective(trial):
        learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
        for step in range(1, N_REPORTS + 1):
            trial.report(value(learning_rate, step), step)
        return value(learning_rate, N_REPORTS)

    study.optimize(objective, n_trials=n_trials, callbacks=[lambda *_: ends.append(time.perf_counter())])
    return ends


ARMS = {"finesweep": finesweep_arm, "ray-optuna": ray_optuna_arm, "optuna": optuna_arm}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        with tempfile.TemporaryDirectory() as folder:
            ends = ARMS[options.arm](Path(folder), options.trials, options.slots)
        print(json.dumps((ends[-1] - ends[0]) / (len(ends) - 1)))
        return
    seconds = {}
    for arm in ARMS:
        command = [
            sys.executable,
            __file__,
            "--arm",
            arm,
            "--trials",
            str(options.trials),
            "--slots",
            str(options.slots),
        ]
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        seconds[arm] = float(ran.stdout.splitlines()[-1])
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ray", "optuna"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    print(f"{options.trials} trials x {N_REPORTS} reports on {options.slots} slots, TPE with its default seed\n")
    print(f"{'arm':<12}{'s per trial':>12}{'ratio':>8}")
    for arm, taken in seconds.items():
        print(f"{arm:<12}{taken:>12.3f}{taken / seconds['finesweep']:>8.1f}")


if __name__ == "__main__":
    main()
