"""An emulator with a tiny model behind its names, and the official client, unmodified."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import openai
import pytest
import transformers
import uvicorn
from tests.training.conftest import CHAT_TEMPLATE, WORDS, make_llama
from tests.training.conftest import tokenizer as tokenizer

from finesweep.emulator.app import Emulator, make_app
from finesweep.emulator.faults import Faults
from finesweep.emulator.serving import emulator_in
from finesweep.emulator.settings import Settings

KEY = "sk-a-key-that-nobody-may-keep-0123456789"
PATIENCE_S = 120.0


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    folder = make_llama(tmp_path_factory.mktemp("tiny"), tokenizer, is_tied=True)
    chatting = transformers.AutoTokenizer.from_pretrained(folder)
    chatting.chat_template = CHAT_TEMPLATE
    chatting.save_pretrained(folder)
    return folder


@dataclass
class Server:
    """An emulator that serves, and how to reach it."""

    emulator: Emulator
    base_url: str
    end: Callable[[], None]
    clients: list[openai.OpenAI] = field(default_factory=list)  # closed with the test

    def client(self, **options: Any) -> openai.OpenAI:
        made = openai.OpenAI(**{"base_url": self.base_url, "api_key": KEY, "max_retries": 0, **options})
        self.clients.append(made)
        return made


@pytest.fixture
def serve(tmp_path: Path, tiny_model: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts an emulator in a folder; all are ended with the test."""
    ends: list[Callable[[], object]] = []

    def start(
        *, folder: Path | None = None, faults: Faults | None = None, token: str | None = None, **settings: Any
    ) -> Server:
        aliases = dict.fromkeys(("davinci-002", "gpt-4o-mini-2024-07-18"), str(tiny_model))
        made = Settings(**{"aliases": aliases, "threads": 1, "max_length": 32, **settings})
        context = emulator_in(
            folder or tmp_path / f"emulator-{len(ends)}", made, cache_dir=tmp_path / "cache", faults=faults
        )
        emulator = context.__enter__()
        config = uvicorn.Config(make_app(emulator, token=token), host="127.0.0.1", port=0, log_level="critical")
        listening = config.bind_socket()
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()

        @cache
        def end() -> None:
            for client in served.clients:
                client.close()
            server.should_exit = True
            thread.join()
            listening.close()
            context.__exit__(None, None, None)

        served = Server(emulator, f"http://127.0.0.1:{listening.getsockname()[1]}/v1", end)
        ends.append(end)
        return served

    yield start
    for end in reversed(ends):
        end()


@pytest.fixture
def rows() -> list[dict[str, str]]:
    """Twelve prompts that are answered by their own first word, twice."""
    return [{"prompt": f"{word} {WORDS[0]}", "completion": f" {word} {word}"} for word in WORDS[1:13]]


def jobs_at(base_url: str, folder: Path, **remote: Any) -> dict[str, Any]:
    """Give what sweeps of jobs at a server have in common: the rows are files of the folder."""
    known = {"base_url": base_url, "model": "davinci-002", "api_key_env": "TRIED_API_KEY", "poll_s": 0.05}
    return {
        "name": "animals",
        "trainer": "remote",
        "remote": known | remote,
        "data": {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")},
        "artifacts": {"folder": str(folder / "artifacts")},
    }


def as_file(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def wait_for(job: str, client: openai.OpenAI, *statuses: str) -> Any:
    end_s = time.monotonic() + PATIENCE_S
    while True:
        found = client.fine_tuning.jobs.retrieve(job)
        if found.status in (statuses or ("succeeded", "failed", "cancelled")):
            return found
        assert time.monotonic() < end_s, found
        assert found.status not in ("succeeded", "failed", "cancelled"), found
        time.sleep(0.05)
