"""Rules on what of trials stays on disk.

In: the sections that bear on it. Out: findings by key path.
"""

from __future__ import annotations

from collections.abc import Iterator

from finesweep.spec.faults import Finding, show
from finesweep.spec.sweep import Artifacts

AT = ("artifacts",)


def artifact_faults(artifacts: Artifacts, *, n_objectives: int, is_own: bool) -> Iterator[Finding]:
    """Find policies that mean nothing with these objectives, and a quota that could not be kept."""
    problem = keep_problem(artifacts.keep, n_objectives=n_objectives)
    if problem is not None:
        yield Finding((*AT, "keep"), problem)
    if is_own and artifacts.quota_gib is not None:
        message = (
            "a trainer of your own writes to its folder what it likes, and nobody can hold it to a quota. Leave this"
            " out; keep: best or none removes the folders of other trials as they end."
        )
        yield Finding((*AT, "quota_gib"), message)


def keep_problem(keep: str, *, n_objectives: int) -> str | None:
    """Say why a policy cannot be kept with so many objectives."""
    if n_objectives > 1 and keep not in ("none", "best", "all"):
        return (
            f"{show(keep)} counts the best trials, but of {n_objectives} objectives none says which trial of the front"
            " comes first. Use best, which keeps the front, or all or none."
        )
    return None
