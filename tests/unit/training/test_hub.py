"""Data sets of the hub: a hub of our own, which answers what `datasets` asks of the real one."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from finesweep.errors import DataError
from finesweep.training.hub import HubDataSet

COMMIT = "a" * 40
REVISIONS = ("main", "v1", COMMIT)
FILES = {
    "README.md": b"""---
configs:
- config_name: small
  data_files:
  - {split: train, path: small/train.jsonl}
  - {split: test, path: small/test.jsonl}
- config_name: large
  data_files: large/train.jsonl
---
""",
    "small/train.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "small/test.jsonl": b'{"text": "three"}\n',
    "large/train.jsonl": b'{"text": "four"}\n',
}


class _Hub(BaseHTTPRequestHandler):
    """One data set, org/name; `server.gone` is set when the hub is to answer nobody."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        about, _, files = "/api/datasets/org/name", "/", "/datasets/org/name/resolve/"
        if self.server.gone.is_set():  # type: ignore[attr-defined]
            self._answer(503)
        elif path.startswith(f"{about}/tree/{COMMIT}/"):
            folder = path.split(f"{COMMIT}/")[1]
            found = [name for name in FILES if name.startswith(f"{folder}/")]
            self._answer(200, [{"type": "file", "path": p, "size": len(FILES[p]), "oid": "0" * 40} for p in found])
        elif path == about or path.startswith(f"{about}/revision/"):
            if path == about or path.rpartition("/")[2] in REVISIONS:
                self._answer(200, {"id": "org/name", "sha": COMMIT, "siblings": []})
            else:
                self._answer(404, code="RevisionNotFound")
        elif path.startswith(files):
            name = path.removeprefix(files).partition("/")[2]
            self._answer(200, FILES[name]) if name in FILES else self._answer(404, code="EntryNotFound")
        elif path.startswith("/api/datasets/org/kept"):
            self._answer(403, code="GatedRepo")
        else:
            self._answer(401, code="RepoNotFound")  # the real one does not tell strangers what there is

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: object = b"", *, code: str | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        headers = {"Content-Length": len(content), "X-Repo-Commit": COMMIT, "ETag": f'"{hash(content)}"'}
        for name, value in {**headers, **({"X-Error-Code": code} if code else {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def use_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that names the hub to use; its local cache is empty."""
    for config, name, folder in (
        (datasets.config, "HF_DATASETS_CACHE", "datasets"),
        (huggingface_hub.constants, "HF_HUB_CACHE", "hub"),
    ):
        monkeypatch.setattr(config, name, tmp_path / folder)

    def use(endpoint: str) -> None:
        """Do what the environment variable HF_ENDPOINT does in a process that begins with it."""
        usual = huggingface_hub.constants.ENDPOINT
        for config in (datasets.config, huggingface_hub.constants):
            for name, value in vars(config).items():
                if isinstance(value, str) and value.startswith(usual):
                    monkeypatch.setattr(config, name, value.replace(usual, endpoint))

    datasets.disable_progress_bars()
    return use


@pytest.fixture
def hub(use_hub: Callable[[str], None]) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.gone = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    use_hub(f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def data_set(name: str = "org/name", config: str | None = "small", revision: str | None = None) -> HubDataSet:
    return HubDataSet(name, config=config, revision=revision)


def test_config_splits_and_revision(hub: ThreadingHTTPServer) -> None:
    small = data_set(revision="v1")
    assert small.identity() == f"org/name small@{COMMIT}"
    assert {split: rows["text"][:] for split, rows in small.splits().items()} == {
        "train": ["one", "two"],
        "test": ["three"],
    }
    assert {split: rows["text"][:] for split, rows in data_set(config="large").splits().items()} == {"train": ["four"]}


def test_what_was_loaded_before_is_there_without_the_hub(hub: ThreadingHTTPServer) -> None:
    before = data_set()
    splits = before.splits()
    hub.gone.set()  # type: ignore[attr-defined]
    for revision in (None, COMMIT):
        now = data_set(revision=revision)
        assert now.identity() == before.identity()
        assert now.splits()["train"]["text"][:] == splits["train"]["text"][:]
    with pytest.raises(DataError, match=rf"cannot be held to revision v1: .+ and the local cache has commit {COMMIT}"):
        data_set(revision="v1").identity()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            data_set("org/other"),
            r'"org/other" is neither a folder here nor a data set of the hub\. Correct the name, or',
        ),
        (data_set("org/kept"), r'"org/kept" is given out on request only\. Ask for it'),
        (data_set(revision="v9"), r'"org/name" has no revision "v9"\. Correct data\.revision'),
        (
            data_set(config="huge"),
            r"\"org/name\" cannot be loaded: BuilderConfig 'huge' not found\. Available: .*small",
        ),
        (data_set(config=None), r'"org/name" cannot be loaded: Config name is missing'),
    ],
)
def test_faults_that_the_hub_tells(hub: ThreadingHTTPServer, wanted: HubDataSet, message: str) -> None:
    with pytest.raises(DataError, match=message):
        wanted.splits()


def test_a_hub_that_cannot_be_reached_is_told_at_once(use_hub: Callable[[str], None]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        use_hub(f"http://127.0.0.1:{unused.getsockname()[1]}")
        began_s = time.monotonic()
        with pytest.raises(DataError) as caught:
            data_set().identity()
    assert time.monotonic() - began_s < 5
    assert str(caught.value).startswith(
        f'data.dataset: "org/name" is not in the local cache, and {datasets.config.HF_ENDPOINT}'
    )
    assert str(caught.value).endswith("or load it elsewhere, write it with `save_to_disk` and name that folder.")


def test_offline_mode_is_respected(hub: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot be reached \(.+offline mode is enabled.+`HF_HUB_OFFLINE`"):
        data_set().identity()
