"""The app: the protocol's addresses, who may ask, how errors look. In: a store, jobs, a writer. Out: ASGI."""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from finesweep.emulator.faults import Faults, Faulty
from finesweep.emulator.jobs import Jobs
from finesweep.emulator.objects import File, Job, listed
from finesweep.emulator.requests import (
    ChatBody,
    CompletionBody,
    JobBody,
    RequestError,
    is_chat_model,
    read_body,
)
from finesweep.emulator.settings import Settings
from finesweep.emulator.store import Store, new_id
from finesweep.emulator.writing import Answer, Writer, no_model
from finesweep.listening import names_loopback
from finesweep.spec.protocol import MOST_BYTES

MOST_LISTED = 100
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Emulator:
    """All that answers need."""

    store: Store
    jobs: Jobs
    writer: Writer
    settings: Settings
    faults: Faults


def make_app(emulator: Emulator, *, token: str | None = None) -> Starlette:
    """Make the server's app. Without a token any key is taken for one."""

    def route(path: str, answer: Callable[[Emulator, Request], Any], method: str = "GET") -> Route:
        async def answered(request: Request) -> Response:
            _check_key(request, token)
            if method == "POST":
                await request.body()  # read here: the answer is made in a thread
            return JSONResponse(await run_in_threadpool(answer, emulator, request))

        return Route(path, answered, methods=[method])

    async def upload(request: Request) -> Response:
        _check_key(request, token)
        return JSONResponse(await _upload(emulator, request))

    def content(request: Request) -> Response:
        _check_key(request, token)
        file = _file(emulator, request)
        return Response(emulator.store.path_of(file.id).read_bytes(), media_type="application/octet-stream")

    job = "/v1/fine_tuning/jobs/{job}"
    routes = [
        Route("/v1/files", upload, methods=["POST"]),
        route("/v1/files", _list_files),
        route("/v1/files/{file}", lambda e, r: _file(e, r).shown()),
        route("/v1/files/{file}", _delete_file, "DELETE"),
        Route("/v1/files/{file}/content", content),
        route("/v1/fine_tuning/jobs", _create_job, "POST"),
        route("/v1/fine_tuning/jobs", _list_jobs),
        route(job, lambda e, r: _job(e, r).shown()),
        route(f"{job}/cancel", _acting(Jobs.cancel), "POST"),
        route(f"{job}/pause", _acting(Jobs.pause), "POST"),
        route(f"{job}/resume", _acting(Jobs.resume), "POST"),
        route(f"{job}/events", _list_events),
        route(f"{job}/checkpoints", _list_checkpoints),
        route("/v1/models", _list_models),
        route("/v1/models/{model}", _model),
        route("/v1/models/{model}", _delete_model, "DELETE"),
        route("/v1/completions", _complete, "POST"),
        route("/v1/chat/completions", _chat, "POST"),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Faulty, faults=emulator.faults)],
        exception_handlers={RequestError: _refused, HTTPException: _no_such_address},
    )


def _check_key(request: Request, token: str | None) -> None:
    if token is None and not names_loopback(request.headers.get("host", "")):
        raise RequestError(421, "Without a token this server answers to 127.0.0.1 and localhost alone.")
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise RequestError(401, "You didn't provide an API key.", code="invalid_api_key")
    if token is not None and not hmac.compare_digest(key.encode(), token.encode()):
        raise RequestError(401, "Incorrect API key provided.", code="invalid_api_key")


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse(error.shown(), error.status)


def _no_such_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    unknown = RequestError(error.status_code, f"Unknown request URL: {request.method} {request.url.path}.")
    return JSONResponse(unknown.shown(), error.status_code)


# --- files -----------------------------------------------------------------------------------------------------------


async def _upload(emulator: Emulator, request: Request) -> Any:
    async with request.form(max_files=1) as form:
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise RequestError(400, "'file' is a required property", param="file")
        if purpose != "fine-tune":
            raise RequestError(400, f"{purpose!r} is not a purpose that is served here: fine-tune", param="purpose")
        if file.size is not None and file.size > MOST_BYTES:
            raise RequestError(413, f"A file may have {MOST_BYTES} bytes; this one has {file.size}.", param="file")
        content, filename = await file.read(), file.filename or "file.jsonl"
    added = await run_in_threadpool(emulator.store.add_file, content, filename=filename, purpose=purpose)
    return added.shown()


def _list_files(emulator: Emulator, request: Request) -> Any:
    page, has_more = _page(emulator.store.files(), request, lambda file: file.id)
    return listed([file.shown() for file in page], has_more=has_more)


def _file(emulator: Emulator, request: Request) -> File:
    file = emulator.store.file(request.path_params["file"])
    if file is None:
        raise RequestError(404, f"No such File object: {request.path_params['file']}", param="id")
    return file


def _delete_file(emulator: Emulator, request: Request) -> Any:
    file = _file(emulator, request)
    return {"id": file.id, "object": "file", "deleted": emulator.store.delete_file(file.id)}


# --- jobs ------------------------------------------------------------------------------------------------------------


def _create_job(emulator: Emulator, request: Request) -> Any:
    body = read_body(JobBody, _body(request))
    if body.model not in emulator.settings.aliases:
        raise no_model(body.model)
    for param, file_id in (("training_file", body.training_file), ("validation_file", body.validation_file)):
        if file_id is not None and emulator.store.file(file_id) is None:
            raise RequestError(400, f"invalid {param}: {file_id}", code="invalid_file", param=param)
    job = Job(
        id=new_id("ftjob-"),
        created_at=emulator.store.now(),
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        hyperparameters=body.asked,
        seed=random.SystemRandom().randrange(2**31) if body.seed is None else body.seed,
        suffix=body.suffix,
        metadata=body.metadata or {},
        is_legacy=body.method is None,
    )
    emulator.jobs.submit(job, is_spoilt=emulator.faults.strikes("validation"))
    return job.shown()


