"""Full fine-tuning of a small model: the same configurations, then the same search with pruning.

    python benchmarks/full_sweep.py                 # fixed configurations, no pruning
    python benchmarks/full_sweep.py --search        # pruning on: time to the same best metric
    python benchmarks/full_sweep.py --search --seeds 0 1 2

MiniLM, every weight moves. The first part trains the same configurations in every arm: equal results, what do they
cost? The second lets each arm search the same space with as many trials, as each prunes by itself: finesweep with TPE
and ASHA at a report every third of an epoch; `hyperparameter_search` on Ray with random search and Ray's ASHAScheduler
at every epoch; on Optuna with its default sampler and pruner, TPE and median. An arm's time to a value runs from the
launch of its process to the first evaluation that is as good; the value is the best that all arms of a seed reached.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import comparison
import harness
import ours
from harness import Ran
from tables import Aim, Table, number, ratio
from workload import Workload, draw_configurations, make_workload, read_workload

BATCH_SIZES = (8, 16)
LEARNING_RATES = (1e-5, 1e-3)
WALL_AIM, SEARCH_AIM = 1.5, 4.0
REPORTS_PER_EPOCH = 3  # of finesweep where it prunes

Notes = list[dict[str, Any]]


# --- the same search -----------------------------------------------------------------------------------------------


def finesweep_search(folder: Path) -> Notes:
    settings = harness.settings_of(folder)
    workload = read_workload(settings["workload"])
    space = {
        "learning_rate": {"type": "float", "low": LEARNING_RATES[0], "high": LEARNING_RATES[1], "log": True},
        "batch_size": {"type": "categorical", "choices": list(BATCH_SIZES)},
        "weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
    }
    study = {
        "objective": ours.OBJECTIVE,
        "sampler": {"type": "tpe", "seed": settings["seed"]},
        "pruner": {"type": "asha"},
        "parameters": space,
    }
    sweep = ours.training_sweep(
        workload,
        eval_every=workload.n_train_rows // REPORTS_PER_EPOCH,
        study=study,
        start_with=[],
        budget={"trials": settings["trials"]},
    )
    watch = ours.Watch()
    ours.run_sweep(ours.write_sweep(folder, sweep), folder, view=watch)
    return [note for note in watch.notes if note["event"] == "report"]


def ray_search(folder: Path) -> Notes:
    import peers
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    settings = harness.settings_of(folder)
    workload = read_workload(settings["workload"])
    peers.search_with_ray(
        peers.make_searcher(workload, folder),
        folder,
        slots=workload.slots,
        space={
            "learning_rate": tune.loguniform(*LEARNING_RATES),
            "per_device_train_batch_size": tune.choice(BATCH_SIZES),
            "weight_decay": tune.uniform(0.0, 0.1),
        },
        n_trials=settings["trials"],
        search_alg=BasicVariantGenerator(random_state=settings["seed"]),
        scheduler=ASHAScheduler(metric="objective", mode="max", max_t=workload.epochs, grace_period=1),
    )
    return [note for note in peers.notes_of(folder) if note["event"] == "report"]


def optuna_search(folder: Path) -> Notes:
    import optuna
    import peers

    settings = harness.settings_of(folder)
    workload = read_workload(settings["workload"])

    def hp_space(trial: optuna.Trial) -> dict[str, Any]:
        return {
            "learning_rate": trial.suggest_float("learning_rate", *LEARNING_RATES, log=True),
            "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", BATCH_SIZES),
            "weight_decay": trial.suggest_float("weight_decay", 0.0, 0.1),
        }

    sampler = optuna.samplers.TPESampler(seed=settings["seed"])
    trainer = peers.make_searcher(workload, folder)
    peers.search_with_optuna(trainer, hp_space=hp_space, n_trials=settings["trials"], sampler=sampler)
    return [note for note in peers.notes_of(folder) if note["event"] == "report"]


SEARCHES: dict[str, harness.Arm] = {
    "finesweep, ASHA": finesweep_search,
    "hyperparameter_search, Ray, ASHA": ray_search,
    "hyperparameter_search, Optuna, median": optuna_search,
}


def best_of(ran: Ran) -> float:
    return max(note["accuracy"] for note in ran.answer)


def seconds_to(target: float, ran: Ran) -> float | None:
    """Tell how long after its launch an arm first evaluated as well; None where it never did."""
    times = [note["at"] for note in ran.answer if note["accuracy"] >= target]
    return min(times) - ran.launched_at if times else None


def search(options: argparse.Namespace) -> None:
    ran: dict[str, Ran] = {}
    per_seed: list[dict[str, float | None]] = []
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            workload = workload_of(options, folder, seed)
            settings = {"workload": workload.values(), "trials": options.trials, "seed": seed}
            cache = ours.cache_in(folder / "cache")
            of_seed = {
                arm: harness.run_arm(__file__, arm, folder / f"arm-{place}", settings, environment=cache)
                for place, arm in enumerate(SEARCHES)
            }
        ran |= {f"{arm}, seed {seed}": one for arm, one in of_seed.items()}
        target = min(map(best_of, of_seed.values()))
        times = {arm: seconds_to(target, one) for arm, one in of_seed.items()}
        per_seed.append(times)
        ours_s = times["finesweep, ASHA"]
        for arm, one in of_seed.items():
            cells = (best_of(one), target, times[arm], ratio(times[arm], ours_s), one.cost.wall_s, one.cost.cpu_s)
            rows.append((f"{arm}, seed {seed}", *map(number, cells)))
    columns = ("arm", "best accuracy", "of all", "s until then", "ratio", "s in all", "CPU-s in all")
    ratios = {
        arm: statistics.geometric_mean(
            [float(times[arm] or 0) / float(times["finesweep, ASHA"] or 1) for times in per_seed]
        )
        for arm in list(SEARCHES)[1:]
    }
    harness.finish(
        "full_sweep_search",
        tables=(Table(f"{options.trials} trials, pruned: time to the same accuracy", columns, tuple(rows)),),
        aims=tuple(
            Aim(f"time to the same accuracy, {arm} / finesweep", SEARCH_AIM, value) for arm, value in ratios.items()
        ),
        notes=(
            f"seeds {', '.join(map(str, options.seeds))}; {sizes(options)}; the ratio of aims is the geometric mean",
            "finesweep's default configurations (`try_defaults`) are off: every arm searches the same space from "
            "nothing",
        ),
        ran=ran,
        results_dir=options.results_dir,
    )


# --- the same configurations ---------------------------------------------------------------------------------------


def fixed(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        workload = workload_of(options, folder, options.seeds[0])
        ran = comparison.run(__file__, folder, workload, peer_trials=options.peer_trials or options.trials)
    spent = {arm: comparison.spent(one, options.trials) for arm, one in ran.items()}
    base, *others = spent.values()
    harness.finish(
        "full_sweep",
        tables=(
            comparison.cost_table(f"{options.trials} trials x {options.epochs} epochs, every weight: cost", spent),
            comparison.agreement_table(ran),
        ),
        aims=tuple(
            Aim(f"wall time, {arm} / finesweep", WALL_AIM, ratio(cost.wall_s, base.wall_s))
            for arm, cost in zip(comparison.PEERS, others, strict=True)
        ),
        notes=(
            f"seed {options.seeds[0]}; {sizes(options)}",
            *comparison.notes(spent, options.peer_trials or options.trials),
        ),
        ran=ran,
        results_dir=options.results_dir,
    )


def workload_of(options: argparse.Namespace, folder: Path, seed: int) -> Workload:
    configurations = draw_configurations(
        options.trials,
        learning_rates=LEARNING_RATES,
        batch_sizes=BATCH_SIZES,
        fewest_steps=options.epochs * (options.train_rows // max(BATCH_SIZES)),
        seed=seed,
    )
    return make_workload(
        folder,
        head_only=False,
        train_rows=options.train_rows,
        validation_rows=options.validation_rows,
        configurations=configurations,
        epochs=options.epochs,
        seed=seed,
        slots=options.slots,
    )


def sizes(options: argparse.Namespace) -> str:
    return (
        f"{options.train_rows} training and {options.validation_rows} validation rows, {options.epochs} epochs; "
        f"{options.slots} trials at once, Optuna's backend one after another on {os.cpu_count()} cores"
    )


def main() -> None:
    harness.serve({**comparison.ARMS, **SEARCHES})
    parser = harness.options(__doc__)
    parser.add_argument("--search", action="store_true", help="the second part")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--peer-trials", type=int, help="that peers run of the fixed ones; the rest is extrapolated")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train-rows", type=int, default=240)
    parser.add_argument("--validation-rows", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    (search if options.search else fixed)(options)


if __name__ == "__main__":
    main()
