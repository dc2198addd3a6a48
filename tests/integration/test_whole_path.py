"""From a file to an exported configuration, as a user walks it."""

from __future__ import annotations

import json

import optuna
import pandas as pd

from finesweep.export.reading import read_record
from finesweep.export.record import export_record
from tests.integration.conftest import Workplace


def test_a_sweep_runs_on_ray_and_its_results_can_be_read_everywhere(workplace: Workplace) -> None:
    ran = workplace.run("run", "sweep.yaml")
    assert "finesweep export tiny --to json" in ran.stderr
    trials = workplace.results.trials("tiny")
    assert len(trials) == 6
    assert set(trials["state"]) == {"COMPLETE", "PRUNED"}
    pruned = set(trials.loc[trials["state"] == "PRUNED", "number"])
    assert pruned <= set(workplace.results.points("tiny")["number"])
    best = workplace.results.best("tiny")
    assert best is not None and best.number not in pruned
    assert best.value is not None and best.value > 0.6  # of three classes

    url = f"sqlite:///{workplace.folder / 'finesweep.db'}"
    study = optuna.load_study(study_name="tiny", storage=url)
    assert [{"FAIL": "FAILED"}.get(t.state.name, t.state.name) for t in study.trials] == list(
        trials.sort_values("number")["state"]
    )
    assert (study.best_trial.number, study.best_value) == (best.number, best.value)

    status = json.loads(workplace.say("status", "tiny", "--json").stdout)
    assert status[0]["number"] == best.number
    workplace.say("compare", "tiny", "-o", "trials.csv")
    assert len(pd.read_csv(workplace.folder / "trials.csv")) == 6
    workplace.say("export", "tiny", "-o", "best.json")
    exported = json.loads((workplace.folder / "best.json").read_text())
    assert exported["configuration"] == dict(best.configuration)
    assert exported["value"] == best.value
    assert "--force" in workplace.say("export", "tiny", "-o", "best.json", code=2).stderr
    workplace.say("export", "tiny", "--to", "yaml", "-o", "best.yaml")
    read = [read_record(workplace.folder / name) for name in ("best.json", "best.yaml")]
    assert read[0] == read[1] == export_record(workplace.results, "tiny")
    assert "requirements.txt" in workplace.say("export", "tiny", "--to", "script", "-o", "train.py").stdout
    assert "note: model: " in workplace.say("export", "tiny", "--to", "trainer", "-o", "arguments.json").stderr
    assert f"trial {best.number}, attempt 1" in workplace.say("logs", f"tiny:{best.number}").stdout
    assert all((workplace.folder / "artifacts/tiny" / f"trial-{n:04d}" / "log.txt").exists() for n in range(6))


def test_the_best_weights_and_only_those_are_kept_and_load(workplace: Workplace) -> None:
    from finesweep.training.best_weights import load_trained

    workplace.say("run", "sweep.yaml", "--backend", "inline")
    best = workplace.results.best("tiny")
    assert best is not None
    artifact_dir = workplace.folder / "artifacts/tiny"
    kept = [path for path in artifact_dir.glob("trial-*/*") if path.is_dir()]
    assert [path.parent.name for path in kept] == [f"trial-{best.number:04d}"]
    model = load_trained(artifact_dir / best.artifacts["best"], cache_dir=workplace.folder / "cache")
    assert set(model.config.id2label.values()) == {"bone", "heart", "skin"}
    artifacts = workplace.results.artifacts("tiny")
    assert set(artifacts.loc[artifacts["removed_at"].isna(), "number"]) == {best.number}


