"""What a sweep has cost: hours of slots and of GPUs, from the attempts at its trials, and the examples they saw.

A slot's time is counted once, however many trials were trained in it as one computation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from finesweep.results.frames import Results
from finesweep.spec.sweep import RemoteSweep

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Hours that slots were training, and of these the hours of GPUs: a share of a GPU counts as that share."""

    slot_hours: float
    gpu_hours: float


def sweep_cost(results: Results, sweep: str) -> Cost:
    """Add up what all attempts of a sweep took; those that waited for a server trained nothing here.

    Raises SweepNameError.
    """
    spec = results.spec(sweep)
    if isinstance(spec, RemoteSweep):
        return Cost(slot_hours=0.0, gpu_hours=0.0)
    return cost_of(results.attempts(sweep), gpus_per_trial=spec.resources.gpus_per_trial)


def examples_trained(trials: pd.DataFrame) -> int:
    """Add up the examples of the trials that were trained; those that took over a result cost none."""
    return int(trials.loc[trials["reused_from"].isna(), "examples_seen"].sum())


def cost_of(attempts: pd.DataFrame, *, gpus_per_trial: float) -> Cost:
    """Add up the attempts of one sweep, a frame like `Results.attempts`.

    An attempt that has not ended counts nothing yet. A worker is known by its node and process.
    """
    busy: dict[tuple[Any, Any], list[tuple[float, float]]] = {}
    on_gpu = set()
    over = attempts[attempts["ended_at"].notna()]
    begun_s, ended_s = (over[name].dt.as_unit("ns").astype("int64") / 1e9 for name in ("started_at", "ended_at"))
    for begun, ended, facts in zip(begun_s, ended_s, over["facts"], strict=True):
        worker = _worker(facts)
        busy.setdefault(worker, []).append((begun, ended))
        if facts.get("gpu_ids") or _is_gpu(facts.get("device")):
            on_gpu.add(worker)
    hours = {worker: _covered_s(spans) / SECONDS_PER_HOUR for worker, spans in busy.items()}
    return Cost(
        slot_hours=sum(hours.values()),
        gpu_hours=gpus_per_trial * sum(taken for worker, taken in hours.items() if worker in on_gpu),
    )


def _worker(facts: Mapping[str, Any]) -> tuple[Any, Any]:
    return facts.get("node_id", facts.get("node")), facts.get("pid")


def _is_gpu(device: Any) -> bool:
    """Tell whether a device is none of `cpu`: a GPU goes by the name of its make."""
    return device is not None and not str(device).lower().startswith("cpu")


def _covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Measure the union of spans of time."""
    covered, until = 0.0, float("-inf")
    for begun, ended in sorted(spans):
        covered += max(0.0, ended - max(begun, until))
        until = max(until, ended)
    return covered
