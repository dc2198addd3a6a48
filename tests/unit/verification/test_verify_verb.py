"""The verb verify, with a trainer of one's own that takes no time: cost first, then trained, shown, gone on with."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.commandline import invoke

import finesweep
from finesweep import Reporter, Trial
from finesweep.export.reading import read_record
from finesweep.results.frames import open_results
from finesweep.spec.sweep import SweepSpec, read_sweep
from finesweep.verification.outcome import read_outcome


def train(trial: Trial, reporter: Reporter) -> None:
    """Be as good as x says, more or less: how much so, the seed decides. With x below 0.1 nothing works."""
    x = float(str(trial.configuration["x"]))
    if x < 0.1 and "seed" in trial.configuration:
        raise RuntimeError("out of luck")
    assert trial.settings["seed"] == trial.seed
    noise = random.Random(f"{x} {trial.seed}").uniform(-0.01, 0.01)
    reporter.report(100, {"accuracy": x + noise}, final=True)


def spec_of(folder: Path, *, low: float = 0.2) -> SweepSpec:
    return read_sweep(
        {
            "name": "own",
            "trainer": f"{__name__}:train",
            "study": {
                "objective": {"metric": "accuracy", "direction": "maximize"},
                "sampler": {"type": "random", "seed": 1},
                "parameters": {"x": {"type": "float", "low": low, "high": low + 0.05}},
            },
            "budget": {"trials": 4, "stop_after_failures": 0},
            "resources": {"devices": "cpu", "max_parallel": 1},
            "artifacts": {"folder": str(folder / "artifacts")},
        }
    )


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of four trials."""
    monkeypatch.chdir(tmp_path)
    finesweep.run(spec_of(tmp_path), results=str(tmp_path / "finesweep.db"), backend="inline")
    return tmp_path / "finesweep.db"


def test_verify_tells_its_cost_trains_and_says_what_it_found(database: Path) -> None:
    ran = invoke("verify", "own", "--top", "2", "--seeds", "3", "--baseline", "0", "--yes", "--backend", "inline")
    assert ran.exit_code == 0, ran.stderr
    assert ran.stderr.startswith(
        "own-verify: At most 12 trainings, fewer if a clear loser is dropped: a race of 2 configurations over 3 seeds, "
        "then 3 seeds of the winner and of trial 0. Less than a minute on one slot.\n"
    )
    outcome = read_outcome(open_results(database), "own-verify")
    assert outcome is not None and outcome.won is not None
    assert "Verified over 3 seeds: " in ran.stdout
    assert f"{outcome.won.label}  " in ran.stdout
    assert "A trainer of your own is judged by what it reports" in ran.stdout
    seeds = {record.configuration["seed"] for record in open_results(database).history("own-verify").trials}
    assert seeds >= {1, 2, 4, 5, 6}  # the third of the race only while two are in it
    values = outcome.won.confirmed[0].values
    assert len({*values}) == 3  # trial.seed is another each time


def test_what_was_found_is_shown_with_the_sweep_and_as_json(database: Path) -> None:
    ran = invoke("verify", "own", "--top", "1", "--seeds", "2", "--yes", "--backend", "inline", "--json")
    found = json.loads(ran.stdout)
    assert (found["of"], found["seeds"], found["baseline"], found["is_over"]) == ("own", [1, 2], None, True)
    for verb in ("status", "compare"):
        assert "erified over 2 seeds" in invoke(verb, "own").stdout
    [best] = json.loads(invoke("compare", "own", "--json").stdout)["best"]
    assert best["verified"].startswith("verified over 2 seeds: ")
    listed = json.loads(invoke("status", "--json").stdout)
    assert [row["sweep"] for row in listed] == ["own-verify", "own"]
    assert isinstance(json.loads(invoke("status", "own", "--json").stdout), list)


