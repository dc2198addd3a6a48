"""Secrets are planted wherever a sweep could meet them; afterwards every byte that came out is searched for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from finesweep.results.frames import open_results
from tests.commandline import invoke
from tests.integration.conftest import Workplace

PASSWORD = "p4ss/w:rd-of-the-database"
SECRETS = {
    "HF_TOKEN": "hf_plantedPlantedPlantedPlanted0123",
    "WANDB_API_KEY": "wandbplanted0123456789abcdef0123456789ab",
    "OPENAI_API_KEY": "sk-proj-planted-0123456789-planted-0123",
    "AWS_SECRET_ACCESS_KEY": "planted/AWS+secret0123456789planted01234",
    "SHOP_PASSWORD": "planted 'quoted' \\ pass\tword",
}
URL = f"postgresql://me:{PASSWORD}@127.0.0.1:1/sweeps"  # nobody listens at port 1
IN_URLS = {"MLFLOW_TRACKING_URI": "http://me:planted-mlflow-password@127.0.0.1:1", "DATABASE": URL}
TRAINER = """\
import logging
import os
import shutil
import sys
from pathlib import Path

def train(trial, reporter):
    log = logging.getLogger("shop")
    for name in NAMES:
        log.warning("%s is %s", name, os.environ[name])
    log.warning("connecting to %s", os.environ["DATABASE"])
    reporter.report(100, {"score": 1.0})
    match trial.number:
        case 0:
            (trial.folder / "command").write_bytes(Path("/proc/self/cmdline").read_bytes())
        case 1:
            raise RuntimeError("not let in with " + " or ".join(os.environ[name] for name in NAMES))
        case 2:
            sys.exit("no " + os.environ["DATABASE"])
        case 3:
            raise RuntimeError("x" * 480 + os.environ["HF_TOKEN"])
        case 4:  # and what of it all is in the database by now, the log of its writes included
            for path in Path.cwd().glob("results.db*"):
                shutil.copy(path, trial.folder / path.name)
"""


class Shop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = b""

    def run(self, *arguments: str) -> None:
        """Run a sweep to its end, in a process of its own."""
        ran = subprocess.run([sys.executable, "-m", "finesweep", *arguments], capture_output=True)
        self.said += ran.stdout + ran.stderr
        assert ran.returncode == 0, ran.stderr.decode()

    def say(self, *arguments: str, code: int) -> str:
        said = invoke(*arguments)
        self.said += said.output.encode()
        assert said.exit_code == code, said.output
        return said.output

    def search(self) -> list[str]:
        """Name the places that hold a secret, in whatever way it may be written."""
        secrets = {*SECRETS.values(), PASSWORD, "planted-mlflow-password"}
        forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])}
        forms |= {form[:20] for form in forms}  # and the first part of it
        places = {"said": self.said}
        for path in self.folder.rglob("*"):
            if path.is_file() and "given" not in path.parts and path.suffix != ".pyc":
                places[str(path)] = path.read_bytes()
        return [f"{place}: {form}" for place, text in places.items() for form in forms if form.encode() in text]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    for name, value in {**SECRETS, **IN_URLS, "FINESWEEP_RESULTS": URL}.items():
        monkeypatch.setenv(name, value)
    given = tmp_path / "given"
    given.mkdir()
    (given / "shop_secrets.py").write_text(f"NAMES = {list(SECRETS)}\n{TRAINER}")
    sweep = {
        "name": "shop",
        "trainer": "shop_secrets:train",
        "results": URL,
        "study": {
            "objective": {"metric": "score", "direction": "maximize"},
            "sampler": {"type": "random"},
            "parameters": {"rate": {"type": "float", "low": 0, "high": 1}},
        },
        "training": {"eval_every": 100},
        "budget": {"trials": 5},
        "resources": {"devices": "cpu"},
        "artifacts": {"keep": "all"},
    }
    (given / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    return Shop(tmp_path)


def test_no_secret_comes_out_of_a_sweep(shop: Shop) -> None:
    shop.say("check", "given/sweep.yaml", "--json", code=0)
    refused = shop.say("run", "given/sweep.yaml", "--backend", "inline", code=2)  # the database is not there
    assert "postgresql+psycopg://me:***@127.0.0.1:1/sweeps" in refused
    over = ["--results", "results.db", "--set", f"results={URL}", "--set", "resources.max_parallel=1"]
    shop.run("run", "given/sweep.yaml", "--backend", "inline", *over)
    at = ("--results", "results.db")
    for arguments in (
        ("status", "shop"),
        ("status", "shop", "--json"),
        *(("logs", f"shop:{number}") for number in range(5)),
        ("compare", "shop"),
        *(("compare", "shop", "-o", f"shop.{ending}") for ending in ("csv", "json", "md", "parquet")),
        ("export", "shop", "-o", "best.json"),
        ("report", "shop", "-o", "shop.html"),
    ):
        shop.say(*arguments, *at, code=0)
    for wrong in (
        ("run", "given/sweep.yaml", *over),
        ("status", "--results", URL),
        ("status", "--results", f"mysql://me:{PASSWORD}@h/d"),
        ("status", "--results", f"postgresql://me@h:{PASSWORD}/d"),
        ("check", "given/sweep.yaml", "--set", f"training.api_key={SECRETS['OPENAI_API_KEY']}"),
        ("check", "given/sweep.yaml", "--set", f"training.word={SECRETS['SHOP_PASSWORD']}"),
        ("check", "given/sweep.yaml", "--set", f"training.place={URL}"),
        ("check", "given/sweep.yaml", "--set", f"model={URL}"),
        ("check", "given/sweep.yaml", "--set", f"results=me:{PASSWORD}@h/d"),
        ("check", "given/sweep.yaml", "--set", URL),
        (URL,),
        ("extend", "shop", "--trials", SECRETS["HF_TOKEN"]),
    ):
        shop.say(*wrong, code=2)
    known = open_results(shop.folder / "results.db")
    reasons = list(known.attempts("shop")["reason"].dropna())
    assert [reason.count("***") for reason in reasons] == [len(SECRETS), 1, 1]
    assert known.spec("shop").results == "postgresql://me:***@127.0.0.1:1/sweeps"
    assert "***" in (shop.folder / "artifacts/shop/trial-0000/log.txt").read_text()
    assert (shop.folder / "artifacts/shop/trial-0004/folder/results.db-wal").stat().st_size > 0
    (shop.folder / "artifacts/shop/trial-0000/folder/command").unlink()  # what was typed is the typist's affair
    assert shop.search() == []
    shop.say("delete", "shop", "--yes", *at, code=0)
    assert shop.search() == []


def test_a_detached_driver_shows_no_password_in_the_list_of_processes(shop: Shop) -> None:
    over = ("--set", f"results={URL}", "--results", "finesweep.db")
    shop.run("run", "given/sweep.yaml", "--detach", "--backend", "inline", "--set=budget.trials=1", *over)
    results = shop.folder / "finesweep.db"
    Workplace(shop.folder).wait_for(lambda known: known.sweeps()["state"].iloc[0] == "FINISHED")
    command = (shop.folder / "artifacts/shop/trial-0000/folder/command").read_bytes().decode().split("\0")
    assert command[3:5] == ["run", "given/sweep.yaml"]
    assert not [argument for argument in command if "results=p" in argument]
    assert open_results(results).provenance("shop")["overrides"] == [
        "budget.trials=1",
        "results=postgresql://me:***@127.0.0.1:1/sweeps",
    ]
    assert shop.search() == []
