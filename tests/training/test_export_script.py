"""A script that was exported comes to the numbers of the trial, and so do exported TrainingArguments."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from tests.training.conftest import CLASSES, WORDS, write_rows

from finesweep.events import (
    AttemptDescribed,
    AttemptEnded,
    AttemptStarted,
    Decision,
    Event,
    Grid,
    Reported,
    Source,
    TrialFinished,
    TrialState,
    TrialSuggested,
)
from finesweep.export.record import ExportRecord, export_record
from finesweep.export.targets import export_to, write_exported
from finesweep.results.frames import open_results
from finesweep.results.writer import open_writer
from finesweep.spec.sweep import TransformersSweep
from finesweep.training.prepare import load_split, prepare

SAME = 1e-6  # what the order in which numbers are summed up may come to
Train = Callable[..., ExportRecord]

# peft asks transformers by names that are to vanish: no user can mend that, and the script is the user's
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")


@pytest.fixture
def train(bench: Any, make_spec: Callable[..., TransformersSweep], tmp_path: Path, cache_dir: Path) -> Train:
    """Train one trial, store it as a sweep does, and gather its record."""

    def train(
        *, grid: Grid | None = None, configuration: Mapping[str, Any] | None = None, **options: Any
    ) -> ExportRecord:
        spec = make_spec(**options)
        grid = grid or Grid("examples", every=40, longest=1000)
        result, told = bench(spec=spec, grid=grid).run()
        given = {"learning_rate": spec.training.learning_rate}
        best = min(told.reports, key=lambda report: spec.study.objective.rank(report.step, value_of(report, spec)))
        if spec.study.objective.value == "last":
            best = told.reports[-1]
        events: list[Event] = [
            TrialSuggested(0, given, given, dict.fromkeys(given, "{}"), Source.SAMPLER, {}, {}),
            AttemptStarted(0, 1),
            AttemptDescribed(0, 1, told.facts),
            *(Reported(0, 1, report, Decision.CONTINUE, {}) for report in told.reports),
            AttemptEnded(0, 1, result),
            TrialFinished(0, TrialState.COMPLETE, None, value_of(best, spec), best.step),
        ]
        prepared = prepare(spec, cache_dir=cache_dir)
        provenance = {"labels": list(prepared.labels), "model_fingerprint": prepared.model_fingerprint}
        with open_writer(tmp_path / "r.db") as writer:
            writer.create_sweep(spec, grid=grid, provenance=provenance)
            writer.listener(spec.name)(events)
            return export_record(open_results(writer.url), spec.name)

    return train


def value_of(report: Any, spec: TransformersSweep) -> float:
    return float(report.metrics[spec.study.objective.metric])


@pytest.fixture
def run_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ExportRecord], dict[str, float]]:
    """Run an exported script in this process: what it costs to import transformers once more is spared."""

    def run(record: ExportRecord) -> dict[str, float]:
        folder = tmp_path / "exported"
        folder.mkdir()
        write_exported(export_to(record, "script"), folder / "train.py", force=False)
        monkeypatch.chdir(folder)
        runpy.run_path("train.py", run_name="__main__")
        return read_metrics(folder / f"{record.sweep}-0")

    return run


def read_metrics(folder: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return metrics


def check_same(found: Mapping[str, float], record: ExportRecord) -> None:
    wanted = {name: value for name, value in record.metrics.items() if name != "train_loss"}
    assert found == pytest.approx(wanted, rel=SAME, abs=SAME, nan_ok=True)
    assert len(wanted) > 2


LABELLED = {
    "whole": {"device_batch_size": 4, "warmup_ratio": 0.3, "lr_scheduler_type": "cosine", "weight_decay": 0.1},
    "bf16": {"bf16": True, "label_smoothing_factor": 0.1, "train_sampling_strategy": "sequential"},
    "blocks": {
        "method": "feature-extraction",
        "unfrozen_layers": 1,
        "pooling": "mean",
        "train_sampling_strategy": "group_by_length",
        "dataloader_drop_last": True,
    },
    "head": {"method": "feature-extraction", "pooling": "cls", "learning_rate": 0.05},
    "adapters": {"method": "lora", "lora_rank": 2, "lora_alpha": 3.0, "lora_dropout": 0.1, "pooling": "mean"},
    "some adapters": {"method": "lora", "lora_target_modules": "query, attention.output.dense"},
    "pairs": {"data": {"text_pair": "label"}},
    "chosen": {"data": {"validation": 0.3, "test": 0.1, "max_train_rows": 25, "max_validation_rows": 9, "seed": 4}},
}


@pytest.mark.parametrize("case", LABELLED)
def test_a_classifier_comes_to_the_number_of_the_trial(train: Train, run_script: Any, case: str) -> None:
    options = {"learning_rate": 2e-2 if case == "head" else 3e-3, "batch_size": 8, **LABELLED[case]}
    record = train(objective={"metric": "accuracy", "direction": "maximize"}, **options)
    check_same(run_script(record), record)


@pytest.mark.parametrize("task", ["multi-label-classification", "regression"])
@pytest.mark.parametrize("more", [{}, {"validation": 0.4, "max_train_rows": 20}])
def test_other_labelled_tasks_do(train: Train, run_script: Any, task: str, more: Mapping[str, Any]) -> None:
    last = {"metric": "loss", "direction": "minimize", "value": "last"}
    record = train(task=task, data=more, objective=last, epochs=2.5, batch_size=4)
    check_same(run_script(record), record)


GENERATIVE = {
    "whole": {"warmup_steps": 3, "device_batch_size": 2},
    "blocks": {"method": "feature-extraction", "unfrozen_layers": 1},
    "adapters": {"method": "lora", "lora_dropout": 0.2, "lora_target_modules": "q_proj,v_proj"},
    "chosen": {"data": {"validation": 0.2, "max_train_rows": 30, "max_validation_rows": 7}},
}


@pytest.mark.parametrize("case", GENERATIVE)
def test_a_language_model_does(train: Train, run_script: Any, tied_llama: Path, case: str) -> None:
    record = train(model=tied_llama, task="causal-lm", learning_rate=5e-3, **GENERATIVE[case])
    check_same(run_script(record), record)


@pytest.mark.parametrize("is_marked", [False, True])
def test_a_chatting_model_does(
    train: Train, run_script: Any, chatting_llama: Path, tmp_path: Path, is_marked: bool
) -> None:
    rows = [
        {
            "messages": [
                {"role": role, "content": " ".join(WORDS[(i * 7 + place * 3 + k) % 60] for k in range(3))}
                for place, role in enumerate(("user", "assistant", "user", "assistant"))
            ]
        }
        for i in range(24)
    ]
    if is_marked:
        tokenizer = transformers.AutoTokenizer.from_pretrained(chatting_llama)
        tokenizer.chat_template = (
            "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ 'w1 ' }}{% generation %}"
            "{{ message['content'] + ' [EOS] ' }}{% endgeneration %}{% else %}{{ message['content'] + ' ' }}{% endif %}"
            "{% endfor %}"
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(chatting_llama)
        chatting_llama = tmp_path / "marked"
        model.save_pretrained(chatting_llama)
        tokenizer.save_pretrained(chatting_llama)
    data = {"train": str(write_rows(tmp_path / "chats.jsonl", rows)), "validation": 0.25, "format": "messages"}
    record = train(model=chatting_llama, task="causal-lm", data={**data, "max_length": 20}, learning_rate=5e-3)
    check_same(run_script(record), record)


@pytest.mark.parametrize("kind", [".txt", ".csv"])
def test_a_model_of_plain_texts_does(
    train: Train, run_script: Any, tied_llama: Path, tmp_path: Path, kind: str
) -> None:
    lines = [" ".join(WORDS[(i * 5 + k) % 60] for k in range(2 + i % 9)) for i in range(60)]
    path = tmp_path / f"texts{kind}"
    path.write_text("\n".join(["text", *lines] if kind == ".csv" else lines) + "\n")
    data = {"train": str(path), "validation": 0.2, "format": "text", "max_train_rows": None if kind == ".txt" else 9}
    record = train(model=tied_llama, task="causal-lm", data=data, learning_rate=5e-3)
    check_same(run_script(record), record)


@pytest.mark.parametrize("kind", [".csv", ".parquet", ".arrow", "saved"])
def test_whatever_kind_of_file_the_rows_are_in(
    train: Train, run_script: Any, data_dir: Path, tmp_path: Path, kind: str
) -> None:
    rows = datasets.Dataset.from_list(
        [json.loads(line) for line in (data_dir / "train.jsonl").read_text().splitlines()]
    )
    path = tmp_path / f"rows{kind}"
    data: dict[str, Any] = {"train": str(path), "validation": 0.3}
    if kind == "saved":
        named = rows.cast_column("label", datasets.ClassLabel(names=[*reversed(CLASSES), "unused"]))
        datasets.DatasetDict({"all": named, "rest": named.select(range(9))}).save_to_disk(path)
        data = {"dataset": str(path), "train": "all[:40]+rest", "validation": "all[40:]"}
    elif kind == ".csv":
        rows.add_column("more", ["", *["x"] * (len(rows) - 1)]).to_csv(path)
        data |= {"incomplete": "leave-out", "text_pair": "more"}
    elif kind == ".parquet":
        rows.to_parquet(path)
    else:
        rows.save_to_disk(tmp_path / "folder")
        next((tmp_path / "folder").glob("*.arrow")).rename(path)
    record = train(data=data, learning_rate=3e-3)
    check_same(run_script(record), record)


def test_a_grid_of_progress_is_met_at_its_step(train: Train, run_script: Any) -> None:
    record = train(grid=Grid("progress", every=30, longest=100), learning_rate=0.3, lr_scheduler_type="constant")
    assert record.value_step is not None and record.value_step < 100
    check_same(run_script(record), record)


def test_the_script_runs_by_itself(train: Train, tmp_path: Path) -> None:
    record = train(method="lora", objective={"metric": "accuracy", "direction": "maximize"}, learning_rate=5e-3)
    exported = export_to(record, "script")
    assert "finesweep" not in exported.text.replace("`finesweep export`", "")
    write_exported(exported, tmp_path / "train.py", force=False)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "train.py")],
        cwd=tmp_path, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_same(read_metrics(tmp_path / "tiny-0"), record)
    assert f"The trial came to accuracy {record.value!r}." in done.stdout


def test_exported_arguments_come_to_the_number_under_a_plain_trainer(
    train: Train, make_spec: Callable[..., TransformersSweep], tmp_path: Path, cache_dir: Path, tokenizer: Any
) -> None:
    options = {"learning_rate": 3e-3, "warmup_ratio": 0.25, "lr_scheduler_type": "cosine", "batch_size": 8}
    last = {"metric": "loss", "direction": "minimize", "value": "last"}
    record = train(objective=last, **options)
    path = tmp_path / "arguments.json"
    write_exported(export_to(record, "trainer"), path, force=False)
    (arguments,) = transformers.HfArgumentParser((transformers.TrainingArguments,)).parse_json_file(str(path))
    assert arguments.warmup_steps == record.facts["warmup_steps"] > 0
    arguments.output_dir, arguments.dataloader_pin_memory = str(tmp_path / "out"), False  # which warns without a GPU
    transformers.set_seed(arguments.seed)
    spec = make_spec(**options)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(spec.model.name, num_labels=len(CLASSES))
    prepared = prepare(spec, cache_dir=cache_dir)
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=load_split(prepared, "train"),
        eval_dataset=load_split(prepared, "validation"),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(record.value, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "causal-lm"])
def test_two_processes_share_the_batch(
    train: Train, task: str, tiny_bert: Path, tied_llama: Path, tmp_path: Path
) -> None:
    """Without dropout, of which each process would draw its own, both come to what one device does."""
    model = tied_llama
    if task == "classification":
        model = tmp_path / "bert"
        config = transformers.AutoConfig.from_pretrained(tiny_bert, hidden_dropout_prob=0.0)
        config.attention_probs_dropout_prob = 0.0
        transformers.AutoModel.from_pretrained(tiny_bert, config=config).save_pretrained(model)
        transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(model)
    record = train(task=task, model=model, batch_size=6, learning_rate=3e-3, data={"max_train_rows": 48})
    write_exported(export_to(record, "script", n_devices=2), tmp_path / "train.py", force=False)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The trial came to") == 1
    assert read_metrics(tmp_path / "tiny-0")["loss"] == pytest.approx(record.metrics["loss"], rel=1e-4)


TRL = """
import sys
from trl.scripts.sft import main, make_parser