def test_it_is_asked_for_on_a_terminal_only(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finesweep.cli.verifying.is_terminal", lambda: True)
    refused = invoke("verify", "own", "--top", "1", "--backend", "inline", given="n\n")
    assert (refused.exit_code, "Begin?" in refused.stderr) == (130, True)
    assert list(open_results(database).sweeps()["sweep"]) == ["own"]
    agreed = invoke("verify", "own", "--top", "1", "--seeds", "1", "--backend", "inline", given="y\n")
    assert agreed.exit_code == 0


def test_a_verification_that_was_stopped_is_gone_on_with_and_not_begun_again(database: Path) -> None:
    prepared = invoke("verify", "own", "--yes", "--backend", "inline", "--seeds", "2", "--top", "2")
    assert prepared.exit_code == 0
    results = open_results(database)
    whole = read_outcome(results, "own-verify")
    assert invoke("delete", "own-verify", "--yes").exit_code == 0

    from finesweep import verifying

    verification = verifying.prepare_verification("own", n_seeds=2, top=2)
    stopped = verifying.verify(verification, view=_StopsAfter(3, str(database)), backend="inline")
    assert stopped.state == "INTERRUPTED"
    assert "own-verify, its verification, is INTERRUPTED: " in invoke("status", "own").stdout
    again = invoke("verify", "own", "--yes", "--backend", "inline")
    assert again.exit_code == 2
    assert "own-verify, a verification of own, is not finished. Go on with it: finesweep resume" in again.stderr
    resumed = invoke("resume", "own-verify", "--backend", "inline")
    assert resumed.exit_code == 0
    assert "Verified over 2 seeds" in resumed.stdout
    assert read_outcome(results, "own-verify") == whole


class _StopsAfter:
    """A view that asks to stop after so many events, as `finesweep stop` from another terminal."""

    def __init__(self, n: int, url: str) -> None:
        self._left, self._url = n, url

    def begin(self, *_: object) -> None: ...

    def set_total(self, n_trials: int) -> None: ...

    def __call__(self, events: object) -> None:
        self._left -= 1
        if self._left == 0:
            import signal

            signal.raise_signal(signal.SIGINT)

    def refresh(self) -> None: ...

    def say(self, text: str) -> None: ...


def test_a_finished_verification_is_neither_extended_nor_run_again(database: Path) -> None:
    invoke("verify", "own", "--top", "1", "--seeds", "1", "--yes", "--backend", "inline")
    extended = invoke("extend", "own-verify", "--trials", "9")
    assert extended.exit_code == 2
    assert "is a verification: it trains what its plan says. For more seeds verify again" in extended.stderr
    resumed = invoke("resume", "own-verify", "--backend", "inline")
    assert resumed.exit_code == 0
    assert len(open_results(database).trials("own-verify")) == 1
    verified = invoke("verify", "own-verify", "--yes")
    assert (verified.exit_code, "is a verification itself" in verified.stderr) == (2, True)


def test_where_nothing_comes_to_anything_the_exit_code_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finesweep.run(spec_of(tmp_path, low=0.0), results=str(tmp_path / "finesweep.db"), backend="inline")
    ran = invoke("verify", "own", "--top", "1", "--seeds", "2", "--yes", "--backend", "inline")
    assert ran.exit_code == 1
    assert "found nothing: no training of it has a value" in ran.stdout


def test_names_are_counted_and_kept_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    long = "o" * 80
    spec = spec_of(tmp_path).model_copy(update={"name": long})
    finesweep.run(spec, results=str(tmp_path / "finesweep.db"), backend="inline")
    for _ in range(2):
        assert invoke("verify", long, "--top", "1", "--seeds", "1", "--yes", "--backend", "inline").exit_code == 0
    names = list(open_results(tmp_path / "finesweep.db").sweeps()["sweep"])
    assert names == [long, "o" * 73 + "-verify", "o" * 71 + "-verify-2"]


def test_what_was_verified_is_exported_with_what_was_found(database: Path, tmp_path: Path) -> None:
    verify = ("verify", "own", "--top", "2", "--seeds", "3", "--baseline", "0", "--yes", "--backend", "inline")
    assert invoke(*verify).exit_code == 0
    assert invoke("export", "own", "--verified").exit_code == 0
    record = json.loads((tmp_path / "own-verified.json").read_text())
    found = record["verification"]
    assert (record["trial"], record["objective"]["metric"]) == (found["trial"], found["metric"])
    assert found["n"] == 3 and found["interval"][0] < found["mean"] < found["interval"][1]
    assert read_record(tmp_path / "own-verified.json").verification == found
    others = [number for number in range(4) if number != found["trial"]]
    assert invoke("export", f"own:{others[0]}", "-o", "other.json").exit_code == 0
    assert json.loads((tmp_path / "other.json").read_text())["verification"] is None
