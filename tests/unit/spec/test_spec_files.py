"""Two files in, one spec out, or every fault of both with its file and line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finesweep.errors import SpecError
from finesweep.spec.files import check_sweep, load_sweep
from finesweep.spec.parameters import BranchedParameter, FloatParameter
from finesweep.spec.sweep import read_sweep

if TYPE_CHECKING:
    from conftest import Files


def test_a_right_sweep_loads_with_every_default_written_out(files: Files) -> None:
    spec = files.load()
    assert (spec.name, spec.budget.trials, spec.training.weight_decay) == ("tickets", 60, 0.0)
    rate = spec.study.parameters["learning_rate"]
    assert isinstance(rate, BranchedParameter)
    full = rate.branches["full"]
    assert isinstance(full, FloatParameter)
    assert (full.low, full.high) == (5e-6, 1e-4)
    assert spec.data.train == str(files.root / "sweeps" / "t.jsonl")
    assert files.check().faults == ()


def test_a_stored_sweep_reads_back_equal(files: Files) -> None:
    files.edit("sweep", "seed: 1", "seed: 1\n  lr_scheduler_kwargs: {num_cycles: 2}\n  optim_target_modules: [a, b]")
    files.edit("study", "choices: [8, 16, 32]", "choices: [8, 16, 32], when: {method: [full, feature-extraction]}")
    spec = files.load()
    assert read_sweep(json.loads(spec.model_dump_json())) == spec


def test_six_faults_in_two_files_give_six_messages_in_the_order_of_the_files(files: Files) -> None:
    files.edit("study", "type: tpe", "type: tpee")
    files.edit("study", "low: 1e-4, high: 1e-1", "low: 1e-1, high: 1e-4")
    files.edit("study", "low: 2, high: 5", "low: 2, hihg: 5")
    files.edit("sweep", "t.jsonl", "missing.jsonl")
    files.edit("sweep", "  seed: 1", "  lerning_rate: 1e-3")
    files.edit("sweep", "trials: 60", "trials: many")
    assert files.faults() == [
        'studies/study.yaml:2: study.sampler.type: sampler "tpee" is unknown; did you mean "tpe"?'
        " Known: cmaes, gp, grid, nsga2, qmc, random, tpe.",
        "studies/study.yaml:11: study.parameters.learning_rate.feature-extraction.low: low (0.1) must be below high"
        " (0.0001). Swap them or widen the range.",
        'studies/study.yaml:14: study.parameters.epochs.hihg: key "hihg" is unknown; did you mean "high"?'
        " Known: high, log, low, step, type, when.",
        'sweeps/sweep.yaml:5: data.train: there is no file "missing.jsonl" (sweeps/missing.jsonl).'
        " Paths are relative to the file that names them.",
        'sweeps/sweep.yaml:9: training.lerning_rate: setting "lerning_rate" is unknown; did you mean "learning_rate"?',
        'sweeps/sweep.yaml:12: budget.trials: "many" is not a whole number. Write it as `trials: 20`.',
    ]


def test_load_raises_with_the_faults_that_check_finds(files: Files) -> None:
    files.edit("sweep", "task: classification", "task: ranking")
    with pytest.raises(SpecError) as caught:
        files.load()
    assert caught.value.faults == files.check().faults
    assert str(caught.value).endswith(
        'task "ranking" is unknown. Known: causal-lm, classification, multi-label-classification, regression.'
    )


def test_files_are_shown_as_they_were_given(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.edit("study", "type: tpe", "type: tpee")
    files.edit("sweep", "name: tickets", "name: 3")
    monkeypatch.chdir(files.root)
    shown = [fault.file for fault in check_sweep(Path("sweeps/sweep.yaml")).faults]
    assert shown == ["studies/study.yaml", "sweeps/sweep.yaml"]


def test_a_study_may_stand_in_the_sweep_itself(files: Files) -> None:
    inline = "\n".join("  " + line for line in files.study_path.read_text().splitlines())
    files.edit("sweep", "study: ../studies/study.yaml", "study:\n" + inline.replace("type: tpe", "type: tpee"))
    assert [(fault.line, fault.key) for fault in files.check().faults] == [(4, "study.sampler.type")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file. Check the path."),
        (b"", "the file is empty."),
        (b"# only a comment\n", "the file is empty."),
        (b"{}", "the file says nothing: a sweep needs a name, a study, ..."),
        (b"- a\n- b\n", "the top level must be a mapping of `key: value` lines."),
        (b"a: [1, 2\nb: 3\n", "this is not YAML: expected ',' or ']', but got ':'."),
        (b"name: caf\xe9\n", "the file is not UTF-8 text. Save it as UTF-8."),
        (b"a: " + b"x" * 1_000_000, "the file is larger than 250 kB, far too large for a study or sweep."),
        (
            b"objective: {}\nparameters: {}\n",
            "this is a study. Give a sweep file, which names it: `study: path/to/this.yaml`.",
        ),
    ],
)
def test_a_file_that_is_no_sweep_at_all(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "sweep.yaml"
    if content is not None:
        path.write_bytes(content)
    (fault,) = check_sweep(path).faults
    assert (fault.message, fault.key) == (message, "")


def test_a_folder_is_no_sweep(tmp_path: Path) -> None:
    (fault,) = check_sweep(tmp_path).faults
    assert fault.message == "this is a folder; name the YAML file in it."


def test_a_path_no_system_can_open() -> None:
    for path in (Path("a\0b"), Path("x" * 5000)):
        (fault,) = check_sweep(path).faults
        assert fault.message.startswith("the file cannot be read: ")


def test_a_study_that_is_not_there_is_told_once(files: Files) -> None:
    files.study_path.unlink()
    (fault,) = files.faults("study.sampler.type=gp")
    assert fault.startswith('sweeps/sweep.yaml:2: study: there is no study file "../studies/study.yaml"')


def test_a_study_that_is_not_yaml_is_told_once_with_its_own_line(files: Files) -> None:
    files.study_path.write_text("objective: {metric: loss\nsampler: }\n")
    (fault,) = files.faults()
    assert fault.startswith("studies/study.yaml:2: this is not YAML: ")


@pytest.mark.parametrize("study", ["[a]", "7", "''", '"a\\0b"'])
def test_a_study_that_is_no_path(files: Files, study: str) -> None:
    files.edit("sweep", "../studies/study.yaml", study)
    (fault,) = files.faults()
    assert "is no study. Write the path of a study file" in fault


def test_a_missing_study_is_a_missing_key(files: Files) -> None:
    files.edit("sweep", "study: ../studies/study.yaml\n", "")
    assert files.faults() == [
        "sweeps/sweep.yaml: study: this key is missing. Add it, as in `study: ../studies/my-study.yaml`."
    ]


# --- overrides ---------------------------------------------------------------------------------------------------


def test_overrides_reach_into_sweep_and_study(files: Files) -> None:
    spec = files.load(
        "training.seed=7",
        "study.sampler.type=random",
        "study.parameters.learning_rate.full.low=1e-5",
        "start_with.0.batch_size=32",
        "resources={devices: cpu}",
        "artifacts.keep=none",
    )
    rate = spec.study.parameters["learning_rate"]
    assert isinstance(rate, BranchedParameter)
    full = rate.branches["full"]
    assert isinstance(full, FloatParameter)
    assert (spec.training.seed, spec.study.sampler.type, full.low) == (7, "random", 1e-5)
    assert (spec.start_with[0]["batch_size"], spec.resources.devices, spec.artifacts.keep) == (32, "cpu", "none")


def test_an_override_may_enter_a_section_that_the_file_gives_by_one_of_its_keys(files: Files) -> None:
    files.edit("sweep", "model: org/some-model", "model: ../tiny")
    (files.root / "tiny").mkdir()
    model = files.load("model.dtype=bfloat16", "model.attention=eager").model
    assert (model.name, model.dtype, model.attention) == (str(files.root / "tiny"), "bfloat16", "eager")
    (fault,) = files.faults("model.dtyp=bfloat16")
    assert fault.startswith('--set: model.dtyp: key "dtyp" is unknown; did you mean "dtype"?')


def test_an_override_may_replace_an_item_of_a_list(files: Files) -> None:
    assert files.load("start_with.0={method: full}").start_with == ({"method": "full"},)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.sead=1", '--set: training.sead: setting "sead" is unknown; did you mean "seed"?'),
        ("training.seed=-1", "--set: training.seed: seed is -1 but must be at least 0."),
        ("nmae=x", '--set: nmae: key "nmae" is unknown; did you mean "name"? Known: artifacts, budget, code_dir,'
         " data, evaluation, model, name,"
         " resources, results, start_with, study, task, trainer, training, try_defaults."),
        ("study.parameters.epoch.low=1", '--set: study.parameters.epoch: key "epoch" is unknown; did you mean "epochs"?'
         " Known: batch_size, epochs, learning_rate, method, unfrozen_layers, weight_decay."),
        ("start_with.3.epochs=1", "--set: start_with.3: this is a list of 1; give a number from 0 below that."),
        ("start_with.3=1", "--set: start_with.3: this is a list of 1; give a number from 0 below that."),
        ("name.x=1", "--set: name.x: name is a single value and has no keys. Set it as a whole."),
        ("name.x.y=1", "--set: name.x: name is a single value and has no keys. Set it as a whole."),
        ("training.seed", "--set: training.seed: write it as key.path=value, as in --set training.seed=1."),
        ("a..b=1", "--set: a..b: write it as key.path=value, as in --set training.seed=1."),
        ("training.seed=[1", "--set: training.seed: this is not YAML: expected ',' or ']', but got '<stream end>'."),
        ("training.seed=1\nx: 2", "--set: training.seed: this is more than one line. Give one value, as in [1, 2] or"
         " {type: tpe}."),
        ("study=none.yaml", '--set: study: there is no study file "none.yaml"'),
    ],
)  # fmt: skip
def test_a_wrong_override_is_a_fault_of_the_command_line(files: Files, override: str, message: str) -> None:
    (fault,) = files.faults(override)
    assert fault.startswith(message)


def test_another_study_may_be_given_from_the_current_folder(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    (files.root / "other.yaml").write_text(files.study_path.read_text().replace("seed: 0", "seed: 5"))
    monkeypatch.chdir(files.root)
    assert files.load("study=other.yaml").study.sampler.seed == 5


def test_paths_of_overrides_are_relative_to_the_current_folder(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    (files.root / "more.jsonl").write_text("{}\n")
    monkeypatch.chdir(files.root)
    assert files.load("data.train=more.jsonl").data.train == str(files.root / "more.jsonl")


def test_a_name_may_be_given_beside_the_file(files: Files) -> None:
    assert load_sweep(files.sweep_path, name="second").name == "second"
    (fault,) = check_sweep(files.sweep_path, name="no good").faults
    assert (fault.file, fault.key) == ("--name", "name")


# --- weight ------------------------------------------------------------------------------------------------------


def test_checking_imports_nothing_heavy(files: Files) -> None:
    script = (
        "import sys; from pathlib import Path; from finesweep.spec.files import load_sweep;"
        f"load_sweep(Path({str(files.sweep_path)!r}));"
        "heavy = {'torch', 'ray', 'transformers', 'optuna', 'pandas', 'sqlalchemy', 'numpy', 'datasets'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
