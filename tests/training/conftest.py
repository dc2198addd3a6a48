"""Tiny models with random weights, small files of rows, and a way to run a trial and see what it told."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from finesweep.events import AttemptResult, Decision, Grid, Report, TrialSpec
from finesweep.spec.sweep import TransformersSweep, read_sweep
from finesweep.training.transformers_trainer import TransformersTrainer, TransformersTrainerFactory

WORDS = [f"w{i}" for i in range(60)]
UNUSED_WORD = "never"
CLASSES = ("bone", "heart", "skin")
PREFIXES = {  # of the files with rows for each task
    "classification": "",
    "multi-label-classification": "multi_label_",
    "regression": "regression_",
    "causal-lm": "generative_",
}
# To look at them on a GPU, give its number; tests that hold trials to the last bit, or to another's draws, fail there.
DEVICES: Any = "cpu" if (gpu := os.environ.get("FINESWEEP_TEST_GPU")) is None else [int(gpu)]
N_TRAIN, N_VALIDATION = 53, 19  # none of the batch sizes below divides them

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ' : ' + message['content'] + ' [EOS] ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[EOS]", UNUSED_WORD, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    )


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A body without a head: the classifier and nothing else is drawn anew."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["tied", "untied"])
def tiny_llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"), tokenizer, is_tied=request.param == "tied")


@pytest.fixture(scope="session")
def tied_llama(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"), tokenizer, is_tied=True)


def make_llama(folder: Path, tokenizer: Any, *, is_tied: bool, initializer_range: float = 0.02) -> Path:
    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        tie_word_embeddings=is_tied,
        initializer_range=initializer_range,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        bos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chatting_llama(tied_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(tied_llama, tmp_path_factory.mktemp("chatting") / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose labels follow from their words, of many lengths; for generation, from a word to its followers."""
    folder = tmp_path_factory.mktemp("data")
    draw, mix = random.Random(0), random.Random(1)
    for split, n in (("train", N_TRAIN), ("validation", N_VALIDATION)):
        rows: dict[str, list[Mapping[str, Any]]] = {prefix: [] for prefix in PREFIXES.values()}
        for i in range(n):
            label = i % len(CLASSES)
            words = draw.choices(WORDS[label * 20 : label * 20 + 20], k=draw.randint(2, 12))
            rows[""].append({"text": " ".join(words), "label": CLASSES[label]})
            rows["generative_"].append({"prompt": words[0], "completion": " ".join(words[1:])})
            kinds = mix.sample(range(len(CLASSES)), k=mix.randint(1, len(CLASSES)))
            words = [mix.choice(WORDS[kind * 20 : kind * 20 + 4]) for kind in kinds for _ in range(3)]
            rows["multi_label_"].append({"text": " ".join(words), "label": [CLASSES[kind] for kind in kinds]})
            rows["regression_"].append({"text": " ".join(words), "label": 2.0 * (0 in kinds) - 0.5 * (1 in kinds)})
        for prefix, of_task in rows.items():
            write_rows(folder / f"{prefix}{split}.jsonl", of_task)
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def make_spec(tiny_bert: Path, data_dir: Path) -> Callable[..., TransformersSweep]:
    """Return a function that makes a sweep: sections by name, everything else is a training setting."""

    def make(
        *,
        model: Path | str = tiny_bert,
        task: str = "classification",
        data: Mapping[str, Any] | None = None,
        objective: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        artifacts: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        **training: Any,
    ) -> TransformersSweep:
        files = {split: str(data_dir / f"{PREFIXES[task]}{split}.jsonl") for split in ("train", "validation")}
        return read_sweep(
            {
                "name": "tiny",
                "study": {
                    "objective": objective or {"metric": "loss", "direction": "minimize"},
                    "parameters": parameters or {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
                },
                "model": str(model),
                "task": task,
                "data": {**files, "max_length": 16, **(data or {})},
                "training": {"learning_rate": 1e-3, "epochs": 2, "seed": 3, **training},
                "budget": {"trials": 1},
                "resources": {"devices": DEVICES, **(resources or {})},
                "artifacts": artifacts or {},
                "evaluation": evaluation or {},
            }
        )

    return make


@dataclass
class Recorder:
    """A reporter that remembers, and that answers as a test wants it to."""

    decide: Callable[[Report], Decision] = lambda report: Decision.CONTINUE
    on_poll: Callable[[int], Decision] = lambda n: Decision.CONTINUE  # given how often it was asked
    reports: list[Report] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    polls: int = 0

    def describe(self, facts: Mapping[str, Any]) -> None:
        self.facts.update(facts)

    def report(self, report: Report) -> Decision:
        self.reports.append(report)
        return self.decide(report)

    def poll(self) -> Decision:
        self.polls += 1
        return self.on_poll(self.polls)

    @property
    def steps(self) -> list[int]:
        return [report.step for report in self.reports]


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@dataclass
class Bench:
    """A worker's trainer with its folders."""

    trainer: TransformersTrainer
    artifact_dir: Path

    def run(
        self, recorder: Recorder | None = None, *, number: int = 7, attempt: int = 1, **configuration: Any
    ) -> tuple[AttemptResult, Recorder]:
        recorder = recorder or Recorder()
        return self.trainer.run(TrialSpec(number, attempt, configuration), recorder), recorder


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bench(tmp_path: Path, cache_dir: Path, make_spec: Callable[..., TransformersSweep]) -> Callable[..., Bench]:
    """Return a function that sets up a trainer; `grid` and `spec` apart, its arguments are those of make_spec."""

    def set_up(*, spec: TransformersSweep | None = None, grid: Grid | None = None, **options: Any) -> Bench:
        factory = TransformersTrainerFactory(
            spec=spec or make_spec(**options),
            grid=grid or Grid("examples", every=40, longest=1000),
            artifact_dir=tmp_path / "artifacts",
            cache_dir=cache_dir,
        )
        return Bench(factory(), tmp_path / "artifacts")

    return set_up


@dataclass
class Steps:
    """What the optimizer was told at each of its steps."""

    learning_rates: list[float] = field(default_factory=list)
    groups: list[tuple[float, list[torch.Size]]] = field(default_factory=list)  # weight decay, shapes; first step


@pytest.fixture
def optimizer_steps() -> Any:
    """Watch every optimizer of the process through torch's own hook."""
    steps = Steps()

    def watch(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        steps.learning_rates.append(optimizer.param_groups[0]["lr"])
        steps.groups = [(group["weight_decay"], [p.shape for p in group["params"]]) for group in optimizer.param_groups]

    handle = register_optimizer_step_pre_hook(watch)
    yield steps
    handle.remove()


@pytest.fixture
def batches_seen() -> Any:
    """Collect the token ids of each training batch, in order, as they reach the word embeddings."""
    seen: list[list[list[int]]] = []

    def watch(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        is_words = isinstance(module, torch.nn.Embedding) and module.num_embeddings == len(WORDS) + 4
        if is_words and torch.is_grad_enabled():  # frozen ones are in evaluation mode in training, too
            seen.append(args[0].tolist())

    handle = register_module_forward_pre_hook(watch)
    yield seen
    handle.remove()
