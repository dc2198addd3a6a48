"""Judge a causal model by what it writes: the same prompts for all trials, greedily, to its own end or a limit.

In: the validation rows as text, a model. Out: metrics of the outputs, and samples to look at. It must not know trials.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch

from finesweep.errors import DataError, EvaluationError
from finesweep.spec.sweep import GENERATION_METRICS, DataSpec, Generation
from finesweep.training.chats import write_chat
from finesweep.training.encoding import Tokenizer, encode_prompts, pad_id_of
from finesweep.training.models import Model
from finesweep.training.own_metrics import OwnMetric

_FOLDER = "questions"
_ROUGE = ("rouge1", "rouge2", "rougeL")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Question:
    prompt: str  # as the model is given it: of a chat, all turns up to the one that is wanted
    reference: str
    prompt_ids: tuple[int, ...]
    turn_end: int | None = None  # the token that ends an answer in a chat


@dataclass(frozen=True, slots=True)
class Sample:
    """What a model wrote at some step of a trial, kept to look at."""

    prompt: str
    reference: str
    output: str


@dataclass(frozen=True, slots=True)
class Writing:
    """What is asked of every model of a sweep, and how its answers are judged."""

    questions: Sequence[Question]
    tokenizer: Tokenizer
    max_new_tokens: int
    n_samples: int
    scorers: Sequence[OwnMetric] = ()

    @property
    def metric_names(self) -> list[str]:
        return [*GENERATION_METRICS, *(scorer.name for scorer in self.scorers)]

    def judge(self, model: Model, *, rows_at_once: int) -> tuple[dict[str, float], list[Sample]]:
        """Have a model answer all questions. Raises EvaluationError where a scorer of the user's own fails."""
        prompts = [question.prompt_ids for question in self.questions]
        ends = {question.turn_end for question in self.questions if question.turn_end is not None}
        limits = {"max_new_tokens": self.max_new_tokens, "rows_at_once": rows_at_once}
        outputs = write(model, self.tokenizer, prompts, turn_ends=ends, **limits)
        references = [question.reference for question in self.questions]
        scores = {"exact_match": exact_match(outputs, references), **rouge(outputs, references)}
        for scorer in self.scorers:
            scores[scorer.name] = scorer(list(outputs), list(references))
        answered = zip(self.questions, outputs, strict=True)
        samples = [Sample(question.prompt, question.reference, output) for question, output in answered]
        return scores, samples[: self.n_samples]


def keep_questions(columns: Mapping[str, Sequence[Any]], folder: Path) -> None:
    """Write the texts of validation rows, prompt and completion or messages, beside their tokens."""
    datasets.Dataset.from_dict(dict(columns)).save_to_disk(str(folder / _FOLDER))


def load_writing(
    generation: Generation,
    scorers: Sequence[OwnMetric],
    *,
    folder: Path,
    data: DataSpec,
    tokenizer: Tokenizer,
    max_positions: int | None,
) -> Writing:
    """Choose the questions among those kept in a folder. Raises DataError or EvaluationError."""
    if importlib.util.find_spec("rouge_score") is None:
        raise EvaluationError(
            f"evaluation.generation: {', '.join(_ROUGE)} are measured by the package rouge-score, which is not "
            'installed. Install it: pip install "finesweep[rouge]"'
        )
    room = data.max_length if max_positions is None else min(data.max_length, max_positions - generation.max_new_tokens)
    rows = datasets.load_from_disk(str(folder / _FOLDER))
    order = list(range(len(rows)))
    random.Random(data.seed).shuffle(order)
    fitting = (question for index in order if len((question := _question(tokenizer, rows[index])).prompt_ids) <= room)
    questions = list(islice(fitting, generation.rows))
    if not questions:
        raise DataError(
            f"evaluation.generation: every prompt of data.validation has more than {max(room, 0)} tokens, what "
            f"data.max_length ({data.max_length}) and the model's positions ({max_positions}), less max_new_tokens "
            f"({generation.max_new_tokens}), leave room for. Raise max_length, or lower max_new_tokens."
        )
    return Writing(questions, tokenizer, generation.max_new_tokens, generation.samples, scorers)


