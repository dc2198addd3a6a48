"""How chats become token ids: by the tokenizer's chat template, with loss on what the assistant says.

In: checked rows of messages, a tokenizer. Out: token ids with their labels. It must not know files or trials.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from jinja2 import TemplateError

from finesweep.errors import DataError
from finesweep.training.encoding import IGNORED, Encoded, Tokenizer, chunks, cut_rows
from finesweep.training.rows import Rows

Chat = Sequence[dict[str, str]]
Span = tuple[int, int]  # first character and the one after the last

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # how a template marks what the assistant says


def check_can_chat(tokenizer: Tokenizer, *, model: str) -> None:
    """Raise DataError unless the tokenizer knows how a chat is written."""
    if not tokenizer.chat_template:
        raise DataError(
            f"data.format: the tokenizer of {model} has no chat template, which says how messages are written "
            "for it. Use format prompt-completion, or a model made for chats."
        )
    if not tokenizer.is_fast:
        raise DataError(
            f"data.format: the tokenizer of {model} cannot say which characters its tokens are of, so that the "
            "assistant's cannot be told from the others. Use format prompt-completion, or another model."
        )


def encode_chats(tokenizer: Tokenizer, rows: Rows, *, max_length: int) -> Encoded:
    """Write chats by the template; tokens of the assistant bear loss, the one that ends its turn among them."""
    chats: Sequence[Chat] = rows.columns["messages"]
    encode = _encode_marked if _GENERATION.search(tokenizer.get_chat_template()) else _encode_unmarked
    tables, n_cut, n_left_out = [], 0, 0
    for chunk in chunks(len(chats)):
        names = [f"{rows.where}, row {number}" for number in rows.numbers[chunk]]
        table, n_long, n_empty = cut_rows(encode(tokenizer, chats[chunk], names), max_length=max_length)
        tables.append(table)
        n_cut, n_left_out = n_cut + n_long, n_left_out + n_empty
    return Encoded(pa.concat_tables(tables), n_cut, n_left_out)


def _encode_marked(
    tokenizer: Tokenizer, chats: Sequence[Chat], names: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    """Take the template's own word for what the assistant says."""
    encoded = []
    for chat, name in zip(chats, names, strict=True):
        given = write_chat(tokenizer, chat, name, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids, marks = list(given["input_ids"]), given["assistant_masks"]
        if not any(marks):
            raise DataError(f"{name}: the chat template marks nothing of this chat as the assistant's. {_PAIRS}")
        encoded.append((ids, [token if mark else IGNORED for token, mark in zip(ids, marks, strict=True)]))
    return encoded


def _encode_unmarked(
    tokenizer: Tokenizer, chats: Sequence[Chat], names: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    """Find what the assistant says by writing the chat up to each of its turns."""
    closing = tuple(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    texts, spans = [], []
    for chat, name in zip(chats, names, strict=True):
        text = write_chat(tokenizer, chat, name, tokenize=False)
        texts.append(text)
        spans.append(_assistant_spans(tokenizer, chat, text, name, closing=closing))
    batch = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    return [
        (ids, _labels(ids, offsets, own))
        for ids, offsets, own in zip(batch["input_ids"], batch["offset_mapping"], spans, strict=True)
    ]


def _assistant_spans(tokenizer: Tokenizer, chat: Chat, text: str, name: str, *, closing: tuple[str, ...]) -> list[Span]:
    """Return where in the written chat the assistant's words stand, each to the end of its turn.

    A turn begins where the chat before it ends, with the words that call for an answer, and ends where the chat with it
    does. That holds only if neither changes when more follows.
    """
    spans = []
    for place, message in enumerate(chat):
        if message["role"] != "assistant":
            continue
        before = write_chat(tokenizer, chat[:place], name, tokenize=False, add_generation_prompt=True)
        after = text if place == len(chat) - 1 else write_chat(tokenizer, chat[: place + 1], name, tokenize=False)
        if not (after.startswith(before) and text.startswith(after)):
            raise DataError(
                f"{name}, message {place + 1}: the chat template writes otherwise what stands before this answer once "
                "it is given, or once more follows, so that the assistant's words cannot be told from the others. "
                f"{_PAIRS}"
            )
        spans.append((len(before), _end_of_turn(after, closing)))
    return spans


_PAIRS = (
    "Let each row end with its only answer, use a tokenizer whose template has {% generation %}, or format "
    "prompt-completion."
)


def _end_of_turn(text: str, closing: tuple[str, ...]) -> int:
    """Return where a turn ends: behind its closing token, without the line break that some templates add."""
    trimmed = text.rstrip()
    return len(trimmed if trimmed.endswith(closing) else text)


def _labels(ids: Sequence[int], offsets: Sequence[Span], spans: Sequence[Span]) -> list[int]:
    labels = [IGNORED] * len(ids)
    place = 0
    for first, end in spans:
        while place < len(ids) and offsets[place][0] < first:
            place += 1
        while place < len(ids) and offsets[place][0] < end and offsets[place][1] <= end:
            labels[place] = ids[place]
            place += 1
    return labels


def write_chat(tokenizer: Tokenizer, chat: Chat, name: str, **options: Any) -> Any:
    """Apply the chat template. Raises DataError, which begins with `name`, where that refuses the messages."""
    if not chat:
        raise DataError(
            f"{name}: the chat begins with the assistant, so that nothing calls for its answer. Begin with a message "
            "of the user or the system."
        )
    try:
        return tokenizer.apply_chat_template(list(chat), **options)
    except TemplateError as error:
        raise DataError(
            f"{name}: the chat template refuses these messages: {str(error).rstrip('.')}. Correct the row: many "
            "templates want the user and the assistant in turn, the user first."
        ) from error
