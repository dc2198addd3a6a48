"""What differs between the surroundings in which a trial was trained and those here: versions, rows, model, device.

In: what was written down then, what is found now. Out: lines to be read before anything is compared.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

ROUNDING = 1e-4  # of a metric: what sums in another order come to over a training on a CPU
# By which a number may change; the others of a provenance search and schedule.
_COUNTED = ("finesweep", "torch", "transformers", "datasets", "peft", "accelerate", "tokenizers", "numpy")


@dataclass(frozen=True, slots=True)
class Difference:
    what: str
    then: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.what}: {_shown(self.then)} then, {_shown(self.now)} now"


@dataclass(frozen=True, slots=True)
class Here:
    """What is found here, as far as it is known."""

    data_fingerprint: str | None
    model_fingerprint: str | None
    device: str  # as facts of an attempt name it: cpu, or the name of a GPU
    threads: int
    code_fingerprint: str | None = None  # of a trainer of the user's own


def versions_here() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: _version(name) for name in _COUNTED}}


def differences(provenance: Mapping[str, Any], facts: Mapping[str, Any], here: Here) -> tuple[Difference, ...]:
    """Hold what is known of a trial against what is here; what was not written down then is left out."""
    versions, now = provenance.get("versions") or {}, versions_here()
    pairs: list[tuple[str, Any, Any]] = [(name, versions.get(name), now[name]) for name in now]
    pairs += [
        ("data fingerprint", provenance.get("data_fingerprint"), here.data_fingerprint),
        ("model fingerprint", provenance.get("model_fingerprint"), here.model_fingerprint),
        ("code fingerprint", provenance.get("code_fingerprint"), here.code_fingerprint),
        ("device", facts.get("device"), here.device),
        ("threads", threads_then(provenance, facts), here.threads),
    ]
    on_cpu = here.device == "cpu" and facts.get("device", "cpu") == "cpu"
    if on_cpu:  # kernels are chosen by what the processor can
        pairs.append(("platform", provenance.get("platform"), platform.platform()))
    return tuple(
        Difference(what, then, found)
        for what, then, found in pairs
        if then is not None and then != found and (what != "threads" or on_cpu)
    )


def threads_then(provenance: Mapping[str, Any], facts: Mapping[str, Any]) -> int | None:
    """Tell with how many threads a trial computed: on a CPU sums depend on it."""
    devices = provenance.get("devices")
    planned = devices.get("cpus_per_trial") if isinstance(devices, Mapping) else None
    threads = facts.get("threads", planned)
    return threads if isinstance(threads, int) and threads > 0 else None


def was_stacked(facts: Mapping[str, Any]) -> bool:
    """Tell whether a trial was computed together with others: its sums were made in another order than by itself."""
    n_others = facts.get("stacked_with")
    return isinstance(n_others, int) and n_others > 0


def changed(found: Sequence[Difference], *what: str) -> bool:
    return any(difference.what in what for difference in found)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
