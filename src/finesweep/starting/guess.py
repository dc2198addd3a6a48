"""What is to be learnt from a table: the task and which column is what, guessed from kinds and names of the columns.

In: profiles of columns, what the user has said. Out: a guess with its reasons, or a DataError that lists the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finesweep.errors import DataError
from finesweep.spec.faults import unknown
from finesweep.spec.sweep import Task
from finesweep.starting.columns import Column, Kind

_LABELS = ("label", "labels", "class", "category", "target", "tag", "tags", "topic", "intent", "sentiment", "score",
           "rating", "stars", "queue", "y")  # fmt: skip
_TEXTS = ("text", "body", "content", "sentence", "document", "review", "comment", "message", "description", "abstract",
          "question", "query", "input", "utterance", "tweet", "title")  # fmt: skip
_PAIRS = (("premise", "hypothesis"), ("question", "passage"), ("question", "context"), ("query", "document"),
          ("sentence1", "sentence2"), ("text1", "text2"), ("text_a", "text_b"), ("question1", "question2"))  # fmt: skip
_PROMPTS = (("prompt", "completion"), ("prompt", "response"), ("instruction", "output"), ("instruction", "response"),
            ("question", "answer"), ("input", "output"), ("source", "target"))  # fmt: skip

MOST_CLASSES = 200  # different texts beyond are no classes
_MOST_WHOLE_CLASSES = 20  # different whole numbers beyond are amounts
_LEAST_ROWS_PER_CLASS = 4  # on average
_MOST_WORDS_OF_LABEL = 6
_LEAST_WORDS_OF_PROSE = 3
_LEAST_SHARE_BARRED = 0.05


@dataclass(frozen=True, slots=True)
class Guess:
    task: Task
    columns: Mapping[str, str]  # key of the data section -> column
    format: str | None = None  # of causal-lm: prompt-completion, messages, text
    label: Column | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user has said; the columns by key of the data section."""

    task: Task | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


def guess(columns: Sequence[Column], asked: Asked, *, where: str) -> Guess:
    """Decide what each column is for. Raises DataError where the table leaves that open."""
    table = _Table(columns, asked, where)
    for key, name in asked.columns.items():
        table.named(key, name)
    if asked.task == "causal-lm" or {"prompt", "completion", "messages"} & asked.columns.keys():
        return _generation(table, required=True) or table.left_open("there is nothing to write")
    if asked.task is not None or "label" in asked.columns:
        return _judgement(table)
    pair = table.pair(_PROMPTS)
    if pair is not None and (labels := table.named_like_labels(but=pair)):
        first, second = (column.name for column in pair)
        table.left_open(f"{second} could be written from {first}, or {labels[0].name} be told of them")
    return _generation(table, required=False) or _judgement(table)


class _Table:
    """The columns, with what was asked of them."""

    def __init__(self, columns: Sequence[Column], asked: Asked, where: str) -> None:
        self.columns, self.asked, self._where = columns, asked, where

    def named(self, key: str, name: str) -> Column:
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            names = [column.name for column in self.columns]
            raise DataError(f"--{key.replace('_', '-')}: {unknown('column', name, names, verb='is not there')}")
        return found

    def left_open(self, why: str) -> Guess:
        listed = "; ".join(str(column) for column in self.columns)
        raise DataError(
            f"{self._where} leaves open what is to be learnt: {why}. Its columns: {listed}. Say which is which with "
            "--text and --label, or --prompt and --completion, and what is learnt with --task."
        )

    def texts(self) -> list[Column]:
        """List the columns that can be read as input: prose, or what is named like it."""
        of_text = [column for column in self.columns if column.kind is Kind.TEXT]
        long = [column for column in of_text if column.mean_words >= _LEAST_WORDS_OF_PROSE and not _is_label(column)]
        named = [column for column in of_text if column.name.lower() in _TEXTS]
        return long or named or [column for column in of_text if not _is_label(column)]

    def labels(self, *, but: Sequence[Column] = ()) -> list[Column]:
        """List the columns that can be what is to be told: those named like it, else all of fitting values."""
        fitting = [column for column in self.columns if column not in but and self._fits(column)]
        exactly = [column for column in fitting if column.name.lower() in _LABELS[:2]]
        return exactly or self.named_like_labels(but=but) or fitting

    def named_like_labels(self, *, but: Sequence[Column] = ()) -> list[Column]:
        return [
            column
            for column in self.columns
            if column not in but and column.name.lower() in _LABELS and self._fits(column)
        ]

    def _fits(self, column: Column) -> bool:
        if column.is_numbered:
            return False
        return _is_label(column) if self.asked.task is None else self.asked.task in possible_tasks(column)

    def pair(self, names: Sequence[tuple[str, str]]) -> tuple[Column, Column] | None:
        by_name = {column.name.lower(): column for column in self.columns if column.kind is Kind.TEXT}
        return next(((by_name[a], by_name[b]) for a, b in names if a in by_name and b in by_name), None)


# --- something is written ----------------------------------------------------------------------------------------


