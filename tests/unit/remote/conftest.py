"""A fine-tuning server in memory behind the official client, time that passes only in sleeps, a sweep's side."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from finesweep.events import Decision, Report
from finesweep.remote.calls import Calls
from finesweep.remote.rows import JobFile
from finesweep.remote.server import Server
from finesweep.spec.sweep import Remote, RemoteSweep, read_sweep

KEY = "sk-nobody-may-keep-this-0123456789"
UID = "a-sweep"
URL = "http://server.test/v1"

Answer = tuple[int, Any] | httpx2.Response | Exception


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now_s: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_s += seconds


@dataclass
class Fake:
    """What a server holds, and how it differs from others. `script` answers first: one entry for each request."""

    files: list[dict[str, Any]] = field(default_factory=list)  # oldest first, as jobs and events
    jobs: list[dict[str, Any]] = field(default_factory=list)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    checkpoints: dict[str, list[dict[str, Any]]] | None = field(default_factory=dict)  # None: it has no such thing
    page_size: int = 100
    heeds_after: bool = True
    tells_has_more: bool = True
    keeps_metadata: bool = True
    fails_at_once: bool = False  # new jobs
    n_lists_late: int = 0  # so many lists do not show the newest job yet
    script: list[Answer | None] = field(default_factory=list)  # None: as usual
    answers: dict[str, list[Answer | None]] = field(default_factory=dict)  # the same for "POST /files" and the like
    lost: set[int] = field(default_factory=set)  # numbers of POSTs that are acted on, and whose answer is lost
    on_poll: Callable[[dict[str, Any]], None] | None = None  # called with a job before it is shown
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)  # of POSTs of jobs
    _n_posts: int = 0

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        self.requests.append((request.method, path))
        own = self.answers.get(f"{request.method} {path}") or self.script
        scripted = own.pop(0) if own else None
        if isinstance(scripted, Exception):
            raise scripted
        if isinstance(scripted, httpx2.Response):
            return scripted
        if scripted is not None:
            return httpx2.Response(scripted[0], json=scripted[1])
        answer = self._answer(request, path)
        if request.method == "POST":
            self._n_posts += 1
            if self._n_posts in self.lost:
                raise httpx2.ReadError("the connection broke")
        return answer

    def _answer(self, request: httpx2.Request, path: str) -> httpx2.Response:
        parts = path.strip("/").split("/")
        if path == "/files":
            return self._upload(request) if request.method == "POST" else self._page(self.files, request)
        if path == "/fine_tuning/jobs" and request.method == "POST":
            return self._create(json.loads(request.content))
        if path == "/fine_tuning/jobs":
            late, self.n_lists_late = self.n_lists_late > 0, max(0, self.n_lists_late - 1)
            return self._page(self.jobs[:-1] if late else self.jobs, request)
        job = next((job for job in self.jobs if job["id"] == parts[2]), None)
        if job is None:
            return refusal(404, f"Could not find fine tune: {parts[2]}")
        match parts[3:]:
            case []:
                if self.on_poll is not None:
                    self.on_poll(job)
                return httpx2.Response(200, json=job)
            case ["cancel"]:
                if job["status"] in ("succeeded", "failed", "cancelled"):
                    return refusal(400, f"The job is {job['status']} already.")
                job["status"] = "cancelled"
                return httpx2.Response(200, json=job)
            case ["events"]:
                return self._page(self.events.get(job["id"], []), request)
            case ["checkpoints"] if self.checkpoints is not None:
                return self._page(self.checkpoints.get(job["id"], []), request)
        return refusal(404, "Unknown request URL")

    def _page(self, oldest_first: list[dict[str, Any]], request: httpx2.Request) -> httpx2.Response:
        items, after = oldest_first[::-1], request.url.params.get("after")
        if after is not None and self.heeds_after:
            items = items[[item["id"] for item in items].index(after) + 1 :]
        page = items[: self.page_size]
        more = {"has_more": len(items) > len(page)} if self.tells_has_more else {}
        return httpx2.Response(200, json={"object": "list", "data": page, **more})

    def _upload(self, request: httpx2.Request) -> httpx2.Response:
        name = request.content.partition(b'filename="')[2].partition(b'"')[0].decode()
        content = request.content.partition(name.encode())[2].partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
        file = {"id": f"file-{len(self.files)}", "object": "file", "filename": name, "bytes": len(content)}
        self.files.append({**file, "created_at": 1, "purpose": "fine-tune", "status": "processed"})
        return httpx2.Response(200, json=self.files[-1])

    def _create(self, body: dict[str, Any]) -> httpx2.Response:
        self.bodies.append(body)
        asked = body.get("hyperparameters") or body["method"]["supervised"]["hyperparameters"]
        job = self.add_job(hyperparameters={"n_epochs": "auto", "batch_size": "auto", **asked})
        job |= {"seed": body["seed"], "metadata": body["metadata"] if self.keeps_metadata else None}
        if self.fails_at_once:
            job |= {"status": "failed", "error": {"code": "invalid_training_file", "message": "odd", "param": None}}
        return httpx2.Response(200, json=job)

    def add_job(self, *, trial: int | None = None, uid: str = UID, **fields: Any) -> dict[str, Any]:
        metadata = {"finesweep_sweep": uid, "finesweep_trial": str(trial)} if trial is not None else None
        job = {
            "id": f"ftjob-{len(self.jobs)}",
            "object": "fine_tuning.job",
            "created_at": 1,
            "model": "davinci-002",
            "status": "running",
            "error": None,
            "fine_tuned_model": None,
            "finished_at": None,
            "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.0},
            "trained_tokens": None,
            "metadata": metadata,
            **fields,
        }
        self.jobs.append(job)
        return job

    def tell(self, job: str, step: Any, *, created_at: int = 1, **values: Any) -> None:
        told = self.events.setdefault(job, [])
        told.append(event(f"{job}-event-{len(told)}", created_at, {"step": step, **values}))

    def count(self, method: str, path: str) -> int:
        return self.requests.count((method, path))


def event(name: str, created_at: int, data: Any) -> dict[str, Any]:
    said = {"object": "fine_tuning.job.event", "level": "info", "message": "", "type": "metrics"}
    return {"id": name, "created_at": created_at, **said, "data": data}


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> httpx2.Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return httpx2.Response(status, json=body, headers=headers)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def client(fake: Fake) -> Any:
    with httpx2.Client(transport=httpx2.MockTransport(fake.handle)) as http:
        yield openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, http_client=http)


@pytest.fixture
def make_server(client: openai.OpenAI, time: Time, tmp_path: Path) -> Callable[..., Server]:
    """Return a function that makes a server as a worker has one; keywords are keys of the section `remote`."""

    def make(uid: str = UID, *, patience_s: float = 600.0, **keys: Any) -> Server:
        remote = Remote.model_validate({"base_url": URL, "model": "davinci-002", **keys})
        calls = Calls(patience_s=patience_s, sleep=time.sleep, clock=time.clock, chance=random.Random(0))
        return Server(client, remote, calls, uid=uid, folder=tmp_path)

    return make


@pytest.fixture
def file(tmp_path: Path) -> JobFile:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"0123456789")
    return JobFile(path, "d1", 10, 10)


@pytest.fixture
def make_sweep(tmp_path: Path) -> Callable[..., RemoteSweep]:
    """Return a function that makes a sweep of twelve rows; arguments replace whole sections."""
    rows = [{"prompt": f"number {n}\n\n", "completion": f" {n}"} for n in range(12)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    def make(*, remote: Mapping[str, Any] | None = None, **sections: Any) -> RemoteSweep:
        content = {
            "name": "numbers",
            "trainer": "remote",
            "remote": {"base_url": URL, "model": "davinci-002", "poll_s": 1, **(remote or {})},
            "data": {"train": str(tmp_path / "train.jsonl"), "validation": str(tmp_path / "validation.jsonl")},
            "study": {
                "objective": {"metric": "valid_loss", "direction": "minimize"},
                "parameters": {"learning_rate_multiplier": {"type": "float", "low": 1, "high": 2}},
            },
            "training": {"batch_size": 4, "n_epochs": 2, "seed": 1},
            "budget": {"trials": 3},
        }
        spec = read_sweep({**content, **sections})
        assert isinstance(spec, RemoteSweep)
        return spec

    return make


class Recorder:
    """A sweep's side of the seam: what is reported is answered by `decide`, between reports it goes on."""

    def __init__(self, decide: Callable[[int], Decision] = lambda n: Decision.CONTINUE) -> None:
        self.reports: list[Report] = []
        self.facts: dict[str, Any] = {}
        self.polled = Decision.CONTINUE
        self._decide = decide

    def describe(self, facts: Mapping[str, Any]) -> None:
        self.facts |= facts

    def report(self, report: Report) -> Decision:
        self.reports.append(report)
        return self._decide(len(self.reports))

    def poll(self) -> Decision:
        return self.polled
