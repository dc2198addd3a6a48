"""What a sweep costs beside the training: trials that only report, ten times each.

    python benchmarks/empty_trials.py                    # 60 trials on 2 slots, all arms
    python benchmarks/empty_trials.py --trials 10000     # finesweep alone: does a trial cost more, the more there were?

Arms:

    finesweep                        Ray Tune with warm workers, TPE, every report durable, Optuna's tables complete
    Ray Tune + OptunaSearch          a function trainable, OptunaSearch on SQLite: as Ray's documentation has it
    the same, actors reused          a class trainable with reuse_actors, OptunaSearch on SQLite
    the same, no storage             and OptunaSearch in memory: nothing is kept
    Optuna                           study.optimize on SQLite, one process, nothing is scheduled

Seconds per trial run from the first trial's end to the last one's. What comes after that until all is stopped stands
beside it, of finesweep with what is left to copy into Optuna's tables; starting Ray is not counted.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import ours
from tables import Aim, Table, number, ratio

Answer = dict[str, Any]  # ends: when each trial ended; over_at: when all was stopped; seconds since the epoch

N_REPORTS = 10
LOW, HIGH = 1e-5, 1e-1  # of the learning rate, log-uniform
WINDOW = 100  # trials over which the cost of one is averaged where growth is looked at
MANY = 1000  # from so many trials on, finesweep runs alone

TRAINER = f'''"""A trainer of one's own that only reports."""


def train(trial, reporter):
    for step in range(1, {N_REPORTS} + 1):
        accuracy = step / {N_REPORTS} - abs(trial.configuration["learning_rate"] - 1e-3)
        if reporter.report(examples_seen=step * 100, metrics={{"accuracy": accuracy}}).must_return:
            return