def _generation(table: _Table, *, required: bool) -> Guess | None:
    given = table.asked.columns
    chats = [column for column in table.columns if column.kind is Kind.CHAT]
    if "messages" in given or (len(chats) == 1 and not given):
        name = given.get("messages") or chats[0].name
        reason = f"messages: column {name}, which holds chats; the loss is on what the assistant says"
        return Guess("causal-lm", {"messages": name}, "messages", reasons=(reason,))
    pair = table.pair(_PROMPTS)
    if "prompt" in given or "completion" in given:
        if len(given) < 2:
            table.left_open(f"with --{next(iter(given))} alone there is no pair")
        pair = table.named("prompt", given["prompt"]), table.named("completion", given["completion"])
    if pair is not None and "text" not in given:
        prompt, completion = pair
        reasons = (f"prompt: {prompt}", f"completion: {completion}; the loss is on this")
        names = {"prompt": prompt.name, "completion": completion.name}
        return Guess("causal-lm", names, "prompt-completion", reasons=reasons)
    texts = [table.named("text", given["text"])] if "text" in given else table.texts()
    if len(texts) == 1 and (required or not table.labels(but=texts)):
        reason = f"text: {texts[0]}; there is nothing to tell beside it, so texts like these are learnt to be written"
        return Guess("causal-lm", {"text": texts[0].name}, "text", reasons=(reason,))
    if required and texts:
        table.left_open(f"{', '.join(column.name for column in texts)} are all texts")
    return None


# --- something is told of a text ---------------------------------------------------------------------------------


def _judgement(table: _Table) -> Guess:
    given = table.asked.columns
    if "label" in given:
        label = table.named("label", given["label"])
    else:
        but = [table.named(key, name) for key, name in given.items()]
        found = table.labels(but=but)
        if not found:
            table.left_open("no column holds labels or numbers to be told" if table.texts() else "there is no text")
        if len(found) > 1:
            table.left_open(f"{', '.join(column.name for column in found)} could each be the label")
        label = found[0]
    task = _task(table, label)
    texts = _inputs(table, label)
    reasons = [f"{key}: {column}" for key, column in texts.items()]
    reasons.append(f"label: {label}, which makes it {task}{_why(label, task, table.asked)}")
    columns = {key: column.name for key, column in texts.items()} | {"label": label.name}
    return Guess(task, columns, label=label, reasons=tuple(reasons))


def _task(table: _Table, label: Column) -> Task:
    possible = possible_tasks(label)
    if table.asked.task in possible:
        return table.asked.task
    if table.asked.task is not None:
        can_be = f" It can be: {', '.join(possible)}." if possible else ""
        raise DataError(f"--task {table.asked.task}: {label} is no label of it.{can_be} Name another with --label.")
    if not possible:
        table.left_open(f"{label} is no label")
    return possible[0]


def _inputs(table: _Table, label: Column) -> dict[str, Column]:
    given = table.asked.columns
    if "text" in given:
        return {key: table.named(key, given[key]) for key in ("text", "text_pair") if key in given}
    pair = table.pair(_PAIRS)
    if pair is not None and label not in pair:
        return dict(zip(("text", "text_pair"), pair, strict=True))
    texts = [column for column in table.texts() if column is not label]
    named = [column for column in texts if column.name.lower() in _TEXTS]
    chosen = texts if len(texts) == 1 else named
    if not texts:
        table.left_open("there is no text to tell it of")
    if len(chosen) != 1:
        table.left_open(f"{', '.join(column.name for column in texts)} could each be the text")
    return {"text": chosen[0]}


def possible_tasks(column: Column) -> list[Task]:
    """List what could be learnt of a column, the likeliest first."""
    is_few = 2 <= column.n_distinct <= min(MOST_CLASSES, max(2, column.n_rows // _LEAST_ROWS_PER_CLASS))
    match column.kind:
        case Kind.LABELS:
            return ["multi-label-classification"]
        case Kind.NUMBER:
            return ["regression"]
        case Kind.WHOLE if is_few and column.n_distinct <= _MOST_WHOLE_CLASSES:
            return ["classification", "regression"]
        case Kind.WHOLE:
            return ["regression", "classification"]
        case Kind.TEXT if column.n_barred >= max(1, _LEAST_SHARE_BARRED * column.n_rows):
            return ["multi-label-classification", "classification"]
        case Kind.TEXT if column.n_distinct >= 2:
            return ["classification"]
    return []


def _is_label(column: Column) -> bool:
    """Tell whether a column looks like something to be told of a text: a number, a list, or one of few short texts."""
    if column.kind is not Kind.TEXT:
        return bool(possible_tasks(column)) and not column.is_numbered
    is_few = 2 <= column.n_distinct <= min(MOST_CLASSES, max(2, column.n_rows // _LEAST_ROWS_PER_CLASS))
    return (is_few or column.n_barred > 0) and column.mean_words <= _MOST_WORDS_OF_LABEL


def _why(label: Column, task: Task, asked: Asked) -> str:
    if asked.task is not None:
        return ", as you say"
    match task:
        case "regression":
            return ": its values are amounts"
        case "multi-label-classification":
            return ": a row can have several" + (", with | between them" if label.kind is Kind.TEXT else "")
        case _:
            others = possible_tasks(label)[1:]
            return ": its values are few" + (f" (--task {others[0]} if they are amounts)" if others else "")
