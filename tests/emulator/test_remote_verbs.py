"""What the other verbs do with a sweep of jobs, and whether what they write works: against a server that trains."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.commandline import invoke
from tests.emulator.conftest import KEY, Server, as_file, jobs_at, wait_for

import finesweep
from finesweep import sweeps
from finesweep.errors import ModelError
from finesweep.export.reading import read_record
from finesweep.export.targets import FORMATS
from finesweep.results.cost import sweep_cost
from finesweep.results.frames import Results, open_results
from finesweep.results.jobs import job_cost
from finesweep.spec.sweep import read_sweep
from finesweep.verification.outcome import read_outcome
from finesweep.views.live import PlainView

Make = Callable[..., Results]


@pytest.fixture
def make_sweep(
    serve: Callable[..., Server], tmp_path: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Server, Make]:
    """Return a server, and a function that runs a sweep of two trials there, in the current folder."""
    monkeypatch.setenv("TRIED_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    server = serve()
    for split, its_rows in (("train", rows), ("validation", rows[:10])):
        (tmp_path / f"{split}.jsonl").write_bytes(as_file(its_rows))

    def make(**sections: Any) -> Results:
        content = {
            **jobs_at(server.base_url, tmp_path, suffix="owl", price_per_million=6.0),
            "study": {
                "objective": {"metric": "loss", "direction": "minimize"},
                "parameters": {
                    "n_epochs": {"type": "int", "low": 2, "high": 6},
                    "learning_rate_multiplier": {"type": "categorical", "choices": ["auto", 300.0]},
                },
            },
            "start_with": [
                {"n_epochs": 6, "learning_rate_multiplier": 300.0},
                {"n_epochs": 2, "learning_rate_multiplier": "auto"},
            ],
            "training": {"batch_size": 4, "seed": 7},
            "budget": {"trials": 2},
        }
        spec = read_sweep(content | sections)
        sweeps.run(spec, results=str(tmp_path / "finesweep.db"), backend="inline", view=PlainView(said.append))
        return open_results(str(tmp_path / "finesweep.db"))

    said: list[str] = []
    make.said = said  # type: ignore[attr-defined]
    return server, make


def begin_by(script: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run an exported script as somebody who has nothing but the client would; give the job that it names."""
    assert "import finesweep" not in script.read_text() and "from finesweep" not in script.read_text()
    found = importlib.util.spec_from_file_location("exported", script)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    capsys.readouterr()
    module.main()
    return capsys.readouterr().out.strip()