'''


def value(learning_rate: float, step: int) -> float:
    return step / N_REPORTS - abs(learning_rate - 1e-3)


# --- finesweep -----------------------------------------------------------------------------------------------------


def finesweep_arm(folder: Path) -> Answer:
    settings = harness.settings_of(folder)
    (folder / "empty_trainer.py").write_text(TRAINER, encoding="utf-8")
    sweep = {
        "trainer": "empty_trainer:train",
        "training": {"eval_every": 100, "total_examples": 100 * N_REPORTS},
        "study": {
            "objective": ours.OBJECTIVE,
            "parameters": {"learning_rate": {"type": "float", "low": LOW, "high": HIGH, "log": True}},
        },
        "budget": {"trials": settings["trials"]},
        "resources": {"devices": "cpu", "max_parallel": settings["slots"]},
    }
    watch = ours.Watch()
    ours.run_sweep(ours.write_sweep(folder, sweep), folder, view=watch)
    ends = [note["at"] for note in watch.notes if note["event"] == "end"]
    reports = sum(note["event"] == "report" for note in watch.notes)
    assert reports == N_REPORTS * settings["trials"], f"{reports} reports were stored"
    return {"ends": ends, "over_at": time.time()}


# --- the peers -----------------------------------------------------------------------------------------------------


def function_trainable(config: dict[str, Any]) -> None:
    from ray import tune

    for step in range(1, N_REPORTS + 1):
        tune.report({"accuracy": value(config["learning_rate"], step)})


def class_trainable() -> Any:
    from ray import tune

    class Reporting(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.config, self.n_steps = config, 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self.n_steps += 1
            return {"accuracy": value(self.config["learning_rate"], self.n_steps), "done": self.n_steps == N_REPORTS}

    return Reporting


def tune_arm(folder: Path, trainable: Any, *, storage: bool, reuse_actors: bool) -> Answer:
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    settings = harness.settings_of(folder)
    ray.init(num_cpus=settings["slots"], include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ends: list[float] = []

    class Clock(tune.Callback):
        def on_trial_complete(self, **_: Any) -> None:
            ends.append(time.time())

    kept = {"storage": optuna.storages.RDBStorage(f"sqlite:///{folder}/optuna.db")} if storage else {}
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"learning_rate": tune.loguniform(LOW, HIGH)},
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(metric="accuracy", mode="max", seed=settings["seed"], **kept),
            num_samples=settings["trials"],
            max_concurrent_trials=settings["slots"],
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=0,
            callbacks=[Clock()],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a class would have to write one
        ),
    )
    results = tuner.fit()
    if results.errors:
        raise results.errors[0]
    ray.shutdown()
    return {"ends": ends, "over_at": time.time()}


def optuna_arm(folder: Path) -> Answer:
    import optuna

    settings = harness.settings_of(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/optuna.db",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=settings["seed"]),
    )
    ends: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        learning_rate = trial.suggest_float("learning_rate", LOW, HIGH, log=True)
        for step in range(1, N_REPORTS + 1):
            trial.report(value(learning_rate, step), step)
        return value(learning_rate, N_REPORTS)

    study.optimize(objective, n_trials=settings["trials"], callbacks=[lambda *_: ends.append(time.time())])
    return {"ends": ends, "over_at": time.time()}


FINESWEEP, AS_PEOPLE_RUN_IT = "finesweep", "Ray Tune + OptunaSearch on SQLite"
ARMS: dict[str, harness.Arm] = {
    FINESWEEP: finesweep_arm,
    AS_PEOPLE_RUN_IT: lambda folder: tune_arm(folder, function_trainable, storage=True, reuse_actors=False),
    "the same, actors reused": lambda folder: tune_arm(folder, class_trainable(), storage=True, reuse_actors=True),
    "the same, no storage": lambda folder: tune_arm(folder, class_trainable(), storage=False, reuse_actors=True),
    "Optuna on SQLite, one process": optuna_arm,
}


# --- tables ----------------------------------------------------------------------------------------------------------


def seconds_per_trial(ends: Sequence[float]) -> float:
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def seconds_to_stop(answer: Answer) -> float:
    return float(answer["over_at"] - answer["ends"][-1])


def seconds_around(ends: Sequence[float], trial: int) -> float:
    """Average the seconds per trial over the window around a trial, or the last window where it is the last."""
    last = min(trial + WINDOW // 2, len(ends) - 1)
    return seconds_per_trial(ends[last - WINDOW : last + 1])


def compare(options: argparse.Namespace, folder: Path) -> None:
    settings = {"trials": options.trials, "slots": options.slots, "seed": options.seed}
    ran = {arm: harness.run_arm(__file__, arm, folder / f"arm-{place}", settings) for place, arm in enumerate(ARMS)}
    taken = {arm: seconds_per_trial(one.answer["ends"]) for arm, one in ran.items()}
    rows = tuple(
        (
            arm,
            *map(number, (seconds, ratio(seconds, taken[FINESWEEP]), N_REPORTS / seconds)),
            *map(number, (seconds_to_stop(ran[arm].answer), ran[arm].cost.wall_s, ran[arm].cost.cpu_s)),
        )
        for arm, seconds in taken.items()
    )
    columns = ("arm", "s per trial", "ratio", "reports per s", "s to stop", "s in all", "CPU-s in all")
    harness.finish(
        "empty_trials",
        tables=(Table(f"{options.trials} empty trials of {N_REPORTS} reports", columns, rows),),
        aims=(
            Aim("seconds per trial, finesweep", 0.1, taken[FINESWEEP], at_most=True),
            Aim(f"rate of trials, finesweep / {AS_PEOPLE_RUN_IT}", 20, taken[AS_PEOPLE_RUN_IT] / taken[FINESWEEP]),
        ),
        notes=(f"{options.slots} slots, TPE with seed {options.seed}; reports of `no storage` are not durable",),
        ran=ran,
        results_dir=options.results_dir,
    )


def growth(options: argparse.Namespace, folder: Path) -> None:
    settings = {"trials": options.trials, "slots": options.slots, "seed": options.seed}
    ran = {FINESWEEP: harness.run_arm(__file__, FINESWEEP, folder / "arm", settings, timeout_s=6 * 3600)}
    ends = ran[FINESWEEP].answer["ends"]
    places = [trial for trial in (100, 300, 1000, 3000, 10_000, 30_000) if trial < options.trials] + [options.trials]
    first = seconds_around(ends, places[0])
    rows = tuple(
        (f"{trial:,}", *map(number, (seconds, seconds / first, N_REPORTS / seconds)))
        for trial in places
        for seconds in (seconds_around(ends, trial),)
    )
    columns = ("around trial", "s per trial", "ratio", "reports per s")
    last = seconds_around(ends, options.trials)
    harness.finish(
        "empty_trials_growth",
        tables=(Table(f"finesweep, {options.trials:,} empty trials: growth", columns, rows),),
        aims=(Aim(f"cost of the {options.trials:,}th trial / of the 100th", 1.5, last / first, at_most=True),),
        notes=(
            f"means over windows of {WINDOW} trials; {options.slots} slots, TPE",
            f"{ends[-1] - ends[0]:,.0f} s in all, {seconds_per_trial(ends):.3f} s a trial, "
            f"{seconds_to_stop(ran[FINESWEEP].answer):.1f} s to stop; "
            f"{ran[FINESWEEP].cost.driver_mib:,.0f} MiB in the driver at the most",
        ),
        ran={FINESWEEP: replace(ran[FINESWEEP], answer={"every 100th trial's end": ends[::WINDOW]})},
        results_dir=options.results_dir,
    )


def main() -> None:
    harness.serve(ARMS)
    parser = harness.options(__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        (growth if options.trials >= MANY else compare)(options, Path(temporary))


if __name__ == "__main__":
    main()
