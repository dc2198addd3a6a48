"""What a model writes to be judged: the same as plain transformers, whatever the batch, and kept to look at."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.modules.module import register_module_forward_pre_hook

from finesweep.errors import DataError, EvaluationError
from finesweep.events import Decision, Ending, Grid
from finesweep.layout import samples_path
from finesweep.spec.sweep import DataSpec, Generation
from finesweep.training.generation import Question, Writing, keep_questions, load_writing, write
from finesweep.training.own_metrics import OwnMetric
from finesweep.training.prepare import prepare

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} never\n{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


@pytest.fixture
def model(tied_llama: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(tied_llama)


@pytest.fixture
def prompts(tokenizer: Any) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(4, len(tokenizer)) for _ in range(draw.randint(1, 9))] for _ in range(7)]


def by_hand(model: Any, tokenizer: Any, prompt: Sequence[int], n: int) -> str:
    """One row, no padding, no settings but the least."""
    out = model.eval().generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=n, pad_token_id=0)
    text: str = tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)
    return text


@pytest.mark.parametrize("rows_at_once", [1, 3, 8])
def test_outputs_are_those_of_plain_generate(model: Any, tokenizer: Any, prompts: Any, rows_at_once: int) -> None:
    outputs = write(model, tokenizer, prompts, max_new_tokens=6, rows_at_once=rows_at_once)
    assert outputs == [by_hand(model, tokenizer, prompt, 6) for prompt in prompts]
    assert len(set(outputs)) > 3


def test_what_follows_the_end_is_not_part_of_an_output(model: Any, tokenizer: Any, prompts: Any) -> None:
    """The commonest first word is made the end of a text: some rows end at once, others go on."""
    first = [write(model, tokenizer, [prompt], max_new_tokens=1, rows_at_once=1)[0] for prompt in prompts]
    end = tokenizer.convert_tokens_to_ids(first[0])
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    outputs = write(model, tokenizer, prompts, max_new_tokens=6, rows_at_once=8)
    assert [output == "" for output in outputs] == [word == first[0] for word in first]
    assert any(outputs)
    assert not any(first[0] in output.split() for output in outputs)


def test_a_model_is_left_as_it_was(model: Any, tokenizer: Any, prompts: Any) -> None:
    expected = write(model, tokenizer, prompts, max_new_tokens=4, rows_at_once=8)
    model.activation_checkpointing_enable()
    model.config.use_cache = False  # as it is set for training
    model.train()
    before = torch.get_rng_state()
    lengths: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    assert write(model, tokenizer, prompts, max_new_tokens=4, rows_at_once=8) == expected
    assert lengths == [max(map(len, prompts)), 1, 1, 1]  # a cache is used: each step is given only the new token
    assert model.training and model.is_activation_checkpointing and not model.config.use_cache
    assert torch.equal(torch.get_rng_state(), before)


def test_a_models_habit_of_drawing_lots_is_not_followed(model: Any, tokenizer: Any, prompts: Any) -> None:
    expected = write(model, tokenizer, prompts, max_new_tokens=6, rows_at_once=8)
    model.generation_config.update(do_sample=True, temperature=5.0, top_p=0.9)
    assert write(model, tokenizer, prompts, max_new_tokens=6, rows_at_once=8) == expected


# --- what is asked -----------------------------------------------------------------------------------------------


def questions(folder: Path, tokenizer: Any, *, seed: int = 0, max_positions: int | None = None, **given: Any) -> Any:
    data = DataSpec(train="t", validation="v", max_length=16, seed=seed)
    generation = Generation.model_validate(given)
    writing = load_writing(generation, [], data=data, folder=folder, tokenizer=tokenizer, max_positions=max_positions)
    return writing.questions


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    prompts = [" ".join(["w1"] * (row + 1)) for row in range(20)]
    keep_questions({"prompt": prompts, "completion": [f"w{row}" for row in range(20)]}, tmp_path)
    return tmp_path


def test_the_same_rows_are_asked_by_the_seed(pairs: Path, tokenizer: Any) -> None:
    chosen = questions(pairs, tokenizer, rows=5)
    assert chosen == questions(pairs, tokenizer, rows=5)
    assert len({question.reference for question in chosen}) == 5
    assert chosen != questions(pairs, tokenizer, rows=5, seed=1)
    assert questions(pairs, tokenizer, rows=3) == chosen[:3]


def test_prompts_that_leave_no_room_are_not_asked(pairs: Path, tokenizer: Any) -> None:
    lengths = [len(question.prompt_ids) for question in questions(pairs, tokenizer, rows=50)]
    assert max(lengths) == 16  # data.max_length
    lengths = [
        len(question.prompt_ids)
        for question in questions(pairs, tokenizer, rows=50, max_positions=20, max_new_tokens=12)
    ]
    assert sorted(lengths) == list(range(1, 9))
    with pytest.raises(DataError, match=r"more than 0 tokens.*positions \(8\), less max_new_tokens \(12\)"):
        questions(pairs, tokenizer, rows=50, max_positions=8, max_new_tokens=12)


def test_the_last_answer_of_a_chat_is_asked_for(tmp_path: Path, tokenizer: Any) -> None:
    chat = [("user", "w1"), ("assistant", "w2"), ("user", "w3"), ("assistant", "w4"), ("user", "w5")]
    keep_questions({"messages": [[{"role": role, "content": text} for role, text in chat]]}, tmp_path)
    chatty = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token="[EOS]",
        unk_token="[UNK]",
        additional_special_tokens=["never"],
        chat_template=CHAT_TEMPLATE,
    )
    (question,) = questions(tmp_path, chatty, rows=3)
    assert question.prompt == "user w1 never\nassistant w2 never\nuser w3 never\nassistant "
    assert question.reference == "w4"
    assert list(question.prompt_ids) == chatty.convert_tokens_to_ids(question.prompt.split())
    assert question.turn_end == chatty.convert_tokens_to_ids("never")


def test_an_answer_ends_with_its_turn(model: Any, tokenizer: Any) -> None:
    unhindered, goes_on = write(model, tokenizer, [(4, 5), (9,)], max_new_tokens=6, rows_at_once=2)
    end = tokenizer.convert_tokens_to_ids(unhindered.split()[0])
    asked = [Question("w1 w2", "w3", (4, 5), turn_end=end), Question("w6", "w3", (9,))]
    _, samples = Writing(asked, tokenizer, 6, 2).judge(model, rows_at_once=2)
    assert [sample.output for sample in samples] == ["", goes_on]


def test_scorers_of_the_users_own_are_given_outputs_and_references(model: Any, tokenizer: Any) -> None:
    given: list[Any] = []
    scorer = OwnMetric("s", "evaluation.generation.scorers.s", "m:s", lambda *texts: given.append(texts) or 0.25)
    asked = [Question("w1", "w2", (4,)), Question("w3", "w4", (7, 8))]
    scores, samples = Writing(asked, tokenizer, 3, 1, [scorer]).judge(model, rows_at_once=8)
    assert scores.keys() == {"exact_match", "rouge1", "rouge2", "rougeL", "s"}
    assert scores["s"] == 0.25
    outputs = write(model, tokenizer, [(4,), (7, 8)], max_new_tokens=3, rows_at_once=8)
    assert given == [(outputs, ["w2", "w4"])]
    assert [(sample.prompt, sample.reference, sample.output) for sample in samples] == [("w1", "w2", outputs[0])]


# --- in a trial --------------------------------------------------------------------------------------------------

GENERATION = {"generation": {"rows": 6, "max_new_tokens": 5, "samples": 2}}


@pytest.fixture
def set_up(bench: Any, tied_llama: Path) -> Any:
    def make(**options: Any) -> Any:
        options = {"evaluation": GENERATION, "grid": Grid("examples", every=40, longest=1000), **options}
        return bench(model=tied_llama, task="causal-lm", **options)

    return make


def kept(artifact_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in samples_path(artifact_dir, 7).read_text(encoding="utf-8").splitlines()]


def test_a_trial_reports_what_it_writes_and_keeps_samples(set_up: Any) -> None:
    bench = set_up(objective={"metric": "rougeL", "direction": "maximize"})
    result, told = bench.run(learning_rate=1e-2, epochs=3)
    assert result.ending is Ending.DONE
    for report in told.reports:
        assert all(0 <= report.metrics[name] <= 1 for name in ("exact_match", "rouge1", "rouge2", "rougeL"))
    rows = kept(bench.artifact_dir)
    assert [(row["step"], row["row"]) for row in rows] == [(step, row) for step in told.steps for row in (1, 2)]
    assert len({row["prompt"] for row in rows}) == 2 == len({row["reference"] for row in rows})
    assert all(isinstance(row["output"], str) for row in rows)


@pytest.mark.parametrize("method", ["full", "feature-extraction", "lora"])
def test_writing_changes_nothing_that_is_learnt(set_up: Any, method: str) -> None:
    how = {"method": method, "unfrozen_layers": 1, "activation_checkpointing": True}
    _, with_writing = set_up(**how).run()
    _, without = set_up(**how, evaluation={}).run()
    assert "rouge1" in with_writing.reports[0].metrics
    for one, other in zip(with_writing.reports, without.reports, strict=True):
        assert {name: one.metrics[name] for name in other.metrics} == other.metrics


def test_a_trial_that_was_stopped_keeps_its_samples(set_up: Any, recorder: Any) -> None:
    bench = set_up()
    result, told = bench.run(recorder(decide=lambda report: Decision.STOP))
    assert result.ending is Ending.STOPPED
    assert {row["step"] for row in kept(bench.artifact_dir)} == set(told.steps) == {40}


def test_no_samples_are_kept_where_none_are_wanted(set_up: Any) -> None:
    bench = set_up(evaluation={"generation": {"rows": 2, "max_new_tokens": 2, "samples": 0}})
    _, told = bench.run(epochs=1)
    assert "rouge1" in told.reports[0].metrics
    assert not samples_path(bench.artifact_dir, 7).exists()


def test_a_scorer_that_fails_is_named(set_up: Any) -> None:
    own = {"length": "finesweep.layout:driver_log_path"}  # takes one argument
    with pytest.raises(
        EvaluationError, match=r"evaluation.generation.scorers.length: finesweep.layout:driver_log_path"
    ):
        set_up(evaluation={"generation": {"rows": 2, "max_new_tokens": 2, "scorers": own}}).run()


def test_fewer_rows_are_written_at_once_where_memory_runs_out(set_up: Any) -> None:
    """The device holds two rows in evaluation, however long they are."""
    _, unhindered = set_up().run(batch_size=2, epochs=1)
    at_once: list[int] = []

    def fill_memory(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if not module.training and isinstance(module, torch.nn.Embedding):
            at_once.append(len(args[0]))
            if len(args[0]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = register_module_forward_pre_hook(fill_memory)
    try:
        _, told = set_up().run(batch_size=2, epochs=1)
    finally:
        handle.remove()
    assert {6, 4, 2} <= set(at_once)
    for one, other in zip(unhindered.reports, told.reports, strict=True):
        assert one.metrics == pytest.approx(other.metrics)


def test_rouge_is_asked_for_before_any_trial(
    make_spec: Any, tied_llama: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score", None)  # as where it is not installed
    spec = make_spec(model=tied_llama, task="causal-lm", evaluation=GENERATION)
    with pytest.raises(EvaluationError, match=r'pip install "finesweep\[rouge\]"'):
        prepare(spec, cache_dir=cache_dir)
