"""Head-only sweep on a frozen encoder: what it costs to try N configurations for E epochs.

    python benchmarks/head_sweep.py                           # 16 trials x 3 epochs
    python benchmarks/head_sweep.py --trials 64 --epochs 10 --peers "Ray Tune + Trainer"

MiniLM with a new classification head, 1,000 training and 250 validation rows, fixed configurations, no pruning, an
evaluation at the end of each epoch. The backbone is frozen and in evaluation mode in every arm, so it says the same of
a row in every epoch of every trial. Computing that once costs a share of 1 / (trials x epochs): the bound of what can
be saved. finesweep runs cold, then on the warm cache, then without training heads together (`resources.stack: 1`).
Peers run the first `--peer-trials` configurations, and what all would have cost is extrapolated.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import comparison
import harness
from tables import Aim, Spent, Table, number, ratio
from workload import draw_configurations, make_workload

AIMS = {(16, 3): 43, (64, 10): 576}  # 0.9 of the bound
WARM_AIM = 1000
BATCH_SIZES = (16, 32)


def main() -> None:
    harness.serve(comparison.ARMS)
    options = read_options()
    configurations = draw_configurations(
        options.trials,
        learning_rates=(1e-3, 1e-2),
        batch_sizes=BATCH_SIZES,
        fewest_steps=options.epochs * (options.train_rows // max(BATCH_SIZES)),
        seed=options.seed,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        workload = make_workload(
            folder,
            head_only=True,
            train_rows=options.train_rows,
            validation_rows=options.validation_rows,
            configurations=configurations,
            epochs=options.epochs,
            seed=options.seed,
            slots=options.slots,
        )
        arms = (comparison.FINESWEEP, comparison.WARM, comparison.UNSTACKED)
        ran = comparison.run(
            __file__, folder, workload, peer_trials=options.peer_trials, arms=arms, peers=options.peers
        )
    spent = {arm: comparison.spent(one, options.trials) for arm, one in ran.items()}
    bound = options.trials * options.epochs
    name = (
        "head_sweep" if (options.trials, options.epochs) == (16, 3) else f"head_sweep_{options.trials}x{options.epochs}"
    )
    harness.finish(
        name,
        tables=(
            comparison.cost_table(f"{options.trials} trials x {options.epochs} epochs: cost", spent),
            saving_table(spent, bound),
            comparison.agreement_table(ran),
        ),
        aims=aims(spent, options.trials, options.epochs),
        notes=(
            f"seed {options.seed}; {options.train_rows:,} training and {options.validation_rows} validation rows; "
            f"{options.slots} trials at once, Optuna's backend one after another on all cores",
            *comparison.notes(spent, options.peer_trials),
        ),
        ran=ran,
        results_dir=options.results_dir,
    )


def saving_table(spent: dict[str, Spent], bound: int) -> Table:
    """Compare each peer's CPU-seconds of training with ours, cold and warm, and with the bound."""
    rows = []
    for peer in (peer for peer in comparison.PEERS if peer in spent):
        cold, warm = (against(spent, peer, arm) for arm in (comparison.FINESWEEP, comparison.WARM))
        share = None if cold is None else cold / bound
        rows.append((peer, *(number(value) for value in (cold, share, warm))))
    columns = ("CPU-seconds of training against", "ratio", f"of the bound {bound}", "ratio, warm cache")
    return Table("What computing features once saves", columns, tuple(rows))


def against(spent: dict[str, Spent], peer: str, arm: str) -> float | None:
    return ratio(spent[peer].training_cpu_s, spent[arm].training_cpu_s) if peer in spent else None


def aims(spent: dict[str, Spent], trials: int, epochs: int) -> tuple[Aim, ...]:
    """Hold the aims to the honest peer, Ray Tune + Trainer."""
    peer = comparison.PEERS[0]
    what = f"CPU-seconds of training, {peer} / finesweep"
    bound = AIMS.get((trials, epochs), 0.9 * trials * epochs)
    return (
        Aim(what, bound, against(spent, peer, comparison.FINESWEEP)),
        Aim(f"{what}, warm cache", WARM_AIM, against(spent, peer, comparison.WARM)),
    )


def read_options() -> argparse.Namespace:
    parser = harness.options(__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--peer-trials", type=int, default=4, help="that peers run; the rest is extrapolated")
    parser.add_argument("--peers", nargs="+", choices=comparison.PEERS, default=comparison.PEERS)
    parser.add_argument("--train-rows", type=int, default=1000)
    parser.add_argument("--validation-rows", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
