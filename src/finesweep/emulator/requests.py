"""What clients ask for, checked: bodies of requests, rows of files. Errors are in the protocol's own form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from finesweep.emulator.objects import Auto, Hyperparameters
from finesweep.spec.protocol import COMPLETION_MODELS, FEWEST_ROWS, MOST_BATCH, MOST_EPOCHS

Text64 = Annotated[str, StringConstraints(max_length=64)]
Text512 = Annotated[str, StringConstraints(max_length=512)]


class RequestError(Exception):
    """Say no in the protocol's form."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def shown(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "rate_limit_error" if self.status == 429 else _INVALID
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


_INVALID = "invalid_request_error"
Body = TypeVar("Body", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class HyperparametersBody(_Body):
    model_config = ConfigDict(extra="forbid")

    n_epochs: Auto | Annotated[int, Field(ge=1, le=MOST_EPOCHS)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=MOST_BATCH)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, allow_inf_nan=False)] = "auto"


class _Supervised(_Body):
    hyperparameters: HyperparametersBody = HyperparametersBody()


class _Method(_Body):
    type: Literal["supervised"]  # dpo and reinforcement are not trained here
    supervised: _Supervised = _Supervised()


class JobBody(_Body):
    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: HyperparametersBody | None = None
    method: _Method | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    suffix: Text64 | None = None
    metadata: Annotated[dict[Text64, Text512], Field(max_length=16)] | None = None

    @property
    def asked(self) -> Hyperparameters:
        given = self.hyperparameters or (self.method.supervised.hyperparameters if self.method else None)
        return Hyperparameters() if given is None else Hyperparameters(**given.model_dump())


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is written."""

    max_tokens: int
    temperature: float  # 0: the likeliest token each time
    seed: int | None
    stops: tuple[str, ...]  # texts that end it, and are left out


class _WritingBody(_Body):
    model: str
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 16
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Literal[1] = 1
    stream: Literal[False] = False

    @property
    def sampling(self) -> Sampling:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(self.max_tokens, self.temperature, self.seed, tuple(stops))


class CompletionBody(_WritingBody):
    prompt: str | list[str]


class _Message(_Body):
    role: Literal["system", "user", "assistant"]
    content: str


class ChatBody(_WritingBody):
    messages: Annotated[list[_Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    max_completion_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None

    @property
    def sampling(self) -> Sampling:
        most = self.max_completion_tokens or self.max_tokens
        return replace(super().sampling, max_tokens=most)


def read_body(kind: type[Body], content: bytes) -> Body:
    """Read the JSON of a request. Raises RequestError that names the first key that is wrong."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("constrained", "literal")))
        message = f"{where or 'body'}: {first['msg']}"
        raise RequestError(400, message, code="invalid_value", param=where or None) from None


@dataclass(frozen=True, slots=True)
class Rows:
    """What a file of rows holds."""

    n_rows: int
    keys: tuple[str, ...]  # of each row: prompt and completion, or messages


def is_chat_model(alias: str) -> bool:
    """Tell the kind of a model by its name: what is no completion model takes chats."""
    return not alias.startswith(COMPLETION_MODELS)


def check_rows(content: bytes, *, is_chat: bool, what: str) -> Rows:
    """Check a file of rows as the protocol's servers do. Raises RequestError, whose `param` is `what`."""

    def refuse(message: str) -> RequestError:
        return RequestError(400, message, code="invalid_training_file", param=what)

    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) < FEWEST_ROWS:
        raise refuse(f"{what} has {len(lines)} example(s), but must have at least {FEWEST_ROWS} examples")
    check: Callable[[Mapping[str, Any]], str | None] = _chat_problem if is_chat else _completion_problem
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise refuse(f"Invalid file format. Line {number} is not JSON.") from None
        problem = check(row) if isinstance(row, dict) else "it is not an object"
        if problem is not None:
            raise refuse(f"Invalid file format. Example {number} cannot be used: {problem}.")
    return Rows(len(lines), ("messages",) if is_chat else ("prompt", "completion"))


def _completion_problem(row: Mapping[str, Any]) -> str | None:
    for key in ("prompt", "completion"):
        if not isinstance(row.get(key), str) or (key == "completion" and not row[key]):
            return f'it has no text "{key}"; completion models take prompt and completion'
    return None


def _chat_problem(row: Mapping[str, Any]) -> str | None:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        return 'it has no list "messages"; chat models take messages'
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return "a message has no text"
        if message.get("role") not in ("system", "user", "assistant"):
            return f"there is no role {message.get('role')!r}"
    return None if messages[-1]["role"] == "assistant" else "the last message must be the assistant's"
