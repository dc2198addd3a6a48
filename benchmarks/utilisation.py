"""Short trials: what share of the slots' time goes into training?

    python benchmarks/utilisation.py                # 12 trials of 20 optimizer steps

Full fine-tuning of MiniLM for 20 steps of 8 rows and one evaluation. A slot's time is spent training from the beginning
of a trial's training to the end of its last evaluation; the share is the sum of that over all trials, divided by the
slots times the time from the first trial's beginning to the last one's end. What comes before the first trial trains,
and is paid once, is left to first_step.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comparison
import harness
import ours
from tables import Aim, Table, number, ratio
from workload import draw_configurations, make_workload

BATCH_SIZE, STEPS = 8, 20
AIM = 0.9
ARMS = (comparison.FINESWEEP, "Ray Tune + Trainer", "hyperparameter_search, Ray")


def spans(trials: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return when each trial began to train and ended, in seconds since the epoch.

    finesweep tells for how long a trial trained, and its database when it ended.
    """
    if "began_at" in trials[0]:
        return [(trial["began_at"], trial["at"]) for trial in trials]
    return [(trial["ended_at"] - trial["training_s"], trial["ended_at"]) for trial in trials]


def share(trained: Sequence[tuple[float, float]], slots: int) -> float:
    """Return the share of slot time that was spent training between the first beginning and the last end."""
    begins, ends = zip(*trained, strict=True)
    return sum(end - begin for begin, end in trained) / (slots * (max(ends) - min(begins)))


def main() -> None:
    harness.serve(comparison.ARMS)
    parser = harness.options(__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--validation-rows", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    configurations = draw_configurations(
        options.trials, learning_rates=(1e-5, 1e-3), batch_sizes=(BATCH_SIZE,), fewest_steps=STEPS, seed=options.seed
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        workload = make_workload(
            folder,
            head_only=False,
            train_rows=BATCH_SIZE * STEPS,
            validation_rows=options.validation_rows,
            configurations=configurations,
            epochs=1,
            seed=options.seed,
            slots=options.slots,
        )
        cache = ours.cache_in(folder / "cache")
        ran = {
            arm: harness.run_arm(__file__, arm, folder / f"arm-{place}", workload.values(), environment=cache)
            for place, arm in enumerate(ARMS)
        }
    found = {arm: spans(one.answer["trials"]) for arm, one in ran.items()}
    shares = {arm: share(trained, options.slots) for arm, trained in found.items()}
    rows = []
    for arm, trained in found.items():
        trained_s = sum(end - begin for begin, end in trained) / len(trained)
        window_s = max(end for _, end in trained) - min(begin for begin, _ in trained)
        between_s = options.slots * window_s / len(trained) - trained_s
        cells = (shares[arm], ratio(shares[comparison.FINESWEEP], shares[arm]), trained_s, between_s)
        rows.append((arm, *map(number, cells), number(ran[arm].cost.wall_s)))
    columns = ("arm", "share of slot time", "ratio", "s of training a trial", "s of a slot beside it", "s in all")
    harness.finish(
        "utilisation",
        tables=(Table(f"{options.trials} trials of {STEPS} optimizer steps", columns, tuple(rows)),),
        aims=(Aim("share of slot time spent training, finesweep", AIM, shares[comparison.FINESWEEP]),),
        notes=(f"seed {options.seed}; {options.slots} slots; {options.validation_rows} validation rows",),
        ran=ran,
        results_dir=options.results_dir,
    )


if __name__ == "__main__":
    main()
