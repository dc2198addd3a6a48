"""Measure what verifications promise, on simulated trainings whose truth is known: the tables of docs/verification.md.

    python benchmarks/verification.py [--n 10000] [--seed 0]

In: worlds. Out: for each, how often intervals cover the truth, how far shown values lie from it, what a race drops.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping

from finesweep.simulation.repeats import Measured, World, measure

WORLDS: Mapping[str, World] = {
    "30 configurations, true values spread like repeats": World(),
    "the same, one seed in the race": World(n_race_seeds=1),
    "the same, the best alone: no race": World(top=1),
    "the same, five race over five seeds": World(top=5, n_race_seeds=5),
    "the same, ten seeds of the winner": World(n_seeds=10),
    "true values that hardly differ (0.3 of a repeat's spread)": World(spread=0.3),
    "validation rows flatter some (spread 1)": World(rows_effect=1.0),
    "half of a repeat's variance is the seed's": World(seed_effect=math.sqrt(0.5)),
    "one training in ten comes out worse by 4": World(share_bad=0.1),
    "two of three are behind by 6": World(behind=6.0),
    "the same, five seeds in the race": World(behind=6.0, n_race_seeds=5),
    "two of three are behind by 0.5, five seeds in the race": World(behind=0.5, n_race_seeds=5),
}
TABLES: tuple[Mapping[str, str], ...] = (
    {
        "mean_covered": "the mean",
        "training_covered": "one more training",
        "difference_covered": "winner less baseline",
        "race_covered": "all means of the race at once",
    },
    {
        "search_best_bias": "the search, of its best",
        "search_bias": "the search, of the winner",
        "race_bias": "the race, of the winner",
        "validation_bias": "new seeds, validation rows",
        "shown_bias": "new seeds, test rows: what is shown",
    },
    {
        "best_dropped": "the best is dropped",
        "loser_dropped": "another one is dropped",
        "best_won": "the best wins",
        "trainings": "trainings",
    },
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000, help="replications of each world")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    measured = {name: measure(world, n=asked.n, seed=asked.seed) for name, world in WORLDS.items()}
    for columns in TABLES:
        print(f"| world | {' | '.join(columns.values())} |")
        print(f"|---|{'---|' * len(columns)}")
        for name, found in measured.items():
            print(f"| {name} | {' | '.join(_text(found, column) for column in columns)} |")
        print()


def _text(found: Measured, column: str) -> str:
    value = getattr(found, column)
    if column == "trainings":
        return f"{value:.1f}"
    return f"{value:+.3f}" if column.endswith("_bias") else f"{100 * value:.1f} %"


if __name__ == "__main__":
    main()
