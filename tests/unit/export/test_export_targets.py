"""Every setting that a record can hold is said to each target, warned about or refused: none is dropped silently."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from finesweep.errors import ExportError
from finesweep.export.exported import Exported
from finesweep.export.ledger import NEEDLESS
from finesweep.export.record import ExportRecord
from finesweep.export.targets import FORMATS, ending_of, export_to, write_exported
from finesweep.spec.settings import passed_on_settings, training_arguments, value_problem
from finesweep.spec.sweep import DataSpec, ModelSpec, TrainingSpec

MakeRecord = Callable[..., ExportRecord]
ORDER = ("trainer", "script", "axolotl", "llamafactory", "trl", "openai")  # of the columns in docs/exports.md
TARGETS = [name for name in FORMATS if name not in ("json", "yaml")]
FACTS = {
    "device_batch_size": 4,
    "warmup_steps": 7,
    "optimizer_steps": 30,
    "examples_per_epoch": 160,
    "last_step": 480,
    "unfrozen_modules": ["lm_head", "model.layers.2", "model.layers.3", "model.norm"],
    "frozen_modules": ["model.embed_tokens", "model.layers.0", "model.layers.1"],
}
OWN: Mapping[str, Any] = {  # a value of each own setting that is not its default
    "method": "lora",
    "unfrozen_layers": 2,
    "pooling": "mean",
    "lora_rank": 4,
    "lora_alpha": 32.0,
    "lora_dropout": 0.25,
    "lora_target_modules": "q_proj, v_proj",
    "learning_rate": 1.5e-4,
    "batch_size": 32,
    "epochs": 5.0,
    "warmup_steps": 11,
    "warmup_ratio": 0.25,
    "weight_decay": 0.125,
    "early_stopping_patience": 2,
    "early_stopping_min_delta": 0.5,
    "divergence_factor": 9.0,
    "device_batch_size": 2,
    "seed": 77,
    "eval_every": 33,
    "checkpoint_minutes": 4.0,
    "report_to": ["tensorboard"],
}
MODEL: Mapping[str, Any] = {
    "name": "org/other",
    "revision": "v2",
    "dtype": "bfloat16",
    "attention": "eager",
    "quantize": "4bit",
    "trust_remote_code": True,
    "allow_pickle": True,
}
DATA: Mapping[str, Any] = {
    "dataset": "org/rows",
    "config": "one",
    "revision": "v3",
    "train": "/data/other.jsonl",
    "validation": 0.25,
    "test": "/data/test.jsonl",
    "format": "messages",
    "text": "body",
    "text_pair": "second",
    "label": "class",
    "prompt": "question",
    "completion": "answer",
    "messages": "chat",
    "max_length": 64,
    "max_train_rows": 99,
    "max_validation_rows": 9,
    "incomplete": "leave-out",
    "seed": 6,
}
CONTEXT: Mapping[str, Mapping[str, Any]] = {  # what makes a setting mean something
    **{f"settings.lora_{name}": {"settings.method": "lora"} for name in ("rank", "alpha", "dropout", "target_modules")},
    "settings.unfrozen_layers": {"settings.method": "feature-extraction", "settings.unfrozen_layers": 1},
    "settings.early_stopping_min_delta": {"settings.early_stopping_patience": 3},
    "model.quantize": {"settings.method": "lora"},
    "data.config": {"data.dataset": "org/rows", "data.train": "train", "data.validation": "validation"},
    "data.revision": {"data.dataset": "org/rows", "data.train": "train", "data.validation": "validation"},
    "model.revision": {"model.name": "org/tiny"},
    "data.text": {"data.format": "text"},
    "data.messages": {"data.format": "messages"},
    "data.seed": {"data.max_train_rows": 50},
}
ALONG = {"data.dataset": {"data.train": "train", "data.validation": "validation"}}
NOT_OF_THIS_TASK = {"data.text_pair", "data.label"}  # which has no use for them
SETTLED = {  # said by something else
    ("script", "settings.early_stopping_patience"): "the script ends where the trial's value came from",
    ("script", "settings.early_stopping_min_delta"): "the script ends where the trial's value came from",
    ("script", "settings.unfrozen_layers"): "the modules that moved",
    ("axolotl", "settings.unfrozen_layers"): "the modules that moved",
    ("trl", "settings.unfrozen_layers"): "the method is refused",
    ("openai", "settings.unfrozen_layers"): "the method is refused",
}


@pytest.fixture
def causal(make_record: MakeRecord) -> ExportRecord:
    """Make the record of a language model trained whole, which more targets take than others."""
    objective = {"metric": "loss", "direction": "minimize"}
    record = make_record(
        task="causal-lm",
        model="/models/tiny",
        study={"objective": objective, "parameters": {"learning_rate": {"type": "float", "low": 1e-6, "high": 1}}},
        configuration={"learning_rate": 3e-5},
        training={"batch_size": 16, "warmup_steps": 7},
        data={"train": "/data/train.jsonl", "validation": "/data/validation.jsonl"},
    )
    return replace(record, facts=FACTS, value_step=480, metrics={"loss": 0.5}, value=0.5)


def changed(record: ExportRecord, values: Mapping[str, Any]) -> ExportRecord:
    sections: dict[str, Any] = {}
    for item, value in values.items():
        section, _, name = item.partition(".")
        sections.setdefault(section, dict(getattr(record, section)))[name] = value
    facts = dict(record.facts)
    for name in ("warmup_steps", "warmup_ratio"):
        if f"settings.{name}" in values:
            facts["warmup_steps"] = 15
    if "settings.device_batch_size" in values:
        facts["device_batch_size"] = values["settings.device_batch_size"]
    if "settings.seed" in values:
        sections["seed"] = values["settings.seed"]
    return replace(record, facts=facts, **sections)


def outcome(record: ExportRecord, target: str) -> tuple[str, str]:
    """Return what is written, and what is said of it: warnings or a refusal."""
    try:
        exported = export_to(record, target)
    except ExportError as error:
        return "", str(error)
    return exported.text + json.dumps(exported.beside), "\n".join(exported.warnings)


def check_is_told(record: ExportRecord, item: str, value: Any, target: str) -> None:
    before = changed(record, CONTEXT.get(item, {}))
    after = changed(before, {item: value, **ALONG.get(item, {})})
    written, said = outcome(after, target)
    if (target, item) in SETTLED or item in NEEDLESS or item in NOT_OF_THIS_TASK:
        return
    otherwise_written, otherwise_said = outcome(before, target)
    name = rf"(^|: ){re.escape(item)}: |^{item.partition('.')[0]}: "
    is_named = re.search(name, said if said == otherwise_said else f"{said}\n{otherwise_said}", re.MULTILINE)
    is_written = written and written != otherwise_written
    assert is_written or is_named, f"{target} does not say {item}"


def fate(record: ExportRecord, item: str, value: Any, target: str) -> str:
    """Say in a word what becomes of an item that is set."""
    if item in NEEDLESS and (target, item) != ("trainer", "settings.report_to"):
        return "—"
    if SETTLED.get((target, item)) == "the method is refused":
        return "refused"
    before = changed(record, CONTEXT.get(item, {}))
    written, said = outcome(changed(before, {item: value, **ALONG.get(item, {})}), target)
    is_named = re.search(rf"(^|: ){re.escape(item)}: |^{item.partition('.')[0]}: ", said, re.MULTILINE)
    return "said" if not is_named else "warned" if written else "refused"


def sample(name: str) -> Any:
    """Return a value of a passed-on argument that is not its default."""
    argument = training_arguments()[name]
    default = argument.get("default")
    candidates: list[Any] = [*argument.get("choices", ())]
    for kind in argument["types"]:
        candidates += {"bool": [not default], "int": [3, 5], "float": [0.25], "dict": [{"a": 1}], "str": ["x"]}.get(
            kind, []
        )
    return next(value for value in candidates if value != default and value_problem(name, value) is None)


@pytest.mark.parametrize("target", TARGETS)
def test_no_setting_of_ours_is_dropped_silently(causal: ExportRecord, target: str) -> None:
    assert set(OWN) == set(TrainingSpec.model_fields)
    for name, value in OWN.items():
        assert value != TrainingSpec.model_fields[name].default
        check_is_told(causal, f"settings.{name}", value, target)


@pytest.mark.parametrize("target", TARGETS)
def test_no_argument_that_is_passed_on_is_dropped_silently(causal: ExportRecord, target: str) -> None:
    for name in passed_on_settings():
        check_is_told(causal, f"settings.{name}", sample(name), target)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_of_model_data_and_evaluation_is_dropped_silently(causal: ExportRecord, target: str) -> None:
    for section, values, spec in (("model", MODEL, ModelSpec), ("data", DATA, DataSpec)):
        assert set(values) == set(spec.model_fields)
        for name, value in values.items():
            check_is_told(causal, f"{section}.{name}", value, target)
    check_is_told(causal, "evaluation.metrics", {"mine": "scores:mine"}, target)
    check_is_told(causal, "evaluation.generation", {"rows": 3}, target)


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "openai"])
@pytest.mark.parametrize("n_devices", [1, 4, 8])
def test_the_effective_batch_is_kept_on_any_number_of_devices(
    causal: ExportRecord, target: str, n_devices: int
) -> None:
    exported = export_to(causal, target, n_devices=n_devices)
    if target == "script":
        assert "BATCH_SIZE = 16 " in exported.text
        return
    content = yaml.safe_load(exported.text)
    micro = content.get("per_device_train_batch_size", content.get("micro_batch_size"))
    assert micro * content["gradient_accumulation_steps"] * n_devices == 16
    assert micro == {1: 4, 4: 4, 8: 2}[n_devices]  # never more than the trial's device took
    assert content["warmup_steps"] == 7  # steps are steps, since the batch is the same


@pytest.mark.parametrize("target", [target for target in FORMATS if target != "openai"])
def test_devices_that_do_not_divide_the_batch_are_refused_with_those_that_do(causal: ExportRecord, target: str) -> None:
    with pytest.raises(ExportError) as raised:
        export_to(causal, target, n_devices=6)
    assert "16 examples of an optimizer step cannot be shared alike by 6 devices" in str(raised.value)
    assert "Use 1, 2, 4, 8 or 16 devices; or train with a batch_size such as 12 or 18" in str(raised.value)


def test_a_record_for_devices_says_what_one_takes(causal: ExportRecord) -> None:
    content = json.loads(export_to(causal, "json", n_devices=8).text)
    assert (content["n_devices"], content["settings"]["device_batch_size"]) == (8, 2)
    assert content["settings"]["batch_size"] == 16


def test_freezing_is_said_in_each_targets_own_words(causal: ExportRecord) -> None:
    record = changed(causal, {"settings.method": "feature-extraction", "settings.unfrozen_layers": 2})
    axolotl = yaml.safe_load(export_to(record, "axolotl").text)
    assert axolotl["unfrozen_parameters"] == [f"^{module}." for module in FACTS["unfrozen_modules"]]
    exported = export_to(record, "llamafactory")
    factory = yaml.safe_load(exported.text)
    assert (factory["finetuning_type"], factory["freeze_trainable_layers"]) == ("freeze", 2)
    assert factory["freeze_extra_modules"] == "lm_head"
    assert any(warning.startswith("settings.unfrozen_layers: norm behind the blocks") for warning in exported.warnings)
    with pytest.raises(ExportError, match=r"settings\.method: .* for which trl has no word\. Use --to script"):
        export_to(record, "trl")
    untold = replace(record, facts={})
    for target in ("axolotl", "llamafactory", "script"):
        with pytest.raises(ExportError, match=r"an older finesweep trained it\. Train it again"):
            export_to(untold, target)


def test_adapters_are_said_in_each_targets_own_words(causal: ExportRecord) -> None:
    record = changed(causal, {"settings.method": "lora", "settings.lora_rank": 4, "settings.lora_alpha": 16.0})
    axolotl, factory, trl = (
        yaml.safe_load(export_to(record, name).text) for name in ("axolotl", "llamafactory", "trl")
    )
    assert (axolotl["adapter"], axolotl["lora_r"], axolotl["lora_target_linear"]) == ("lora", 4, True)
    assert (factory["finetuning_type"], factory["lora_rank"], factory["lora_target"]) == ("lora", 4, "all")
    assert (trl["use_peft"], trl["lora_r"], trl["lora_target_modules"]) == (True, 4, "all-linear")
    with pytest.raises(ExportError, match=r"settings\.lora_alpha: 1\.5 is not a whole number, which Axolotl takes"):
        export_to(changed(record, {"settings.lora_alpha": 1.5}), "axolotl")


@pytest.mark.parametrize("target", ["axolotl", "llamafactory", "trl", "openai"])
def test_other_tasks_are_refused_by_what_trains_language_models(make_record: MakeRecord, target: str) -> None:
    with pytest.raises(ExportError, match=r"tickets:0 cannot be exported to \w.*: task: classification .*--to script"):
        export_to(make_record(), target)


def test_own_trainers_are_exported_as_records_and_to_openai(make_record: MakeRecord) -> None:
    record = make_record(
        configuration={"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.5, "style": "plain"},
        trainer="mine:train", model=None, task=None, data=None, training={"seed": 4},
    )  # fmt: skip
    for target in ("script", "trainer", "trl"):
        with pytest.raises(ExportError, match=r"trainer: mine:train is a function of your own"):
            export_to(record, target)
    exported = export_to(record, "openai")
    method = json.loads(exported.text)["method"]
    assert method == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.5}},
    }
    assert 'settings.style: "plain" is not said: OpenAI has no word for it.' in exported.warnings


def test_openai_is_warned_of_all_that_it_decides_itself(causal: ExportRecord) -> None:
    exported = export_to(changed(causal, {"settings.epochs": 2.5}), "openai")
    hyperparameters = json.loads(exported.text)["method"]["supervised"]["hyperparameters"]
    assert hyperparameters == {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": "auto"}
    said = "\n".join(exported.warnings)
    for item in ("learning_rate", "warmup_steps", "epochs"):
        assert f"settings.{item}: " in said
    with pytest.raises(ExportError, match="--devices: OpenAI trains on devices of its own"):
        export_to(causal, "openai", n_devices=2)


def test_columns_that_the_task_does_not_read_need_not_be_said(causal: ExportRecord) -> None:
    record = changed(causal, {"data.label": "class", "data.messages": "chats", "settings.lora_rank": 64})
    assert export_to(record, "script") == export_to(causal, "script")


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "adapters": {"settings.method": "lora", "settings.lora_target_modules": "q_proj, v_proj"},
    "chats": {"data.format": "messages", "data.validation": 0.2, "data.incomplete": "leave-out"},
    "text": {"data.format": "text", "data.train": "/data/book.txt", "data.validation": 0.1},
    "blocks": {"settings.method": "feature-extraction", "data.format": "text", "data.max_train_rows": 9},
    "hub": {
        "data.dataset": "org/rows", "data.train": "train", "data.validation": "a[:9]", "data.incomplete": "leave-out",
        "model.trust_remote_code": True, "model.attention": "sdpa", "model.name": "org/m", "model.allow_pickle": True,
    },
    "order": {"settings.dataloader_drop_last": True, "settings.train_sampling_strategy": "group_by_length"},
    "labelled": {"settings.pooling": "cls", "data.text_pair": "second", "data.validation": 0.2},
    "labelled adapters": {"settings.method": "lora", "settings.pooling": "mean", "data.max_validation_rows": 9},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_scripts_are_code_that_a_linter_has_nothing_to_say_of(
    causal: ExportRecord, variant: str, tmp_path: Path
) -> None:
    record = changed(causal, VARIANTS[variant])
    tasks = ("classification", "multi-label-classification", "regression") if "labelled" in variant else ("causal-lm",)
    for task in tasks:
        text = export_to(replace(record, task=task), "script").text
        (tmp_path / f"{task}.py").write_text(text, encoding="utf-8")
    options = ["--isolated", "--quiet", "--no-cache", "--line-length", "120"]
    for arguments in (["check", "--select", "E,F,I,W", *options], ["format", "--check", *options]):
        done = subprocess.run([sys.executable, "-m", "ruff", *arguments, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_value_from_before_the_end_is_warned_of(causal: ExportRecord) -> None:
    early = replace(causal, value_step=320)
    for target in ("axolotl", "llamafactory", "trainer", "trl"):
        assert any("0.5 came at step 320 of 480" in warning for warning in export_to(early, target).warnings)
    script = export_to(early, "script")
    assert not script.warnings
    assert "STOP_AT = 20 " in script.text
    assert "STOP_AT" not in export_to(causal, "script").text


def test_the_commit_of_a_hub_model_is_kept(causal: ExportRecord) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    model = {**causal.model, "name": "org/tiny", "revision": "main", "fingerprint": f"org/tiny@{commit}-bfloat16"}
    record = replace(causal, model=model)
    assert yaml.safe_load(export_to(record, "axolotl").text)["revision_of_model"] == commit
    assert f'REVISION = "{commit}"' in export_to(record, "script").text


def test_files_beside_are_not_replaced_either(causal: ExportRecord, tmp_path: Path) -> None:
    exported = export_to(causal, "llamafactory")
    (tmp_path / "dataset_info.json").write_text("mine")
    path = tmp_path / ending_of("llamafactory")
    with pytest.raises(ExportError, match=r"dataset_info\.json: is already there"):
        write_exported(exported, path, force=False)
    assert not path.exists()
    assert write_exported(exported, path, force=True) == [path, tmp_path / "dataset_info.json"]
    data_sets = json.loads((tmp_path / "dataset_info.json").read_text())
    assert data_sets["tickets-train"]["file_name"] == "/data/train.jsonl"


@pytest.mark.parametrize("target", FORMATS)
def test_each_format_has_a_name_for_its_file(target: str, causal: ExportRecord) -> None:
    assert ending_of(target).endswith((".json", ".yaml", ".py", "json", "yaml"))
    assert isinstance(export_to(causal, target), Exported)


def test_the_table_in_the_documentation_says_what_is_done(causal: ExportRecord) -> None:
    text = (Path(__file__).parents[3] / "docs" / "exports.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"\| `(settings|model|data|evaluation)\.", line)]
    rows = [line.strip("| ").split(" | ") for line in lines]
    table = {row[0].strip("`"): dict(zip(ORDER, row[1:], strict=True)) for row in rows}
    values = {
        **{f"settings.{name}": value for name, value in OWN.items()},
        **{f"model.{name}": value for name, value in MODEL.items()},
        **{f"data.{name}": value for name, value in DATA.items()},
        "evaluation.metrics": {"mine": "scores:mine"},
        "evaluation.generation": {"rows": 3},
    }
    assert set(table) == set(values) - NOT_OF_THIS_TASK
    for item, cells in table.items():
        for target, cell in cells.items():
            done = fate(causal, item, values[item], target)
            assert done in cell or (done == "said" and cell not in ("—", "warned", "refused")), (item, target, done)


def test_what_a_verification_found_stands_at_the_head_of_a_file(causal: ExportRecord) -> None:
    found = {
        "trial": 0, "metric": "loss", "split": "test", "n": 5, "mean": 0.52341, "interval": [0.51741, 0.52941],
        "baseline": {"label": "defaults", "mean": 0.61, "interval": [0.6, 0.62]},
    }  # fmt: skip
    record = replace(causal, verification=found)
    sentence = (
        "Verified over 5 seeds: 0.5234 ± 0.006, defaults 0.61 ± 0.01 (loss on the test rows, which no trial saw)."
    )
    for target in ("axolotl", "llamafactory", "trl"):
        first, second = export_to(record, target).text.splitlines()[:2]
        assert (first, second) == ("# Trial 0 of the sweep tickets, which came to loss 0.5.", f"# {sentence}")
        assert "Verified" not in export_to(causal, target).text
    assert sentence in export_to(record, "script").text.split('"""')[1]


