"""How long until something trains: from launching the command to the end of the first optimizer step.

    python benchmarks/first_step.py                 # three launches of each arm, the median counts

A step is 8 rows of full fine-tuning. Of peers the moment is taken by a callback at the end of the step; of finesweep,
launched as a user does by `finesweep run`, by a metric of the user's own in the evaluation of 16 rows that follows, so
a little late. Its first launch finds no cache of tokenised rows, the others do. The floor is the bare sum of what
nobody can spare: Ray's start, and one worker's imports of torch, transformers and datasets.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import comparison
import harness
import ours
from harness import Ran
from tables import Aim, Table, number, ratio
from workload import draw_configurations, make_workload, read_workload

AIM = 1.3
BATCH_SIZE = 8
BATCH_SIZES = {"type": "categorical", "choices": [4, BATCH_SIZE]}  # a report cannot come within a batch
FLOOR = "Ray's start + one worker's imports"

METRIC = '''"""A metric that notes when it is first asked: right after the first optimizer step."""

import time
from pathlib import Path


def moment(predictions, labels):
    path = Path(__file__).with_name("first.txt")
    if not path.exists():
        path.write_text(repr(time.time()))
    return 0.0
'''


def finesweep_arm(folder: Path) -> dict[str, float]:
    """Launch `finesweep run` and return when that was, and when the first step was over."""
    workload = read_workload(harness.settings_of(folder))
    (folder / "first_moment.py").write_text(METRIC, encoding="utf-8")
    sweep = ours.training_sweep(
        workload,
        eval_every=BATCH_SIZE,
        evaluation={"metrics": {"moment": "first_moment:moment"}},
        study={"objective": ours.OBJECTIVE, "parameters": {**ours.SPACE, "batch_size": BATCH_SIZES}},
    )
    path = ours.write_sweep(folder, sweep)
    command = [sys.executable, "-m", "finesweep", "run", str(path), "--results", str(folder / "finesweep.db")]
    launched_at = time.time()
    subprocess.run(command, check=True)
    return {"launched_at": launched_at, "at": float((folder / "first.txt").read_text(encoding="utf-8"))}


def peer_arm(peer: str, folder: Path) -> dict[str, float]:
    """Run a peer's script; the step's end is noted by its callback."""
    import peers

    workload = read_workload(harness.settings_of(folder))
    peers.PEERS[peer](workload, folder)
    return {"at": min(note["at"] for note in peers.notes_of(folder) if note["event"] == "first step")}


def floor_arm(folder: Path) -> dict[str, float]:
    """Start Ray, then have one worker import what it trains with."""
    import ray

    ray.init(num_cpus=harness.settings_of(folder)["slots"], include_dashboard=False, log_to_driver=False)
    started_at = time.time()

    @ray.remote
    def imports() -> float:
        began_s = time.perf_counter()
        import datasets  # noqa: F401
        import torch  # noqa: F401
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer  # noqa: F401

        return time.perf_counter() - began_s

    imports_s = ray.get(imports.remote())
    ray.shutdown()
    return {"started_at": started_at, "imports_s": imports_s}


ARMS: dict[str, harness.Arm] = {
    FLOOR: floor_arm,
    comparison.FINESWEEP: finesweep_arm,
    **{peer: lambda folder, peer=peer: peer_arm(peer, folder) for peer in comparison.PEERS},
}


def seconds(arm: str, ran: Ran) -> float:
    answer = ran.answer
    if arm == FLOOR:
        return float(answer["started_at"] - ran.launched_at + answer["imports_s"])
    return float(answer["at"] - answer.get("launched_at", ran.launched_at))


def main() -> None:
    harness.serve(ARMS)
    parser = harness.options(__doc__)
    parser.add_argument("--launches", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ran: dict[str, Ran] = {}
    taken: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        workload = make_workload(
            folder,
            head_only=False,
            train_rows=64,
            validation_rows=16,
            configurations=draw_configurations(
                1, learning_rates=(1e-5, 1e-4), batch_sizes=(BATCH_SIZE,), fewest_steps=8, seed=options.seed
            ),
            epochs=1,
            seed=options.seed,
            slots=options.slots,
        )
        cache = ours.cache_in(folder / "cache")
        for launch in range(options.launches):
            for place, arm in enumerate(ARMS):
                one = harness.run_arm(
                    __file__, arm, folder / f"arm-{launch}-{place}", workload.values(), environment=cache
                )
                ran[f"{arm}, launch {launch}"] = one
                taken[arm].append(seconds(arm, one))
    medians = {arm: statistics.median(values) for arm, values in taken.items()}
    rows = tuple(
        (
            arm,
            *map(number, (median, ratio(median, medians[FLOOR]), ratio(median, medians[comparison.FINESWEEP]))),
            ", ".join(map(number, taken[arm])),
        )
        for arm, median in medians.items()
    )
    columns = ("arm", "s, median", "of the floor", "of finesweep", "each launch")
    harness.finish(
        "first_step",
        tables=(Table("From launch to the end of the first optimizer step", columns, rows),),
        aims=(Aim(f"finesweep / {FLOOR}", AIM, medians[comparison.FINESWEEP] / medians[FLOOR], at_most=True),),
        notes=(f"seed {options.seed}; finesweep's first launch tokenises, the others find its cache; peers tokenise",),
        ran=ran,
        results_dir=options.results_dir,
    )


if __name__ == "__main__":
    main()
