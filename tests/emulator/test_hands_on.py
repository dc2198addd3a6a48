"""The hands-on of docs/davinci-002.md at small size, by the command line: as it stands, but for model and rows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.commandline import invoke
from tests.emulator.conftest import KEY, Server, as_file

from finesweep.results.frames import open_results

SWEEPS = Path(__file__).parents[2] / "sweeps"
FINESWEEP = (sys.executable, "-m", "finesweep")


@pytest.fixture
def folder(tmp_path: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_bytes(as_file(rows))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("FINESWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FINESWEEP_RESULTS", str(tmp_path / "r.db"))
    return tmp_path


def smaller(folder: Path, **others: Any) -> list[str]:
    """Set what makes a sweep of the hands-on small."""
    settings = {
        "data.train": folder / "train.jsonl",
        "data.validation": folder / "validation.jsonl",
        "training.eval_every": 12,
        **others,
    }
    return [word for path, value in settings.items() for word in ("--set", f"{path}={value}")]


def remotely(folder: Path, base_url: str, **others: Any) -> list[str]:
    quick = {"remote.base_url": base_url, "remote.poll_s": 0.05}
    longer = {"study.parameters.n_epochs.low": 30, "study.parameters.n_epochs.high": 40}  # long enough to be cancelled
    longer |= {"study.parameters.batch_size.choices": [1, 2]}
    return [str(SWEEPS / "davinci-002.yaml"), *smaller(folder, **quick, **longer, **others)]


def say(arguments: Sequence[str | Path]) -> str:
    said = invoke(*map(str, arguments))
    assert said.exit_code == 0, said.output
    return said.stdout


def test_from_a_sweep_to_an_answer(folder: Path, tiny_model: Path, serve: Callable[..., Server]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = [*FINESWEEP, "emulator", "--port", str(port), "--folder", str(folder / "emulator"), "--parallel", "2"]
    sweeping = [*FINESWEEP, "run", *remotely(folder, f"http://127.0.0.1:{port}/v1")]
    ended = subprocess.run(
        [*served, "--model", f"davinci-002={tiny_model}", "--max-length", "32", "--", *sweeping], capture_output=True
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert b"leaked" not in ended.stderr
    known = open_results(str(folder / "r.db"))
    states = Counter(known.trials("davinci-002")["state"])
    assert states["COMPLETE"] + states["PRUNED"] == 6
    assert states["PRUNED"] >= 1
    jobs = [json.loads(path.read_text()) for path in (folder / "emulator" / "jobs").glob("*.json")]
    assert Counter(job["metadata"]["finesweep_trial"] for job in jobs) == {str(number): 1 for number in range(6)}
    assert Counter(job["status"] for job in jobs)["cancelled"] >= 1
    spans = known.attempts("davinci-002").sort_values("started_at")
    assert (spans["started_at"].iloc[1:].to_numpy() < spans["ended_at"].iloc[:-1].to_numpy()).any()  # at once

    locally = {"model.name": tiny_model, "data.max_length": 32, "study.parameters.unfrozen_layers.high": 2}
    locally |= {"study.parameters.batch_size.choices": [4, 8]}
    beside = [SWEEPS / "davinci-002-local.yaml", *smaller(folder, **locally), "--backend", "inline"]
    say(["run", *beside])
    compared = json.loads(say(["compare", "davinci-002", "davinci-002-local", "--json"]))
    trials = compared["trials"]
    assert {trial["sweep"] for trial in trials} == {"davinci-002", "davinci-002-local"}
    assert {trial["judged_on"] for trial in compared["best"]} in ({None}, {"data 1"})
    values = [trial["value"] for trial in trials if trial["state"] == "COMPLETE"]
    assert values == sorted(values), "they are ranked together: rows and metric are the same"

    best = known.best("davinci-002")
    say(["export", "davinci-002", "--to", "openai", "-o", folder / "job.py"])
    request = (folder / "job.py").read_text()
    asked_for = {name: value for name, value in best.configuration.items() if name != "learning_rate_multiplier"}
    assert len(asked_for) == 2
    assert all(f'"{name}": {value}' in request for name, value in asked_for.items())
    assert best.facts["fine_tuned_model"] in request

    client = serve(folder=folder / "emulator").client()
    prompt = json.loads((folder / "train.jsonl").read_text().split("\n")[0])["prompt"]
    asked = best.facts["best_checkpoint"]
    assert client.completions.create(model=asked, prompt=prompt, max_tokens=2).model == asked
    everything = [path for path in folder.rglob("*") if path.is_file()] + [folder / "r.db"]
    assert not [path for path in everything if KEY.encode() in path.read_bytes()]
    assert KEY.encode() not in ended.stdout + ended.stderr


def test_a_driver_that_is_killed_pays_for_no_job_twice(folder: Path, serve: Callable[..., Server]) -> None:
    served = serve(parallel=1)
    running = [*FINESWEEP, "run", *remotely(folder, served.base_url), "--backend", "inline"]
    resuming = [*FINESWEEP, "resume", "davinci-002", "--backend", "inline"]
    n_begun = [1, 3, 4]  # jobs that are there when it is killed
    for words, n in zip([running, resuming, resuming], n_begun, strict=True):
        driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while len(served.emulator.store.jobs()) < n:
            assert driver.poll() is None, driver.stdout and driver.stdout.read().decode()
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
    ended = subprocess.run(resuming, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    jobs = served.emulator.store.jobs()
    assert Counter(job.metadata["finesweep_trial"] for job in jobs) == {str(number): 1 for number in range(6)}
    trials = open_results(str(folder / "r.db")).trials("davinci-002")
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert all(job.status.is_final for job in jobs)