def test_nothing_in_a_record_becomes_code(causal: ExportRecord) -> None:
    """A database may come from anybody, and `export` is said to run nothing of it."""
    evil = '"""\nimport os\nos.abort()\n"""'
    settings = {**causal.settings, "x=1) or print(": 1, "optim": evil}
    record = replace(
        causal,
        settings=settings,
        objective={"metric": evil, "direction": "minimize"},
        data={**causal.data, "prompt": evil, "train": f"/data/{evil}.jsonl"},
        facts={**FACTS, "device": evil, "eval_batch_size": evil, "unfrozen_modules": [evil]},
        provenance={"versions": {"torch": f"2.13{evil}", "transformers": evil}},
        verification={"mean": 0.5, "n": evil, "metric": evil},
    )
    script = export_to(record, "script")
    names = {node.id for node in ast.walk(ast.parse(script.text)) if isinstance(node, ast.Name)}
    assert "abort" not in names
    assert not any(
        isinstance(node, ast.Attribute) and node.attr == "abort" for node in ast.walk(ast.parse(script.text))
    )
    assert "abort" not in script.beside["requirements.txt"]
    assert any("x=1) or print(: 1 is not said" in warning for warning in script.warnings)
    for target in ("axolotl", "llamafactory"):
        assert "os.abort()" not in yaml.safe_load(export_to(record, target).text)