given = ["--config", sys.argv[1], "--use_cpu", "true", "--dataloader_pin_memory", "false"]
main(*make_parser().parse_args_and_config(args=given))
"""


@pytest.mark.slow
def test_trl_comes_to_the_number_of_the_trial(
    train: Train, tied_llama: Path, data_dir: Path, tmp_path: Path, tokenizer: Any
) -> None:
    """By the exported configuration alone; its model is judged here, since trl has no word for the validation rows."""
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), "trl==1.16.0"]
    if subprocess.run(install, capture_output=True).returncode != 0:
        pytest.skip("trl cannot be installed here")
    last = {"metric": "loss", "direction": "minimize", "value": "last"}
    options = {"device_batch_size": 4, "warmup_steps": 3, "lr_scheduler_type": "cosine", "learning_rate": 5e-3}
    data = {}
    for split in ("train", "validation"):  # trl tokenises prompt and completion as one text
        rows = (json.loads(line) for line in (data_dir / f"generative_{split}.jsonl").read_text().splitlines())
        spaced = [{**row, "completion": f" {row['completion']}"} for row in rows]
        data[split] = str(write_rows(tmp_path / f"{split}.jsonl", spaced))
    record = train(model=tied_llama, task="causal-lm", objective=last, data=data, **options)
    write_exported(export_to(record, "trl"), tmp_path / "trl.yaml", force=False)
    (tmp_path / "run.py").write_text(TRL)
    done = subprocess.run(
        [sys.executable, "run.py", "trl.yaml"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(packages)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tiny-0")
    nll, n_tokens = 0.0, 0
    for row in datasets.Dataset.from_json(record.data["validation"], keep_in_memory=True):  # type: ignore[index]
        prompt, answer = tokenizer(row["prompt"])["input_ids"], tokenizer(row["completion"])["input_ids"]
        ids = torch.tensor([*prompt, *answer, tokenizer.eos_token_id][:16])
        logits = model(ids[None]).logits[0, len(prompt) - 1 : -1]
        nll += torch.nn.functional.cross_entropy(logits, ids[len(prompt) :], reduction="sum").item()
        n_tokens += len(ids) - len(prompt)
    assert nll / n_tokens == pytest.approx(record.value, rel=1e-5)