def _question(tokenizer: Tokenizer, row: Mapping[str, Any]) -> Question:
    """Ask for the completion of a row, or for the last thing that the assistant says in its chat."""
    if "messages" not in row:
        (ids,) = encode_prompts(tokenizer, [row["prompt"]])
        return Question(row["prompt"], row["completion"], tuple(ids))
    chat = row["messages"]
    last = max(place for place, message in enumerate(chat) if message["role"] == "assistant")
    prompt = write_chat(tokenizer, chat[:last], "data.validation", tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    answered = write_chat(tokenizer, chat[: last + 1], "data.validation", tokenize=False)
    return Question(prompt, chat[last]["content"], tuple(ids), _turn_end(tokenizer, answered, chat[last]["content"]))


def _turn_end(tokenizer: Tokenizer, text: str, answer: str) -> int | None:
    """Return the token that the chat template puts behind an answer; None where that is no special one."""
    after = text.rpartition(answer.strip())[2].strip()
    ids = tokenizer(after, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids[0] if ids and ids[0] in tokenizer.all_special_ids else None


def append_samples(path: Path, samples: Sequence[Sample], *, step: int) -> None:
    """Add the samples of a report, one a line. A report told twice, after a resume, is read as told last."""
    if not samples:
        return
    rows = [{"step": step, "row": row, **dataclasses.asdict(sample)} for row, sample in enumerate(samples, start=1)]
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


# --- a model at work ---------------------------------------------------------------------------------------------


def write(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    rows_at_once: int,
    turn_ends: Collection[int] = (),
) -> list[str]:
    """Return what a model writes after each prompt: its likeliest token each time, to its end or the limit."""
    ends = sorted({*_text_ends(model, tokenizer), *turn_ends})
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))  # little padding
    outputs = [""] * len(prompts)
    was_training = model.training
    model.eval()  # which also leaves gradient checkpointing out, so that the cache is used
    try:
        for start in range(0, len(by_length), rows_at_once):
            chosen = by_length[start : start + rows_at_once]
            written = _write_batch(model, [prompts[i] for i in chosen], ends, pad_id_of(tokenizer), max_new_tokens)
            for index, ids in zip(chosen, written, strict=True):
                outputs[index] = tokenizer.decode(ids, skip_special_tokens=True)
    finally:
        model.train(was_training)
    return outputs


def _write_batch(
    model: Model, prompts: Sequence[Sequence[int]], ends: Sequence[int], pad_id: int, max_new_tokens: int
) -> list[list[int]]:
    longest = max(map(len, prompts))
    input_ids = torch.full((len(prompts), longest), pad_id)  # (batch, prompt), padded on the left: what is new follows
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts):
        input_ids[row, longest - len(ids) :] = torch.tensor(ids)
        attention_mask[row, longest - len(ids) :] = 1
    with torch.no_grad():
        written = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            use_cache=True,
            pad_token_id=pad_id,
            eos_token_id=list(ends) or None,
        )  # (batch, prompt + new)
    new = written[:, longest:].tolist()
    return [ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))] for ids in new]


def _text_ends(model: Model, tokenizer: Tokenizer) -> list[int]:
    """Collect what ends a text: the tokenizer's own token, and those that the model names."""
    of_model = model.generation_config.eos_token_id
    of_model = [of_model] if isinstance(of_model, int) else list(of_model or [])
    return [*of_model, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]


# --- metrics of texts --------------------------------------------------------------------------------------------


def exact_match(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Return the share of outputs that are their reference, white space at both ends aside."""
    pairs = zip(outputs, references, strict=True)
    return sum(output.strip() == reference.strip() for output, reference in pairs) / len(outputs)


def rouge(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the mean F-measures of ROUGE (Lin 2004): common words, pairs of words, longest common subsequence."""
    from rouge_score.rouge_scorer import RougeScorer  # an extra

    scorer = RougeScorer(_ROUGE, tokenizer=_Words())
    scored = [scorer.score(reference, output) for output, reference in zip(outputs, references, strict=True)]
    return {name: sum(float(scores[name].fmeasure) for scores in scored) / len(scored) for name in _ROUGE}


class _Words:
    """Split a text into words of any script: the library's own way, which knows only the letters a to z otherwise."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())