def test_several_objectives_end_in_a_front(workplace: Workplace) -> None:
    """The second contradicts the first, so that no trial is the best in both."""
    objective = [{"metric": "accuracy", "direction": "maximize"}, {"metric": "loss", "direction": "maximize"}]
    workplace.write({"budget": {"trials": 3}}, study={"objective": objective})
    workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "study.sampler.type=tpe")
    workplace.say("extend", "tiny", "--trials", "6")
    ran = workplace.say("resume", "tiny", "--backend", "inline")
    front = workplace.results.front("tiny")
    assert len(front) > 1
    assert f"No trial beats these {len(front)}, the front:\n  trial {front[0].number}: accuracy " in ran.stderr
    assert "\nNext:\n\n    finesweep compare tiny\n    finesweep verify tiny\n" in ran.stderr
    assert f"    finesweep export tiny:{front[0].number} --to json" in ran.stderr

    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{workplace.folder / 'finesweep.db'}")
    assert study.metric_names == ["accuracy", "loss"]
    assert {tuple(trial.values.values()) for trial in front} == {tuple(trial.values) for trial in study.best_trials}
    assert [trial.state.name for trial in study.trials] == workplace.results.trials("tiny")["state"].tolist()
    assert "PRUNED" in [trial.state.name for trial in study.trials]

    artifact_dir = workplace.folder / "artifacts/tiny"
    kept = {path.parent.name for path in artifact_dir.glob("trial-*/*") if path.is_dir()}
    assert kept == {f"trial-{trial.number:04d}" for trial in front}
    marked = [row["number"] for row in json.loads(workplace.say("status", "tiny", "--json").stdout) if row["on_front"]]
    assert marked == [trial.number for trial in front]
    refused = workplace.say("export", "tiny", code=2).stderr
    assert all(f"tiny:{trial.number}  accuracy" in refused for trial in front)
    workplace.say("export", f"tiny:{front[-1].number}", "-o", "chosen.json")
    exported = json.loads((workplace.folder / "chosen.json").read_text())
    assert exported["metrics"]["loss"] == front[-1].values["loss"]


def test_the_same_sweep_inline_twice_gives_the_same_numbers(workplace: Workplace) -> None:
    for name in ("one", "two"):
        workplace.say("run", "sweep.yaml", "--backend", "inline", "--name", name)
    columns = ["number", "state", "value", "value_step", "learning_rate", "batch_size", "examples_seen"]
    one, two = (workplace.results.trials(name)[columns] for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)


def test_running_a_known_name_says_what_to_do(workplace: Workplace) -> None:
    workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "budget.trials=1")
    same = workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "budget.trials=1", code=2)
    assert "finesweep resume tiny" in same.stderr and "finesweep extend tiny" in same.stderr
    other = workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "training.seed=7", code=2)
    assert "training.seed" in other.stderr and "--name" in other.stderr


def test_extend_resume_and_delete(workplace: Workplace) -> None:
    workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "budget.trials=2")
    before = workplace.results.trials("tiny")
    workplace.say("extend", "tiny", "--trials", "4")
    workplace.say("resume", "tiny", "--backend", "inline")
    after = workplace.results.trials("tiny")
    assert list(after["number"]) == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(before, after.head(2))
    workplace.say("delete", "tiny", "--yes")
    assert workplace.results.sweeps().empty
    assert not (workplace.folder / "artifacts/tiny").exists()
    assert optuna.get_all_study_names(f"sqlite:///{workplace.folder / 'finesweep.db'}") == []


def test_an_exported_record_repeats_its_trial(workplace: Workplace) -> None:
    """The command in the record is run as it stands and gives the same value."""
    import shlex

    workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "budget.trials=3")
    workplace.say("export", "tiny", "-o", "best.json")
    exported = json.loads((workplace.folder / "best.json").read_text())
    program, *arguments = shlex.split(exported["command"])
    assert program == "finesweep"
    workplace.say(*arguments, "--backend", "inline")
    again = workplace.results.best(f"tiny-{exported['trial']}")
    assert again is not None
    assert again.value == exported["value"]