def test_an_exported_script_begins_the_same_job(
    make_sweep: tuple[Server, Make], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, make = make_sweep
    best = make().best("animals")
    assert best is not None
    for number in (0, 1):
        ran = invoke("export", f"animals:{number}", "--to", "openai")
        assert ran.exit_code == 0, ran.stderr
        script, *rows_files = map(Path, ran.stdout.split())
        assert (script, len(rows_files)) == (Path(f"animals-{number}.openai.py"), 2)
        made = open_results(str(tmp_path / "finesweep.db")).trial("animals", number).facts
        for told in ("job", "fine_tuned_model"):
            assert made[told] in script.read_text()
        assert KEY not in script.read_text()
        aside = tmp_path / f"aside-{number}"  # another machine: nothing but what was written
        aside.mkdir()
        for file in (script, *rows_files):
            shutil.copy(file, aside)
        files_before = len(server.emulator.store.files())
        job = wait_for(begin_by(aside / script, capsys), server.client())
        first = server.client().fine_tuning.jobs.retrieve(str(made["job"]))
        assert len(server.emulator.store.files()) == files_before  # the server has these rows
        for told in (
            "model",
            "seed",
            "training_file",
            "validation_file",
            "hyperparameters",
            "method",
            "trained_tokens",
        ):
            assert getattr(job, told) == getattr(first, told), told
        assert (
            job.user_provided_suffix == "owl"
            if hasattr(job, "user_provided_suffix")
            else ":owl:" in job.fine_tuned_model
        )
    assert '"learning_rate_multiplier": "auto"' in (tmp_path / "animals-1.openai.py").read_text()
    changed = tmp_path / "aside-0" / rows_files[0]
    changed.write_text(changed.read_text().replace("w1", "w2"))
    with pytest.raises(SystemExit, match="is not what the trial was given: export it again"):
        begin_by(tmp_path / "aside-0" / "animals-0.openai.py", capsys)


def test_a_record_tells_server_and_model_and_no_verb_trains_from_it(make_sweep: tuple[Server, Make]) -> None:
    server, make = make_sweep
    results = make()
    best = results.best("animals")
    assert best is not None
    for target in FORMATS:
        ran = invoke("export", "animals", "--best", "--to", target)
        if target in ("json", "yaml", "openai"):
            assert ran.exit_code == 0, ran.stderr
        else:
            assert ran.exit_code == 2
            assert "was a job of a fine-tuning server" in ran.stderr and "Use --to openai" in ran.stderr
    record = read_record(Path("animals-best.yaml"))
    assert record == read_record(Path("animals-best.json"))
    assert KEY not in Path("animals-best.json").read_text()
    assert record.remote is not None
    remote = dict(record.remote)
    told = ("job", "hyperparameters", "trained_tokens", "cost", "fine_tuned_model", "best_checkpoint")
    assert remote.pop("made") == {name: best.facts[name] for name in told}
    assert {"base_url": server.base_url, "model": "davinci-002", "suffix": "owl"}.items() <= remote.items()
    for target in ("json", "openai"):
        devices = invoke("export", "animals", "--to", target, "--devices", "2", "--force")
        assert (devices.exit_code, "trains on devices of its own. Leave it out" in devices.stderr) == (2, True)
    assert invoke("export", "animals", "--verified").exit_code == 2
    for ran in (invoke("train", "animals-best.json"), invoke("reproduce", f"animals:{best.number}")):
        assert ran.exit_code == 2
        assert f"finesweep export animals:{best.number} --to openai" in ran.stderr
    tuned = str(best.facts["fine_tuned_model"])
    assert tuned in invoke("train", "animals-best.yaml").stderr
    folder = results.artifact_dir("animals") / best.artifacts["folder"]
    with pytest.raises(ModelError, match=re.escape(tuned)):
        finesweep.load_trained(folder)
    assert tuned in invoke("predict", str(folder), "--data", "train.jsonl").stderr
    held = invoke("artifacts", "animals")
    assert (held.exit_code, "What its jobs made is at the server" in held.stdout) == (0, True)
    assert str(best.facts["job"]) in invoke("logs", f"animals:{best.number}").stdout


def test_rows_that_have_changed_are_not_exported(make_sweep: tuple[Server, Make], tmp_path: Path) -> None:
    _, make = make_sweep
    make(budget={"trials": 1})
    file = tmp_path / "train.jsonl"
    file.write_text(file.read_text().replace("w1", "w2"))
    ran = invoke("export", "animals", "--to", "openai")
    assert (ran.exit_code, "the data of sweep 'animals' has changed since it began" in ran.stderr) == (2, True)
    assert invoke("export", "animals", "--to", "json").exit_code == 0


def test_what_jobs_took_is_counted_pruned_ones_too(make_sweep: tuple[Server, Make]) -> None:
    server, make = make_sweep
    study = {
        "objective": {"metric": "valid_loss", "direction": "minimize"},
        "pruner": {"type": "threshold", "upper": 0.5},  # whoever is above is stopped
        "parameters": {"learning_rate_multiplier": {"type": "float", "low": 1, "high": 2}},
    }
    training = {"batch_size": 1, "n_epochs": 50, "eval_every": 60}
    results = make(study=study, training=training, start_with=[], budget={"trials": 1})
    [trial] = results.trials("animals").to_dict("records")
    [job] = server.emulator.store.jobs()
    assert (trial["state"], trial["job"], job.status) == ("PRUNED", job.id, "cancelled")
    assert trial["trained_tokens"] == job.trained_tokens > 0
    cost, jobs = sweep_cost(results, "animals"), job_cost(results, "animals")
    assert (cost.slot_hours, cost.gpu_hours) == (0.0, 0.0)
    assert jobs is not None
    assert (jobs.n_jobs, jobs.trained_tokens, jobs.n_untold) == (1, job.trained_tokens, 0)
    assert jobs.money == pytest.approx(job.trained_tokens * 6e-6)
    # it has told what it may cost before: 50 epochs of a file of so many bytes
    [most] = [line for line in make.said if line.startswith("a job: ")]  # type: ignore[attr-defined]
    assert int(most.split()[2].replace(",", "")) > job.trained_tokens


def test_a_verification_is_paid_of_what_is_left(make_sweep: tuple[Server, Make], tmp_path: Path) -> None:
    server, make = make_sweep
    # holds one job of which nothing is known, and no second such one: what an epoch takes has to be handed on
    budget = 6 * (tmp_path / "train.jsonl").stat().st_size + 1
    results = make(budget={"trials": 2, "tokens": budget})
    took = results.trials("animals").set_index("number")["trained_tokens"]
    left = budget - took.sum()
    options = ("--race-seeds", "1", "--baseline", "defaults", "--yes", "--backend", "inline")
    ran = invoke("verify", "animals", "--seeds", "2", *options)
    assert ran.exit_code == 0, ran.stderr
    usual = took.mean()  # of the defaults, which were never trained
    most = took.sum() + 2 * (took.max() + usual)
    assert f"about {most:,.0f} trained tokens (cost 0.0" in ran.stderr
    assert f"No more than {left:,}, what is left of the sweep's budget." in ran.stderr
    assert "The server measures the validation rows alone" in ran.stdout
    results = open_results(str(tmp_path / "finesweep.db"))
    assert results.spec("animals-verify").budget.tokens == left
    seeds = {job.seed for job in server.emulator.store.jobs()}
    outcome = read_outcome(results, "animals-verify")
    assert outcome is not None and outcome.won is not None
    assert seeds == {7, *outcome.seeds, *outcome.race_seeds}
    [auto] = {(job.hyperparameters.n_epochs, job.seed) for job in server.emulator.store.jobs()} & {
        (n, outcome.seeds[0]) for n in range(1, 51) if n != 6
    }
    assert outcome.baseline == "defaults" and auto
    verified = invoke("export", "animals", "--verified", "--to", "openai")
    assert verified.exit_code == 0, verified.stderr
    assert "Verified over 2 seeds" in Path("animals-verified.openai.py").read_text()

    too_much = invoke("verify", "animals", "--seeds", "200", *options)
    assert too_much.exit_code == 2
    spent = took.sum() + results.trials("animals-verify")["trained_tokens"].sum()
    assert f"of the {budget:,} of the sweep's budget {budget - spent:,} are left" in too_much.stderr
    [total] = re.findall(r"finesweep extend animals --tokens (\d+)", too_much.stderr)
    assert len(server.emulator.store.jobs()) == 2 + 2 + 4
    assert invoke("extend", "animals", "--tokens", total).exit_code == 0
    assert invoke("extend", "animals-verify", "--trials", "99").exit_code == 2
    assert invoke("extend", "animals-verify", "--tokens", "99999").exit_code == 0