def _job(emulator: Emulator, request: Request) -> Job:
    job = emulator.store.job(request.path_params["job"])
    if job is None:
        raise RequestError(404, f"Could not find fine tune: {request.path_params['job']}", param="fine_tune_id")
    return job


def _acting(act: Callable[[Jobs, Job], None]) -> Callable[[Emulator, Request], Any]:
    def acted(emulator: Emulator, request: Request) -> Any:
        job = _job(emulator, request)
        act(emulator.jobs, job)
        return job.shown()

    return acted


def _list_jobs(emulator: Emulator, request: Request) -> Any:
    wanted = {
        key.removeprefix("metadata[").removesuffix("]"): value
        for key, value in request.query_params.items()
        if key.startswith("metadata[") and key.endswith("]")
    }
    jobs = [job for job in emulator.store.jobs() if wanted.items() <= job.metadata.items()]
    page, has_more = _page(jobs, request, lambda job: job.id)
    return listed([job.shown() for job in page], has_more=has_more)


def _list_events(emulator: Emulator, request: Request) -> Any:
    events = _job(emulator, request).events[::-1]
    if events and emulator.faults.strikes("slow_events"):
        events = events[min(3, len(events)) :]
    page, has_more = _page(events, request, lambda event: event.id)
    return listed([event.shown() for event in page], has_more=has_more)


def _list_checkpoints(emulator: Emulator, request: Request) -> Any:
    job = _job(emulator, request)
    page, has_more = _page(job.checkpoints[::-1], request, lambda checkpoint: checkpoint.id)
    return listed([checkpoint.shown(job.id) for checkpoint in page], has_more=has_more)


def _page(items: Sequence[Item], request: Request, id_of: Callable[[Item], str]) -> tuple[Sequence[Item], bool]:
    """Choose the items after the one that is named, as many as are asked for."""
    after, asked = request.query_params.get("after"), request.query_params.get("limit", "20")
    if not asked.isdecimal() or not 1 <= int(asked) <= MOST_LISTED:
        raise RequestError(400, f"limit must be from 1 to {MOST_LISTED}", param="limit")
    first = 0
    if after is not None:
        first = next((place + 1 for place, item in enumerate(items) if id_of(item) == after), len(items))
    chosen = items[first : first + int(asked)]
    return chosen, first + len(chosen) < len(items)


# --- models ----------------------------------------------------------------------------------------------------------


def _list_models(emulator: Emulator, request: Request) -> Any:
    tuned = [job for job in emulator.store.jobs() if job.fine_tuned_model]
    shown = [_shown_model(name, 0) for name in emulator.settings.aliases]
    shown += [_shown_model(str(job.fine_tuned_model), job.finished_at or 0) for job in tuned]
    return {"object": "list", "data": shown}


def _model(emulator: Emulator, request: Request) -> Any:
    name = request.path_params["model"]
    if name not in emulator.settings.aliases and emulator.store.model_folder(name) is None:
        raise no_model(name)
    return _shown_model(name, 0)


def _delete_model(emulator: Emulator, request: Request) -> Any:
    name = request.path_params["model"]
    if not emulator.store.delete_model(name):
        raise no_model(name)
    return {"id": name, "object": "model", "deleted": True}


def _shown_model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "emulator"}


def _complete(emulator: Emulator, request: Request) -> Any:
    body = read_body(CompletionBody, _body(request))
    if is_chat_model(body.model.removeprefix("ft:")):
        raise RequestError(404, "This is a chat model and not supported in the v1/completions endpoint.", param="model")
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    answers = [emulator.writer.complete(body.model, prompt, body.sampling) for prompt in prompts]
    choices = [
        {"index": place, "text": answer.text, "finish_reason": answer.finish_reason, "logprobs": None}
        for place, answer in enumerate(answers)
    ]
    return _written(emulator, "cmpl-", "text_completion", body.model, choices, answers)


def _chat(emulator: Emulator, request: Request) -> Any:
    body = read_body(ChatBody, _body(request))
    if not is_chat_model(body.model.removeprefix("ft:")):
        raise RequestError(404, "This is not a chat model. Did you mean to use v1/completions?", param="model")
    messages = [message.model_dump() for message in body.messages]
    answer = emulator.writer.chat(body.model, messages, body.sampling)
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choices = [{"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}]
    return _written(emulator, "chatcmpl-", "chat.completion", body.model, choices, [answer])


def _written(
    emulator: Emulator, prefix: str, kind: str, model: str, choices: list[dict[str, Any]], answers: Sequence[Answer]
) -> dict[str, Any]:
    n_prompt, n_written = sum(a.n_prompt_tokens for a in answers), sum(a.n_tokens for a in answers)
    usage = {"prompt_tokens": n_prompt, "completion_tokens": n_written, "total_tokens": n_prompt + n_written}
    made = {"id": new_id(prefix), "object": kind, "created": emulator.store.now(), "model": model}
    return {**made, "choices": choices, "usage": usage}


def _body(request: Request) -> bytes:
    body: bytes = request._body  # read before the answer was handed to a thread
    return body
