"""What the server keeps, and the shapes in which the protocol shows it. Times are whole seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Auto = Literal["auto"]
Level = Literal["info", "warn", "error"]
ORGANIZATION = "emulator"


class Status(StrEnum):
    """Where a job stands."""

    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


@dataclass(slots=True)
class File:
    id: str
    filename: str
    purpose: str
    n_bytes: int
    created_at: int

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.n_bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None,
        }


@dataclass(slots=True)
class Hyperparameters:
    """As asked for; what `auto` came to is settled when the rows are known."""

    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: float | Auto = "auto"

    def shown(self) -> dict[str, Any]:
        return {
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }


@dataclass(slots=True)
class Event:
    id: str
    created_at: int
    level: Level
    message: str
    data: dict[str, Any] | None = None  # of an event of type `metrics`

    def shown(self) -> dict[str, Any]:
        return {
            "object": "fine_tuning.job.event",
            "id": self.id,
            "created_at": self.created_at,
            "level": self.level,
            "message": self.message,
            "type": "message" if self.data is None else "metrics",
            "data": self.data or {},
        }


@dataclass(slots=True)
class Checkpoint:
    id: str
    created_at: int
    model: str
    step: int
    metrics: dict[str, float]

    def shown(self, job: str) -> dict[str, Any]:
        return {
            "object": "fine_tuning.job.checkpoint",
            "id": self.id,
            "created_at": self.created_at,
            "fine_tuned_model_checkpoint": self.model,
            "fine_tuning_job_id": job,
            "metrics": self.metrics,
            "step_number": self.step,
        }


@dataclass(slots=True)
class Job:
    id: str
    created_at: int
    model: str  # the alias that was asked for
    training_file: str
    validation_file: str | None
    hyperparameters: Hyperparameters
    seed: int
    suffix: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    is_legacy: bool = False  # its hyperparameters stood at the top of the request
    status: Status = Status.VALIDATING
    error: dict[str, str | None] | None = None
    attempts: int = 0  # at training it, resumed and begun again
    n_lost: int = 0  # of these, how many ended with the death of their process
    fine_tuned_model: str | None = None
    finished_at: int | None = None
    trained_tokens: int | None = None  # told when it is over and its process has come to rest
    tokens_so_far: int = 0  # in all attempts
    events: list[Event] = field(default_factory=list)  # oldest first
    checkpoints: list[Checkpoint] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        hyperparameters = self.hyperparameters.shown()
        method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
        return {
            "object": "fine_tuning.job",
            "id": self.id,
            "created_at": self.created_at,
            "model": self.model,
            "organization_id": ORGANIZATION,
            "status": self.status.value,
            "error": self.error,
            "fine_tuned_model": self.fine_tuned_model,
            "finished_at": self.finished_at,
            "estimated_finish": None,
            "hyperparameters": hyperparameters,
            "method": None if self.is_legacy else method,
            "training_file": self.training_file,
            "validation_file": self.validation_file,
            "result_files": [],
            "integrations": [],
            "trained_tokens": self.trained_tokens,
            "seed": self.seed,
            "metadata": self.metadata or None,
        }


def listed(shown: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Give a page of a list."""
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return {"object": "list", "data": shown, "has_more": has_more, **ends}


def job_of(stored: Mapping[str, Any]) -> Job:
    """Read a job as `dataclasses.asdict` wrote it."""
    nested = {
        "hyperparameters": Hyperparameters(**stored["hyperparameters"]),
        "status": Status(stored["status"]),
        "events": [Event(**event) for event in stored["events"]],
        "checkpoints": [Checkpoint(**checkpoint) for checkpoint in stored["checkpoints"]],
    }
    return Job(**{**stored, **nested})
