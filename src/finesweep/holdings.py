"""What the trials of a sweep hold on disk, and what of it may go and why.

In: the artifact folder, the trials as the database knows them, a policy. Out: holdings. Reads; removes nothing.

What may go: everything of trials that the database does not know (it lost them in a power cut, and their numbers will
be given again), of attempts it does not know, and of trials that have ended, but for the weights that the policy keeps;
and what is half written while nobody writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finesweep.events import TrialRecord, TrialState
from finesweep.layout import Part, PartKind, parts_of, trial_dirs
from finesweep.spec.front import pareto_front, trained_values
from finesweep.spec.study import Objective
from finesweep.spec.sweep import Keep, n_kept

Values = Mapping[int, Sequence[float]]  # of COMPLETE trials, by number, in the order of the objectives


@dataclass(frozen=True, slots=True)
class Held:
    """A part of a trial, and why it may go; None: it may be needed, or is kept."""

    part: Part
    why_free: str | None


@dataclass(frozen=True, slots=True)
class Holding:
    """What one trial holds."""

    number: int
    path: Path
    trial: TrialRecord | None  # None: the database does not know it
    parts: tuple[Held, ...]

    @property
    def free(self) -> list[Path]:
        """List what may go."""
        return [held.part.path for held in self.parts if held.why_free]

    @property
    def is_all_free(self) -> bool:
        return all(held.why_free for held in self.parts)


def best_trials(values: Values, objectives: Sequence[Objective], keep: Keep) -> list[int]:
    """Name the trials whose weights a policy keeps."""
    if keep == "best":
        return pareto_front(values, objectives)
    leading = objectives[0]
    ranked = sorted(values, key=lambda number: leading.rank(number, values[number][0]))
    return ranked[: n_kept(keep)]


def find_holdings(
    artifact_dir: Path,
    trials: Iterable[TrialRecord],
    objectives: Sequence[Objective],
    keep: Keep,
    *,
    is_driven: bool = False,
) -> list[Holding]:
    """Look at what each trial holds, in the order of their numbers.

    While the sweep is driven, only of trials that have ended is it known what may go.
    """
    known = {trial.number: trial for trial in trials}
    kept = set(best_trials(trained_values(known.values(), objectives), objectives, keep))

    def held(part: Part, trial: TrialRecord | None) -> Held:
        is_over = trial is not None and trial.state.is_final
        return Held(part, _why_free(part, trial, kept) if is_over or not is_driven else None)

    return [
        Holding(number, path, known.get(number), tuple(held(part, known.get(number)) for part in parts_of(path)))
        for number, path in trial_dirs(artifact_dir).items()
    ]


def _why_free(part: Part, trial: TrialRecord | None, kept: set[int]) -> str | None:
    if trial is None:
        return "the database does not know the trial"
    if part.attempt is not None and part.attempt > trial.attempts:
        return f"the database does not know attempt {part.attempt}"
    if part.kind is PartKind.HALF_WRITTEN:
        return "never finished"
    if not trial.state.is_final:
        return None
    if trial.state is not TrialState.COMPLETE:
        return f"the trial is {trial.state}"
    if part.kind is PartKind.CHECKPOINT:
        return "the trial is COMPLETE"
    return None if trial.number in kept else "others are kept"
