"""Blocks of a training script, as text: rows become token ids, and these a batch. As trials are trained.

A block is plain Python; its names in capitals are constants at the head of the script.
"""

from __future__ import annotations

TARGETS = {
    "classification": """
def target(row):
    return LABELS.index(str(row[LABEL]))
""",
    "multi-label-classification": '''
def target(row):
    labels = {str(label) for label in labels_of(row)}
    return [float(label in labels) for label in LABELS]


def labels_of(row):
    """Return the labels of a row: a list or, in a cell of CSV, a|b."""
    value = row[LABEL]
    if isinstance(value, str):
        return [label.strip() for label in value.split("|")] if value.strip() else []
    return list(dict.fromkeys(value))
''',
    "regression": """
def target(row):
    return float(row[LABEL])
""",
}

ENCODE_LABELLED = '''
def encode(rows):
    """Tokenise texts, cut at MAX_LENGTH tokens."""
    batch = tokenizer(
        [row[TEXT] for row in rows],
        truncation=True,
        max_length=MAX_LENGTH,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return [{"input_ids": ids, "labels": target(row)} for ids, row in zip(batch["input_ids"], rows)]
'''

ENCODE_PAIRS = '''
def encode(rows):
    """Tokenise pairs of texts; the longer one of a pair is cut to make MAX_LENGTH tokens."""
    batch = tokenizer(
        [row[TEXT] for row in rows],
        [row[TEXT_PAIR] for row in rows],
        truncation=True,
        max_length=MAX_LENGTH,
        return_attention_mask=False,
    )
    kept = [name for name in ("input_ids", "token_type_ids") if name in batch]
    return [{**{name: batch[name][i] for name in kept}, "labels": target(row)} for i, row in enumerate(rows)]
'''

CUT = '''
def cut(rows):
    """Cut ids and labels at MAX_LENGTH; leave out rows of which nothing that bears loss is left."""
    return [
        {"input_ids": ids[:MAX_LENGTH], "labels": labels[:MAX_LENGTH]}
        for ids, labels in rows
        if any(label != -100 for label in labels[1:MAX_LENGTH])
    ]
'''

ENCODE_COMPLETIONS = '''
def encode(rows):
    """Join prompt, completion and end-of-text token; the loss is on the completion."""
    end = [tokenizer.eos_token_id]
    encoded = []
    for row in rows:
        prompt = tokenizer(row[PROMPT])["input_ids"]
        prompt = prompt[:-1] if prompt[-1:] == end else prompt  # some tokenizers end every text by themselves
        answer = tokenizer(row[COMPLETION], add_special_tokens=False)["input_ids"]
        encoded.append(([*prompt, *answer, *end], [-100] * len(prompt) + answer + end))
    return cut(encoded)
'''

ENCODE_CHATS = '''
def encode(rows):
    """Write chats by the tokenizer's template; the loss is on what the assistant says."""
    is_marked = re.search(r"\\{%-?\\s*generation\\s*-?%\\}", tokenizer.get_chat_template())
    return cut((encode_marked if is_marked else encode_unmarked)(row[MESSAGES]) for row in rows)


def encode_marked(chat):
    given = tokenizer.apply_chat_template(
        plain(chat), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, marks = list(given["input_ids"]), given["assistant_masks"]
    return ids, [token if mark else -100 for token, mark in zip(ids, marks)]


def encode_unmarked(chat):
    """Find what the assistant says by writing the chat up to each of its turns."""
    chat = plain(chat)
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    closing = tuple(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    spans = []
    for place, message in enumerate(chat):
        if message["role"] == "assistant":
            before = tokenizer.apply_chat_template(chat[:place], tokenize=False, add_generation_prompt=True)
            after = tokenizer.apply_chat_template(chat[: place + 1], tokenize=False)
            trimmed = after.rstrip()
            spans.append((len(before), len(trimmed if trimmed.endswith(closing) else after)))
    batch = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(first <= start < end and stop <= end for first, end in spans) else -100
        for token, (start, stop) in zip(batch["input_ids"], batch["offset_mapping"])
    ]
    return batch["input_ids"], labels


def plain(chat):
    return [{"role": message["role"], "content": message["content"]} for message in chat]
'''

ENCODE_TEXTS = '''
def encode(rowsMOST_BLOCKS):
    """Join texts, an end-of-text token after each, and cut what results into blocks of MAX_LENGTH tokens.

    Each block begins with the last token of the one before, which bears no loss.
    """
    texts = [row[TEXT] for row in rows]
SHUFFLE_TEXTS    end = tokenizer.eos_token_id
    n_new = MAX_LENGTH - 1
    tokens = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        tokens += ids if ids[-1:] == [end] else [*ids, end]
STOP_AT_MOST    joined = [end, *tokens]
    blocks = [joined[start : start + MAX_LENGTH] for start in range(0, len(tokens), n_new)]
    return [{"input_ids": block, "labels": [-100, *block[1:]]} for block in blocks]
'''

LIMITED_TEXTS = {  # what stands in ENCODE_TEXTS where blocks are limited
    "MOST_BLOCKS": ", most_blocks=None",
    "SHUFFLE_TEXTS": """    if most_blocks is not None:
        random.Random(DATA_SEED).shuffle(texts)
""",
    "STOP_AT_MOST": """        if most_blocks is not None and len(tokens) >= most_blocks * n_new:
            tokens = tokens[: most_blocks * n_new]
            break
""",
}

COLLATE = '''
def collate(rows):
    """Pad rows on the right to the longest of them."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name, value):
        return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    batch = {"input_ids": padded("input_ids", PAD), "attention_mask": mask}
    return {**batch, "labels": LABELS_OF_A_BATCH}
'''

RETURN = "\n    return {"
WITH_TYPES = """
    if "token_type_ids" in rows[0]:
        batch["token_type_ids"] = padded("token_type_ids", 0)
    return {"""

LABELS_PER_ROW = 'torch.tensor([row["labels"] for row in rows])'
LABELS_PER_TOKEN = 'padded("labels", -100)'
