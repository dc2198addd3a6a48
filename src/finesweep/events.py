"""The nouns that all rooms share: what is asked of a worker, what it says, and what the broker decides.

Everything here is frozen, picklable and free of heavy imports: these values cross process borders and are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Value = str | int | float | bool | None
Configuration = Mapping[str, Value]  # the active parameters of a trial under their common names


class TrialState(StrEnum):
    """Where a trial stands. RUNNING without a live driver is shown as INTERRUPTED."""

    WAITING = "WAITING"  # not begun: next in the queue, or the twin of a running trial, whose result it takes over
    RUNNING = "RUNNING"
    INTERRUPTED = "INTERRUPTED"  # paused cleanly, to be resumed under its own number
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


class Decision(StrEnum):
    """The answer to a report, or to a worker that asks between reports."""

    CONTINUE = "continue"
    STOP = "stop"  # for good: the trial will be PRUNED
    PAUSE = "pause"  # write a checkpoint and give the slot back; the trial goes on later

    @property
    def must_return(self) -> bool:
        """Tell whether a trainer is to return, whatever becomes of the trial."""
        return self is not Decision.CONTINUE


class Ending(StrEnum):
    """How an attempt ended, as the worker (or, for LOST, the backend) saw it."""

    DONE = "done"
    STOPPED = "stopped"  # in answer to Decision.STOP
    PAUSED = "paused"  # in answer to Decision.PAUSE; a checkpoint was written if there was anything to keep
    FAILED = "failed"  # the trainer raised
    LOST = "lost"  # the worker died
    STALLED = "stalled"  # the worker was killed because the trial had said nothing for too long
    BLOCKED = "blocked"  # something beside the trial must be mended first, as a full disk: the sweep pauses
    ABANDONED = "abandoned"  # the driver died; found by the next one

    @property
    def uses_retry(self) -> bool:
        """Tell whether an attempt that ended so counts among those that the sweep begins again."""
        return self in (Ending.FAILED, Ending.LOST, Ending.STALLED)


class Source(StrEnum):
    """Who proposed a trial's configuration."""

    START_WITH = "start_with"
    DEFAULT = "default"
    SAMPLER = "sampler"


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One attempt at one trial: all that a trainer is told besides the sweep itself."""

    number: int
    attempt: int  # counts from 1
    configuration: Configuration
    n_retries: int = 0  # of its attempts, those that came to nothing and used up a retry


# Names of what a report's telemetry may hold.
MEMORY_GIB = "memory_gib"  # held on a GPU by the worker, or its resident memory
DEVICE_USE = "device_use"  # share of 1, since the report before
LEARNING_RATE = "learning_rate"  # of the next optimizer step
GRAD_NORM = "grad_norm"  # of the last optimizer step, before clipping

# Name of a fact: what a training of a verification came to on the test rows, metric -> value or None.
TEST_METRICS = "test_metrics"


@dataclass(frozen=True, slots=True)
class Report:
    """A trial's metrics at a step of the sweep's grid.

    `step` is nominal, in the grid's unit, and the same for all trials; `examples_seen` is the true count. Reports made
    when the trial has reached its end are `final`: the last may lie off the grid, and none of them prunes. `telemetry`
    is how the worker was at that time: nothing is decided by it.
    """

    step: int
    metrics: Mapping[str, float]
    examples_seen: int
    final: bool = False
    telemetry: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What a trainer returns, or what is known of a worker that did not get so far."""

    ending: Ending
    reason: str | None = None  # one line
    traceback: str | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)  # kind -> path below the sweep's artifact folder
    artifact_bytes: Mapping[str, int] = field(default_factory=dict)  # kind -> size, as the worker measured it


@dataclass(frozen=True, slots=True)
class Grid:
    """The resource axis on which the trials of a sweep are compared.

    With unit "examples" a step counts examples seen; with "progress" it counts percent of the trial's own schedule.
    Reports fall on multiples of `every`; `longest` is the last step of the longest trial the space allows, 0 where
    only a trainer of the user's own knows it.
    """

    unit: str  # "examples" | "progress"
    every: int
    longest: int


# --- events: what the broker tells its listener, in order, each before it is acted on ---------------------------


@dataclass(frozen=True, slots=True)
class TrialSuggested:
    number: int
    configuration: Configuration
    parameters: Mapping[str, Value]  # under the study's names: a branch's parameter is "lora.learning_rate"
    distributions: Mapping[str, str]  # parameter -> Optuna's JSON
    source: Source
    attributes: Mapping[str, Any]  # what the sampler keeps with the trial
    study_attributes: Mapping[str, Any]  # what the sampler keeps with the study
    twin_of: int | None = None  # an earlier trial of the same configuration, not finished yet


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptDescribed:
    """Facts of an attempt that only the worker knows: device, pid, effective batch, warm-up, parameter counts."""

    number: int
    attempt: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reported:
    number: int
    attempt: int
    report: Report
    decision: Decision
    attributes: Mapping[str, Any]  # what the pruner keeps with the trial


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    number: int
    attempt: int
    result: AttemptResult


@dataclass(frozen=True, slots=True)
class TrialFinished:
    """A trial's outcome: exactly one per trial."""

    number: int
    state: TrialState  # COMPLETE, PRUNED or FAILED
    reason: str | None
    value: float | None  # COMPLETE: the leading objective; PRUNED: None
    value_step: int | None  # the step that the value came from
    reused_from: int | None = None
    other_values: tuple[float, ...] = ()  # COMPLETE: of the other objectives, at the same step
    attributes: Mapping[str, Any] = field(default_factory=dict)  # what sampler and pruner keep with the trial
    study_attributes: Mapping[str, Any] = field(default_factory=dict)  # and with the study

    @property
    def values(self) -> tuple[float, ...]:
        """Give the values of all objectives, the leading one first; nothing unless COMPLETE."""
        return () if self.value is None else (self.value, *self.other_values)


@dataclass(frozen=True, slots=True)
class TrialInterrupted:
    """A trial gave its slot back and waits to be resumed."""

    number: int


Event = TrialSuggested | AttemptStarted | AttemptDescribed | Reported | AttemptEnded | TrialFinished | TrialInterrupted
Listener = Callable[[Sequence[Event]], None]  # events that belong together are handed over, and stored, together


# --- what a broker is rebuilt from -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial as the results database remembers it."""

    number: int
    state: TrialState
    configuration: Configuration
    parameters: Mapping[str, Value]
    distributions: Mapping[str, str]
    source: Source
    attributes: Mapping[str, Any]
    reports: tuple[Report, ...]  # in rising steps, one per step, over all attempts
    attempts: int  # how many were started
    n_retries: int  # of these, the ones whose ending uses up a retry
    value: float | None = None
    value_step: int | None = None
    reason: str | None = None
    twin_of: int | None = None
    reused_from: int | None = None
    started_at: float | None = None  # seconds since the epoch
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class SweepHistory:
    """All that a broker needs to go on where an earlier one left off."""

    trials: tuple[TrialRecord, ...] = ()
    study_attributes: Mapping[str, Any] = field(default_factory=dict)
