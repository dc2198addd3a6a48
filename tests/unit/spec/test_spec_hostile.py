"""Files and numbers that are meant to break something: each is refused or read, within seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finesweep.errors import SpecError
from finesweep.spec.files import check_sweep, load_sweep
from finesweep.spec.sweep import read_sweep
from finesweep.spec.yaml_tree import LARGEST_FILE_BYTES

if TYPE_CHECKING:
    from conftest import Files

NUMBERS = [".nan", ".inf", "-.inf", "1e400", "-1e400", "-1", "0", "-0.0", "1e-400", "4.9e-324", "1e308", "true", "'5'",
           "[1]", "{}", "9223372036854775807", "9223372036854775808", "1e18", "0x10", "1_000", "null", "1e3", "1.5",
           "0.001", "٣"]  # fmt: skip
KEYS = ["budget.trials", "budget.hours", "budget.retries", "training.seed", "training.eval_every",
        "training.batch_size",
        "training.learning_rate", "training.epochs", "training.warmup_steps", "training.device_batch_size",
        "training.lora_alpha", "training.early_stopping_patience", "training.divergence_factor",
        "training.checkpoint_minutes", "training.adam_beta1", "resources.gpus_per_trial", "resources.cpus_per_trial",
        "resources.max_parallel", "resources.feature_cache_gib", "resources.stack", "resources.devices",
        "data.max_length", "data.max_train_rows", "data.validation", "data.seed", "study.sampler.seed",
        "study.sampler.startup_trials", "study.pruner.first_rung", "study.pruner.reduction_factor",
        "study.parameters.epochs.low", "study.parameters.epochs.high", "study.parameters.weight_decay.low",
        "study.parameters.weight_decay.high", "study.parameters.batch_size.choices.0",
        "start_with.0.learning_rate", "start_with.0.batch_size"]  # fmt: skip
HEAD = "name: s\nmodel: org/m\ntask: classification\nbudget: {trials: 3}\n"
BOMBS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "merges": "a: &a {x: 1}\n"
    + "".join(f"{n}: &{n} {{<<: [{','.join([f'*{o}'] * 9)}]}}\n" for o, n in zip("abcdefgh", "bcdefghi", strict=True)),
    "many merges": "".join(f"k{i}: {{<<: {{a: 1}}}}\n" for i in range(4_000)),
    "many keys": "".join(f"k{i}: 1\n" for i in range(6_000)),
    "one key": "k: 1\n" * 15_000,
    "a long list": f"start_with: [{'1,' * 19_000}]\n",
    "a long key": "x" * 200_000 + ": 1\n",
    "many digits": f"x: {'9' * 200_000}\n",
    "deep": f"x: {'[' * 100_000}{']' * 100_000}\n",
    "deep and open": f"x: {'{a: ' * 60_000}",
    "dashes": f"x:\n{'- ' * 100_000}1\n",
    "a parameter of many choices": "study: {objective: {metric: loss, direction: minimize}, parameters: {batch_size: "
    f"{{type: categorical, choices: [{','.join(map(str, range(1, 6_000)))}]}}}}}}\n",
    "equal choices": "study: {objective: {metric: loss, direction: minimize}, parameters: {batch_size: "
    f"{{type: categorical, choices: [{'8,' * 6_000}]}}}}}}\n",
    "many parameters": "study: {objective: {metric: loss, direction: minimize}, parameters: {"
    + ",".join(f"p{i}: {{type: float, low: 0, high: 1}}" for i in range(1_000))
    + "}}\n",
    "hashes": "# " * 100_000,
    "quotes": 'x: "' + "a\\\n" * 50_000 + '"\n',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_grows_as_it_is_read(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(HEAD + BOMBS[bomb], encoding="utf-8")
    assert path.stat().st_size <= LARGEST_FILE_BYTES
    checked = check_sweep(path)
    said = "\n".join(map(str, checked.faults))
    assert 0 < len(checked.faults) <= 201
    assert len(said) < 200_000


def test_a_file_of_10_mb_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"k: 1\n" * 2_000_000)
    [fault] = check_sweep(path).faults
    assert "larger than 250 kB" in fault.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEAD.encode("utf-16"), "not UTF-8 text"),
        (HEAD.encode("utf-16-le"), "special characters are not allowed"),
        (HEAD.encode() + b"x: a\0b\n", "special characters are not allowed"),
        (HEAD.encode() + b"x: \xff\n", "not UTF-8 text"),
        (HEAD.encode() + b"\tx: 1\n", "cannot start any token"),
        (HEAD.encode() + b'"\\ud800": 1\n', "a lone surrogate"),
        (HEAD.encode() + b'model2: "\\udfff"\n', "a lone surrogate"),
        (HEAD.encode() + b"x: !!python/object/apply:os.system ['true']\n", "the tag !!python/object/apply:os.system"),
        (HEAD.encode() + b"---\n" + HEAD.encode(), "another document"),
    ],
)
def test_a_file_that_is_not_plain_yaml(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    assert said in "\n".join(str(fault) for fault in check_sweep(path).faults)


@pytest.mark.parametrize("change", [lambda t: b"\xef\xbb\xbf" + t, lambda t: t.replace(b"\n", b"\r\n")])
def test_a_mark_or_the_line_ends_of_another_system_change_nothing(shared_files: Files, change: object) -> None:
    shared_files.study_path.write_text(shared_files.right_study, encoding="utf-8")
    shared_files.sweep_path.write_bytes(change(shared_files.right_sweep.encode()))  # type: ignore[operator]
    assert load_sweep(shared_files.sweep_path).name == "tickets"


def test_a_character_written_in_two_halves_is_one(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text('name: "\\ud83d\\ude00"\n')
    assert '"😀"' in "\n".join(str(fault) for fault in check_sweep(path).faults)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(NUMBERS), min_size=1, max_size=2))
def test_any_number_anywhere(shared_files: Files, changes: dict[str, str]) -> None:
    shared_files.study_path.write_text(shared_files.right_study, encoding="utf-8")
    shared_files.sweep_path.write_text(shared_files.right_sweep, encoding="utf-8")
    try:
        spec = load_sweep(shared_files.sweep_path, overrides=[f"{key}={value}" for key, value in changes.items()])
    except SpecError as error:
        assert all(fault.message for fault in error.faults)
    else:
        assert read_sweep(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.adam_beta1=postgresql://me:secret@h/d", "training.adam_beta1: it holds a password"),
        ("model=https://me:secret@h/model", "model: it holds a password"),
        ("start_with.0.method=hf_abcdefghijklmnopqrstuvwx", "start_with.0.method: it holds a token"),
    ],
)
def test_secrets_have_no_place_in_a_sweep(files: Files, override: str, said: str) -> None:
    faults = "\n".join(str(fault) for fault in files.check(override).faults)
    assert said in faults
    assert "environment variable" in faults
    assert "secret@" not in faults
    assert "hf_abc" not in faults


def test_the_password_of_the_results_is_in_nothing_that_is_written_down(files: Files) -> None:
    spec = files.load("results=postgresql://me:secret@h/d")
    assert spec.results == "postgresql://me:secret@h/d"
    assert spec.model_dump(mode="json")["results"] == "postgresql://me:***@h/d"
    assert "secret" not in spec.model_dump_json()