def test_check_loads_and_tries_a_step(workplace: Workplace) -> None:
    checked = workplace.say("check", "sweep.yaml", "--smoke")
    assert "240 training and 60 validation rows" in checked.stderr
    assert "batch size 16" in checked.stderr
    assert "whole sweep: about" in checked.stderr
    bad = workplace.say("check", "sweep.yaml", "--load", "--set", "data.label=queue", code=2)
    assert "queue" in bad.stderr and "label" in bad.stderr


def test_hours_are_a_limit_and_the_sweep_can_go_on_after_them(workplace: Workplace) -> None:
    ran = workplace.say(
        "run",
        "sweep.yaml",
        "--backend",
        "inline",
        "--set",
        "budget.hours=0.0003",  # a second: the first trial is begun within it, also on a busy machine, but not all six
        "--set",
        "training.epochs=20",
        code=0,
    )
    assert "hours" in ran.stderr
    trials = workplace.results.trials("tiny")
    assert 1 <= len(trials) < 6
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert workplace.results.sweeps()["state"].iloc[0] == "FINISHED"


def test_a_sweep_whose_every_trial_fails_exits_1_with_the_tracebacks_kept(workplace: Workplace) -> None:
    """The optimizer needs a library that is not installed."""
    ran = workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "training.optim=adamw_bnb_8bit", code=1)
    assert "no trial was completed" in ran.stderr
    assert ran.stderr.count("5 trials in a row failed for the same reason: ImportError") == 1
    assert workplace.results.sweeps()["state"].iloc[0] == "FAILED"
    attempts = workplace.results.attempts("tiny")
    assert list(attempts["ending"]) == ["failed"] * 5  # of six: that is enough
    assert attempts["traceback"].str.contains("bitsandbytes").all()
    assert "bitsandbytes" in workplace.say("logs", "tiny:0").stdout


def test_two_databases_in_one_folder_do_not_share_a_sweeps_files(workplace: Workplace) -> None:
    one_trial = ("run", "sweep.yaml", "--backend", "inline", "--set", "budget.trials=1")
    workplace.say(*one_trial)
    refused = workplace.say(*one_trial, "--results", "other.db", code=2)
    assert "artifacts.folder" in refused.stderr and "--name" in refused.stderr
    workplace.say(*one_trial, "--results", "other.db", "--name", "other")
    workplace.say("delete", "other", "--yes", "--results", "other.db")
    best = workplace.results.best("tiny")
    assert best is not None
    assert (workplace.folder / "artifacts/tiny" / best.artifacts["best"]).is_dir()


def test_a_log_tells_what_its_trial_reported(workplace: Workplace) -> None:
    workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "budget.trials=1")
    log = workplace.say("logs", "tiny:0", "-f").stdout
    assert "step 120, 120 examples seen" in log
    assert "accuracy 0." in log


def test_resume_refuses_data_that_has_changed(workplace: Workplace) -> None:
    workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "budget.trials=1")
    workplace.say("extend", "tiny", "--trials", "2")
    rows = (workplace.folder / "train.jsonl").read_text().splitlines()
    (workplace.folder / "train.jsonl").write_text("\n".join(rows[:-3]) + "\n")
    refused = workplace.say("resume", "tiny", "--backend", "inline", code=2)
    assert "data has changed" in refused.stderr
    assert len(workplace.results.trials("tiny")) == 1


def test_optuna_dashboard_opens_the_database(workplace: Workplace) -> None:
    from wsgiref.util import setup_testing_defaults

    from optuna_dashboard import wsgi

    workplace.say("run", "sweep.yaml", "--backend", "inline", "--set", "budget.trials=2")
    application = wsgi(f"sqlite:///{workplace.folder / 'finesweep.db'}")
    request: dict[str, object] = {"PATH_INFO": "/api/studies", "REQUEST_METHOD": "GET"}
    setup_testing_defaults(request)
    said: list[str] = []
    body = b"".join(application(request, lambda status, headers, *_: said.append(status)))
    assert said == ["200 OK"]
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["tiny"]
