"""Train one trial again, as its sweep did, and compare report by report.

In: the results database, a sweep and a number. Out: what differs around it, and a `Comparison`. Nothing is stored: it
is trained in a folder that vanishes.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finesweep.errors import ResultsError
from finesweep.events import Decision, Ending, Grid, Report, TrialSpec, TrialState
from finesweep.production.surroundings import ROUNDING, Difference, Here, differences, threads_then, was_stacked
from finesweep.results.frames import Results, TrialResult
from finesweep.spec.sweep import FunctionSweep, RemoteSweep, SweepSpec, TransformersSweep
from finesweep.trainer import Trainer, failed_by

TOLERANCE = 0.02  # see docs/production.md: what a GPU's own runs differ by, and some
_TIMED = ("train_seconds",)  # a cost that is another each time


@dataclass(frozen=True, slots=True)
class Compared:
    """A metric at a step, then and now."""

    step: int
    metric: str
    then: float
    now: float | None  # None: it was not reported again

    def gap(self) -> float:
        """Give how far apart they are: of values below 1 absolutely, of others as a share."""
        if self.now is None:
            return math.inf
        if math.isnan(self.then) and math.isnan(self.now):
            return 0.0
        if self.then == self.now:
            return 0.0
        gap = abs(self.then - self.now) / max(1.0, abs(self.then), abs(self.now))
        return gap if math.isfinite(gap) else math.inf


@dataclass(frozen=True, slots=True)
class Comparison:
    rows: tuple[Compared, ...]
    tolerance: float  # 0.0: they have to be equal
    why: str  # that tolerance
    ended: str  # how the training ended, in words, where it did not end as the trial had
    extra_steps: tuple[int, ...] = ()  # reports that the trial had not made

    @property
    def largest(self) -> Compared | None:
        return max(self.rows, key=lambda row: row.gap(), default=None)

    @property
    def is_met(self) -> bool:
        near = all(row.gap() <= self.tolerance for row in self.rows)
        return near and not self.ended and not self.extra_steps


@dataclass(frozen=True, slots=True)
class Subject:
    """The trial that is trained again, and how it had been trained."""

    trial: TrialResult
    spec: SweepSpec
    grid: Grid
    provenance: Mapping[str, Any]
    notes: tuple[str, ...]


def subject(results: Results, sweep: str, number: int) -> Subject:
    """Find the trial whose reports are to be met again. Raises ResultsError where there are none."""
    _refuse_remote(results, sweep, number)
    trial, notes = results.trial(sweep, number), []
    if trial.reused_from is not None:
        notes.append(f"{sweep}:{number} took over the result of {sweep}:{trial.reused_from}, which is trained again.")
        trial = results.trial(sweep, trial.reused_from)
    if not trial.state.is_final:
        raise ResultsError(
            f"trial {sweep}:{trial.number} is {trial.state}: it has no outcome yet. Let the sweep go on: finesweep "
            f"resume {sweep}"
        )
    if not trial.reports:
        reason = f" ({trial.reason})" if trial.reason else ""
        raise ResultsError(
            f"trial {sweep}:{trial.number} is {trial.state}{reason} and has reported nothing, so that there is nothing "
            "to compare with. Name another trial."
        )
    if was_stacked(trial.facts):
        notes.append(
            f"It was trained beside {trial.facts['stacked_with']} other trials as one computation; now it is by "
            "itself, with the same chance, so that only the order of sums may differ."
        )
    if (resumed := trial.facts.get("resumed_from")) is not None:
        notes.append(f"It had gone on from a checkpoint ({resumed}); now it is trained in one go.")
    if trial.facts.get("n_oom"):
        notes.append("Its device's memory had run out, so that it went on with smaller batches at once; so may this.")
    if trial.state is not TrialState.COMPLETE:
        last = trial.reports[-1].step
        notes.append(f"It is {trial.state} ({trial.reason}); it is trained as far as its last report, at step {last}.")
    return Subject(trial, results.spec(sweep), results.grid(sweep), results.provenance(sweep), tuple(notes))


def _refuse_remote(results: Results, sweep: str, number: int) -> None:
    """Raise ResultsError for a job of a fine-tuning server: another would cost money, and say nothing of this one."""
    if isinstance(results.spec(sweep), RemoteSweep):
        raise ResultsError(
            f"trial {sweep}:{number} was a job of a fine-tuning server, which decides itself what repeats and is "
            f"paid again. What other seeds come to: finesweep verify {sweep}. To begin the same job again: "
            f"finesweep export {sweep}:{number} --to openai"
        )


def on_its_device(found: Subject) -> SweepSpec:
    """Have a trial of a CPU trained on a CPU again, whatever else there is here."""
    spec = found.spec
    devices: Any = "cpu" if found.trial.facts.get("device") == "cpu" else "auto"
    return spec.model_copy(update={"resources": spec.resources.model_copy(update={"devices": devices})})


def reproduce(
    found: Subject,
    spec: SweepSpec,
    *,
    cache_dir: Path,
    say: Callable[[str], None],
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Train the trial again, saying first what differs around it."""
    facts, provenance = found.trial.facts, found.provenance
    with tempfile.TemporaryDirectory(prefix="finesweep-reproduce-") as scratch:
        trainer, here = _set_up(found, spec, Path(scratch), cache_dir=cache_dir)
        around = differences(provenance, facts, here)
        for note in found.notes:
            say(note)
        say("Around it nothing that counts has changed." if not around else "Not as it was when it was trained:")
        for difference in around:
            say(f"  {difference}")
        allowed, why = _allowed(around, here, facts, tolerance)
        say(f"{'To be equal' if not allowed else f'To be met within {allowed:g}'}: {why}.")
        known = {report.step: report.metrics for report in found.trial.reports}
        again = _Again(found.trial, known, spec.study.objective.metric, say)
        ended = _run(trainer, found, again)
    rows = tuple(
        Compared(report.step, name, value, again.metrics.get(report.step, {}).get(name))
        for report in found.trial.reports
        for name, value in report.metrics.items()
        if name not in _TIMED
    )
    extra = tuple(step for step in again.metrics if step not in known)
    return Comparison(rows, allowed, why, ended, extra)


