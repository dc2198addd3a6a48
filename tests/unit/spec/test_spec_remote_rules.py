"""Sweeps of jobs: what the protocol does not know is refused, with the key, the reason and the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finesweep.errors import SpecError
from finesweep.events import Grid
from finesweep.spec.files import check_sweep, load_sweep
from finesweep.spec.grid import AUTO_EPOCHS, plan_grid
from finesweep.spec.remote_rules import REMOTE_METRICS
from finesweep.spec.settings import laid_over
from finesweep.spec.sweep import RemoteSweep, RemoteTraining

SWEEP: dict[str, Any] = {
    "name": "jobs",
    "trainer": "remote",
    "remote": {"base_url": "https://server.test/v1", "model": "davinci-002"},
    "data": {"train": "t.jsonl", "validation": "v.jsonl"},
    "study": {
        "objective": {"metric": "loss", "direction": "minimize"},
        "sampler": {"type": "random"},
        "parameters": {
            "n_epochs": {"type": "int", "low": 1, "high": 3},
            "batch_size": {"type": "categorical", "choices": ["auto", 2, 4]},
            "learning_rate_multiplier": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
        },
    },
    "training": {"seed": 1},
    "budget": {"trials": 3},
}
Faults = Callable[..., list[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name in ("t.jsonl", "v.jsonl"):
        (tmp_path / name).write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP), encoding="utf-8")
    return tmp_path / "sweep.yaml"


@pytest.fixture
def faults(path: Path) -> Faults:
    """Return a function that checks the sweep with overrides."""

    def faults(*overrides: str) -> list[str]:
        return [f"{fault.key}: {fault.message}" for fault in check_sweep(path, overrides=overrides).faults]

    return faults


def load(path: Path, *overrides: str) -> RemoteSweep:
    spec = load_sweep(path, overrides=overrides)
    assert isinstance(spec, RemoteSweep)
    return spec


def test_a_right_sweep_is_right(path: Path, faults: Faults) -> None:
    assert faults() == []
    spec = load(path)
    assert (spec.task, spec.model, spec.training) == ("causal-lm", None, RemoteTraining(seed=1))
    assert (spec.remote.api_key_env, spec.remote.max_concurrent) == ("OPENAI_API_KEY", 4)


def test_chats_are_for_chat_models(faults: Faults) -> None:
    for model in ("gpt-4o-mini-2024-07-18", "ft:gpt-4o:me::1", "meta-llama/Llama-3"):
        assert faults("data.format=messages", f"remote.model={model}") == []


@pytest.mark.parametrize(
    "override",
    [
        "remote.model=a-model-of-any-kind",
        "resources.max_parallel=2",
        "budget.tokens=1000",
        "remote.api_key_env=TOGETHER_API_KEY",
        "remote.api_key_env=my_server_token",
        "remote.base_url=http://127.0.0.1:8777/v1",
        "remote.hyperparameters=top-level",
        "training.n_epochs=auto",
        "study.parameters={n_epochs: {type: int, low: 1, high: 50}, batch_size: {type: int, low: 1, high: 256}}",
        "study.parameters.n_epochs={value: '3 if batch_size == 2 else 1'}",
        "start_with=[{n_epochs: 2, batch_size: auto, learning_rate_multiplier: 1.0}]",
        *(f"study.objective={{metric: {name}, direction: {way}}}" for name, way in REMOTE_METRICS.items()),
    ],
)
def test_what_a_server_can_do_is_allowed(faults: Faults, override: str) -> None:
    if override.startswith("training.n_epochs"):
        assert faults(override, "study.parameters={batch_size: {type: int, low: 1, high: 4}}") == []
    else:
        assert faults(override) == []


NO = "cannot be set: the protocol of fine-tuning servers has no"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("warmup_steps", f"{NO} warm-up. Leave it out."),
        ("warmup_ratio", f"{NO} warm-up. Leave it out."),
        ("weight_decay", f"{NO} weight decay. Leave it out."),
        ("unfrozen_layers", f"{NO} freezing. Leave it out."),
        ("method", f"{NO} choice of which weights move."),
        ("lora_rank", f"{NO} adapters."),
        ("learning_rate", "only learning_rate_multiplier"),
        ("epochs", "it says n_epochs"),
        ("n_epoch", 'did you mean "n_epochs"?'),
        ("whatever", "Known: batch_size, learning_rate_multiplier, n_epochs."),
    ],
)
def test_settings_that_the_protocol_does_not_have(faults: Faults, name: str, told: str) -> None:
    """Searched or fixed, they are told in the same words."""
    [searched] = faults(f"study.parameters.{name}={{type: int, low: 1, high: 2}}")
    [fixed] = faults(f"training.{name}=1")
    assert searched.startswith(f"study.parameters.{name}: ")
    assert fixed.startswith(f"training.{name}: ")
    assert told in searched
    assert told in fixed


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "study.parameters.n_epochs={type: int, low: 0, high: 3}",
            "n_epochs.low: n_epochs is 0 but must be at least 1.",
        ),
        (
            "study.parameters.n_epochs={type: int, low: 1, high: 51}",
            "n_epochs.high: n_epochs is 51 but must be at most 50.",
        ),
        ("study.parameters.n_epochs={type: float, low: 1, high: 3}", "n_epochs.type: n_epochs must be a whole number"),
        ("study.parameters.n_epochs={value: 60}", "n_epochs.value: n_epochs is 60 but must be at most 50."),
        ("study.parameters.batch_size={type: int, low: 1, high: 257}", "batch_size is 257 but must be at most 256."),
        ("study.parameters.batch_size.choices=[auto, 0]", "batch_size is 0 but must be at least 1."),
        (
            "study.parameters.batch_size.choices=[automatic, 2]",
            'batch_size.choices.0: "automatic" is not "auto" or a whole',
        ),
        ("study.parameters.batch_size.choices=[2.5, 2]", 'choices.0: 2.5 is not "auto" or a whole number.'),
        ("study.parameters.learning_rate_multiplier={type: float, low: 0, high: 3}", "must be above 0."),
        ("training.seed=2147483648", "training.seed: seed is 2147483648 but must be below 2147483648."),
        ("start_with=[{n_epochs: 9}]", "start_with.0.n_epochs: 9 is outside n_epochs's range."),
    ],
)
def test_values_that_servers_refuse(faults: Faults, override: str, told: str) -> None:
    found = faults(override)
    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("study.objective.metric=accuracy", 'study.objective.metric: metric of trainer remote "accuracy" is unknown'),
        ("study.objective.metric=perplexity", "Known: loss, token_accuracy, "),
        ("study.objective.metric=full_valid_loss", "full_valid_loss is called loss here. Write that."),
        ("study.objective.direction=maximize", "study.objective.direction: of loss the better is what minimizes it."),
        ("data.format=text", "data.format: fine-tuning servers take prompts with completions, or chats. Choose"),
        ("data.max_length=64", "data.max_length: the server decides how many tokens of a row it takes. Remove"),
        (
            "data.test=0.2",
            "data.test: jobs are judged by validation rows, and test rows would be set aside for nobody.",
        ),
        (
            "training.total_examples=5",
            "total_examples cannot be set: the protocol of fine-tuning servers has no length",
        ),
        (
            "study.parameters.total_examples={type: int, low: 1, high: 5}",
            "total_examples cannot be set: the protocol of fine-tuning servers has no length",
        ),
        ("data.format=messages", 'data.format: "davinci-002" is a completion model, which learns from prompts and'),
        ("remote.model=gpt-4o-mini-2024-07-18", "is a chat model, which learns from chats. Write rows of messages"),
        ("model=roberta-base", "model: with trainer remote the server's model is named as remote.model. Remove"),
        (
            "evaluation={generation: {rows: 3}}",
            "evaluation: the server alone measures, and its events tell what. Remove",
        ),
        ("resources.gpus_per_trial=0.5", "resources.gpus_per_trial: jobs take nothing of this machine"),
        ("resources.devices=cpu", "resources.devices: jobs take nothing of this machine"),
        ("resources.address=auto", "resources.address: jobs take nothing of this machine"),
        ("budget.money=5", "budget.money: what a token costs is not known. Say it as remote.price_per_million."),
        ("budget.tokens=0", "budget.tokens: tokens is 0 but must be at least 1."),
        ("task=classification", 'task: task "classification" is unknown. Known: causal-lm.'),
        ("remote.max_concurrent=0", "remote.max_concurrent: max_concurrent is 0 but must be at least 1."),
        ("remote.poll=3", 'remote.poll: key "poll" is unknown; did you mean "poll_s"?'),
        ("remote.hyperparameters=top", "remote.hyperparameters: "),
    ],
)
def test_what_nobody_would_heed(faults: Faults, override: str, told: str) -> None:
    found = faults(override)
    assert len(found) == 1
    assert told in found[0]


def test_with_a_price_money_is_a_limit(faults: Faults) -> None:
    assert faults("budget.money=5", "remote.price_per_million=6") == []


def test_without_the_section_it_is_missed(path: Path, faults: Faults) -> None:
    path.write_text(yaml.safe_dump({key: value for key, value in SWEEP.items() if key != "remote"}), encoding="utf-8")
    assert faults() == [
        "remote: this key is missing. Add it, as in `remote: {base_url: https://my-server/v1, model: my-model}`."
    ]


@pytest.mark.parametrize("key", ["tokens", "money"])
def test_local_sweeps_have_no_tokens_to_count(tmp_path: Path, path: Path, key: str) -> None:
    (tmp_path / "loop.py").write_text("def train(trial, reporter): ...\n", encoding="utf-8")
    local = {**SWEEP, "trainer": "loop:train", "budget": {"trials": 3, key: 9}}
    path.write_text(yaml.safe_dump({key: value for key, value in local.items() if key != "remote"}), encoding="utf-8")
    found = [f"{fault.key}: {fault.message}" for fault in check_sweep(path).faults]
    assert f"budget.{key}: only trainer remote counts {key}. Remove it, or limit trials or hours." in found


# --- addresses and keys -----------------------------------------------------------------------------------------------

PASTED = (
    "sk-abcdefghij0123456789xyz",
    "sk-proj-A1b2C3d4E5f6G7h8I9j0",
    "f3a9c1d2e4b5a697887766554433221100aabbcc",  # as Together's: a word of letters and digits
    "Bearer abcdefghijklmnop1234",
    "gsk_1234567890abcdefghijklmnopqrstuv",
    "my key",
    "",
)


@pytest.mark.parametrize("pasted", PASTED)
def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(faults: Faults, pasted: str) -> None:
    found = faults(f"remote.api_key_env={pasted!r}")
    assert found
    assert all(fault.startswith("remote.api_key_env: ") for fault in found)
    assert "environment variable" in found[0]
    assert not pasted or pasted not in "\n".join(found)


def test_nor_is_it_repeated_by_what_is_raised(path: Path) -> None:
    with pytest.raises(SpecError) as raised:
        load(path, f"remote.api_key_env={PASTED[2]}")
    assert PASTED[2] not in str(raised.value)


@pytest.mark.parametrize("name", ["SERVER", "MYKEY", "OPENAI_API", "KEY_FILE_PATH"])
def test_a_variable_whose_value_would_be_shown_is_refused(faults: Faults, name: str) -> None:
    [found] = faults(f"remote.api_key_env={name}")
    assert f'"{name}" is not named like a secret, so its value would not be hidden. Use a variable whose name' in found


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "ftp://server.test/v1",
            '"ftp://server.test/v1" is no server\'s address: write it from http:// or https:// on',
        ),
        ("server.test/v1", "is no server's address"),
        ("https://", "is no server's address"),
        ("https://me:open-sesame@server.test/v1", "it holds a password"),
        ("https://open-sesame@server.test/v1", "it holds a password"),
        ("https://server.test/v1?api_key=open-sesame", "it holds a password"),
    ],
)
def test_addresses(faults: Faults, url: str, told: str) -> None:
    found = faults(f"remote.base_url={url}")
    assert found
    assert all(fault.startswith("remote.base_url: ") for fault in found)
    assert any(told in fault for fault in found)
    assert "sesame" not in "\n".join(found)


def test_several_faults_are_told_at_once(faults: Faults) -> None:
    found = faults(
        "remote.api_key_env=SERVER",
        "training.warmup_steps=3",
        "study.objective.metric=accuracy",
        "study.parameters.n_epochs.high=99",
        "data.format=text",
        "model=x",
        "evaluation={generation: {rows: 3}}",
        "resources.devices=cpu",
        "budget.money=3",
    )
    keys = [fault.partition(":")[0] for fault in found]
    assert sorted(keys) == [
        "budget.money",
        "data.format",
        "evaluation",
        "model",
        "remote.api_key_env",
        "resources.devices",
        "study.objective.metric",
        "study.parameters.n_epochs.high",
        "training.warmup_steps",
    ]


# --- settings of a trial, and the grid --------------------------------------------------------------------------------


def test_a_trials_settings_are_checked_once_more(path: Path) -> None:
    training = load(path).training
    settings = laid_over(training, {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5})
    assert settings == RemoteTraining(n_epochs=2, learning_rate_multiplier=0.5, seed=1)
    with pytest.raises(SpecError, match="n_epochs is 60 but must be at most 50"):
        laid_over(training, {"n_epochs": 60})  # of an expression


@pytest.mark.parametrize(
    ("overrides", "grid"),
    [
        ((), Grid("examples", 50, 300)),
        (("training.eval_every=30",), Grid("examples", 30, 300)),
        (("study.parameters.batch_size.choices=[auto, 64]",), Grid("examples", 64, 300)),
        (("study.parameters.n_epochs={type: categorical, choices: [3, 2]}",), Grid("examples", 50, 300)),
        (
            ("study.parameters.n_epochs={type: categorical, choices: [auto, 2]}",),
            Grid("examples", 50, 100 * AUTO_EPOCHS),
        ),
        (
            ("study.parameters={batch_size: {type: int, low: 1, high: 4}}", "training.n_epochs=7"),
            Grid("examples", 50, 700),
        ),
        (("study.parameters={batch_size: {type: int, low: 1, high: 4}}",), Grid("examples", 50, 100 * AUTO_EPOCHS)),
        (("study.pruner={type: asha, compare_at: progress}",), Grid("progress", 20, 100)),
    ],
)
def test_the_grid(path: Path, overrides: tuple[str, ...], grid: Grid) -> None:
    assert plan_grid(load(path, *overrides), n_train_rows=100) == grid


def test_a_first_rung_off_the_grid_is_told(path: Path) -> None:
    with pytest.raises(SpecError, match=r"first_rung \(70\) must be a multiple of eval_every, which is 50"):
        plan_grid(load(path, "study.pruner={type: asha, first_rung: 70, compare_at: examples}"), n_train_rows=100)
