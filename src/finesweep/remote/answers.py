"""What servers answer, read with care: they differ in what they tell, when, and in which words.

In: objects of the client library, which takes what comes as it is. Out: jobs and metrics as a sweep uses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, TypeVar

from openai.pagination import SyncCursorPage
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from finesweep.remote.calls import NotOfProtocolError
from finesweep.spec.protocol import HYPERPARAMETERS

Outcome = Literal["succeeded", "failed", "cancelled"]
_OUTCOMES: Mapping[str, Outcome] = {  # the protocol's words, and those of servers that are nearly of it
    "succeeded": "succeeded",
    "success": "succeeded",
    "completed": "succeeded",
    "failed": "failed",
    "error": "failed",
    "expired": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
_WAITING = ("validating_files", "created", "pending", "queued")
_UNDER_WAY = (*_WAITING, "running", "paused", "pausing", "resuming", "cancelling")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Job:
    """A job as a server tells of it."""

    id: str
    model: str
    status: str  # in the server's word
    outcome: Outcome | None  # None: under way
    metadata: Mapping[str, str]
    made: dict[str, float]  # hyperparameters, once the server tells what it made of them
    trained_tokens: int | None
    fine_tuned_model: str | None
    why_failed: str  # goes on from "failed"

    @property
    def is_over(self) -> bool:
        return self.outcome is not None

    @property
    def is_waiting(self) -> bool:
        """Tell whether it has not been begun, so that nothing is told of its training yet."""
        return self.status.lower() in _WAITING

    @property
    def may_count(self) -> bool:
        """Tell whether it is under way or has succeeded."""
        return self.outcome in (None, "succeeded")


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a job's events tell at a step of its training."""

    step: int  # optimizer steps made
    values: Mapping[str, float]
    n_steps: int | None = None  # optimizer steps of the whole job, where it is told


def read_job(answer: Any) -> Job:  # Any: the client gives the text of what is no JSON as it is
    """Read a job. Raises NotOfProtocolError."""
    if not isinstance(answer, FineTuningJob) or not isinstance(answer.id, str):
        raise NotOfProtocolError("its answer is no job")
    status = str(answer.status)
    metadata = answer.metadata if isinstance(answer.metadata, dict) else {}
    tokens = answer.trained_tokens
    return Job(
        id=answer.id,
        model=str(answer.model),
        status=status,
        outcome=_outcome_of(answer, status.lower()),
        metadata={str(key): str(value) for key, value in metadata.items()},
        made=_made_of(answer),
        trained_tokens=int(tokens) if is_finite(tokens) and tokens >= 0 else None,
        fine_tuned_model=answer.fine_tuned_model or None,
        why_failed=_why_failed(answer),
    )


def _outcome_of(job: FineTuningJob, status: str) -> Outcome | None:
    """Of a word that nobody knows, go by whether the job has an end."""
    if status in _OUTCOMES or status in _UNDER_WAY or not job.finished_at:
        return _OUTCOMES.get(status)
    return "succeeded" if job.fine_tuned_model else "failed"


def _made_of(job: FineTuningJob) -> dict[str, float]:
    """Take numbers from where they are told: at the top, or in the method alone. `auto`, null and -1 are none yet."""
    supervised = getattr(job.method, "supervised", None)
    made: dict[str, float] = {}
    for told in (job.hyperparameters, getattr(supervised, "hyperparameters", None)):
        values = {name: getattr(told, name, None) for name in HYPERPARAMETERS}
        made = {name: value for name, value in values.items() if is_finite(value) and value > 0} | made
    return made


def _why_failed(job: FineTuningJob) -> str:
    """Servers tell of no error as null, as {} or as one of nulls."""
    code, message = getattr(job.error, "code", None), getattr(job.error, "message", None)
    return f"{f' ({code})' if code else ''}: {message or 'the server does not say why'}"


def read_list(ask: Callable[[], Any], *, is_enough: Callable[[list[Any]], bool] = lambda items: False) -> Iterator[Any]:
    """Give the items of all pages of a list, each once, up to a page that is enough.

    Some servers give the same page whatever is asked for, and say that there are more. Raises NotOfProtocolError.
    """
    known: set[str] = set()
    for page in _pages(ask):
        items = [item for item in page.data or () if isinstance(getattr(item, "id", None), str)]
        new = [item for item in items if item.id not in known]
        yield from new
        known |= {item.id for item in new}
        if not new or is_enough(items):
            return


def _pages(ask: Callable[[], Any]) -> Iterator[SyncCursorPage[Any]]:
    try:
        page = ask()
        while isinstance(page, SyncCursorPage):
            yield page
            if not page.has_next_page():
                return
            page = page.get_next_page()
    except AttributeError:  # the client takes a text for a page
        pass
    raise NotOfProtocolError("its answer is no list")


def is_newest_first(items: list[FineTuningJobEvent]) -> bool:
    """Tell whether a page is surely in this order."""
    return bool(items) and (items[0].created_at or 0) > (items[-1].created_at or 0)


def metrics_of(events: Iterable[FineTuningJobEvent]) -> list[Metrics]:
    """Give what a job's events tell, by rising steps; what several say of one step is put together.

    `events`: oldest first. What is not finite is told as it is: a training that has diverged.
    """
    by_step: dict[int, dict[str, float]] = {}
    for event in events:
        data = event.data if isinstance(event.data, dict) else {}
        step = data.get("step")
        if is_finite(step) and step >= 0:
            numbers = {str(name): float(value) for name, value in data.items() if is_number(value)}
            by_step.setdefault(int(step), {}).update(numbers)
    return [_metrics_at(step, values) for step, values in sorted(by_step.items())]


def _metrics_at(step: int, values: Mapping[str, float]) -> Metrics:
    told = values.get("total_steps")
    n_steps = int(told) if is_finite(told) and told >= max(step, 1) else None
    return Metrics(
        step, {name: value for name, value in values.items() if name not in ("step", "total_steps")}, n_steps
    )


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: Any) -> TypeGuard[int | float]:
    return is_number(value) and math.isfinite(value)