def _allowed(around: Sequence[Difference], here: Here, facts: Mapping[str, Any], tolerance: float) -> tuple[float, str]:
    """Choose how near the numbers have to be, and say why."""
    if around:
        return tolerance, f"{', '.join(difference.what for difference in around)} differ"
    if here.device != "cpu":
        return tolerance, "a GPU may add in another order each time"
    if was_stacked(facts):
        return min(ROUNDING, tolerance), "by itself its sums are made in another order"
    return 0.0, "the same versions on the same kind of CPU, with as many threads"


def _set_up(found: Subject, spec: SweepSpec, scratch: Path, *, cache_dir: Path) -> tuple[Trainer, Here]:
    """Make the sweep's own trainer, which does not refuse data or a model that are others by now."""
    if isinstance(spec, FunctionSweep):
        from finesweep.training.function import FunctionTrainerFactory, function_facts

        known = function_facts(spec)
        trainer = FunctionTrainerFactory(spec, found.grid, scratch)()
        device = str(found.trial.facts.get("device", "cpu"))  # where it computes, only the user's code knows
        return trainer, Here(known["data_fingerprint"], None, device, _threads(found), known["code_fingerprint"])
    assert isinstance(spec, TransformersSweep), "there are two kinds"
    from finesweep.production.train import here, set_threads
    from finesweep.training.prepare import prepare
    from finesweep.training.transformers_trainer import TransformersTrainer, check_devices, load_shared

    check_devices(spec)
    set_threads(found.provenance, found.trial.facts)
    prepared = prepare(spec, cache_dir=cache_dir)
    shared = load_shared(spec, prepared, cache_dir=cache_dir)
    return TransformersTrainer(spec, found.grid, scratch, shared), here(spec, prepared)


def _threads(found: Subject) -> int:
    return threads_then(found.provenance, found.trial.facts) or 0


@dataclass
class _Again:
    """The reporter of the training: notes what is told, and ends it where the trial's reports end."""

    trial: TrialResult
    known: Mapping[int, Mapping[str, float]]  # what it reported, by step
    metric: str  # that is said
    say: Callable[[str], None]
    metrics: dict[int, Mapping[str, float]] = field(default_factory=dict)

    def describe(self, facts: Mapping[str, Any]) -> None: ...

    def report(self, report: Report) -> Decision:
        self.metrics[report.step] = report.metrics
        told = self.known.get(report.step)
        name = self.metric
        then = "" if told is None or name not in told else f", {told[name]:.6g} then"
        if name in report.metrics:
            self.say(f"step {report.step:,}: {name} {report.metrics[name]:.6g} now{then}")
        is_last = report.step >= self.trial.reports[-1].step
        was_cut = self.trial.state is not TrialState.COMPLETE
        return Decision.STOP if is_last and was_cut else Decision.CONTINUE

    def poll(self) -> Decision:
        return Decision.CONTINUE


def _run(trainer: Trainer, found: Subject, again: _Again) -> str:
    """Train. Say how it ended where the trial had come further."""
    trial = found.trial
    try:
        result = trainer.run(TrialSpec(trial.number, 1, trial.configuration), again)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        logging.getLogger("finesweep.trial").debug("failed", exc_info=True)
        result = failed_by(error)
    was_cut = trial.state is not TrialState.COMPLETE
    if result.ending is Ending.DONE or (was_cut and result.ending in (Ending.STOPPED, Ending.FAILED)):
        return ""
    return f"the training ended otherwise than the trial: {result.ending}" + (
        f", {result.reason}" if result.reason else ""
    )
