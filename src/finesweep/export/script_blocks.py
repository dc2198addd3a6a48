"""The parts of a training script, as text: each is there only where a trial needs it. What they do, finesweep does too.

A block is plain Python whose names in capitals are the constants that stand at the head of the script.
"""

from __future__ import annotations

READ_JSON = """
def read_json(path):
    return datasets.Dataset.from_json(path).to_list()
"""

READ_CSV = '''
def read_csv(path):
    """Read all cells as text."""
    csv.field_size_limit(sys.maxsize)
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))
'''

READ_PARQUET = """
def read_parquet(path):
    return datasets.Dataset.from_parquet(path).to_list()
"""

READ_ARROW = '''
def read_arrow(path):
    """Read Arrow's file format or its stream format, which `save_to_disk` writes."""
    with pa.memory_map(path) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        return (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).read_all().to_pylist()
'''

READ_TEXT = '''
def read_text(path):
    """Read a document: one row, its line breaks kept."""
    return [{TEXT: Path(path).read_text(encoding="utf-8-sig")}]
'''

READ_HUB = """
def read_split(name):
    return named(datasets.load_dataset(DATASET, CONFIG, revision=DATA_REVISION, split=name))
"""

READ_SAVED = '''
def read_split(name):
    """Take what a name such as train[:1000] means out of the splits there are."""
    saved = datasets.load_from_disk(DATASET)
    splits = saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
    wanted = datasets.ReadInstruction.from_spec(name).to_absolute({key: len(rows) for key, rows in splits.items()})
    parts = [splits[part.splitname].select(range(part.from_, part.to)) for part in wanted]
    return named(datasets.concatenate_datasets(parts))
'''

NAMED = '''
def named(rows):
    """Return rows, with names of classes in place of their numbers where the data set has names."""
    feature = rows.features.get(LABEL) if LABEL else None
    names = getattr(getattr(feature, "feature", feature), "names", None)
    rows = rows.to_list()
    for row in rows if names else []:
        label = row[LABEL]
        if isinstance(label, list):
            row[LABEL] = [names[number] for number in label]
        else:
            row[LABEL] = None if label is None or label < 0 else names[label]
    return rows
'''

COMPLETE = '''
def complete(rows):
    """Leave out rows of which the trial had no use: without text, without a label."""
    return [row for row in rows if all(is_there(row[column]) for column in COLUMNS)]


def is_there(value):
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value == value
'''

COMPLETE_CHATS = '''
def complete(rows):
    """Leave out chats of which the trial had no use: without an answer, with empty words."""
    return [row for row in rows if is_chat(row[MESSAGES])]


def is_chat(messages):
    answered = any(message["role"] == "assistant" for message in messages or [])
    return answered and all(
        message["content"] is not None and (message["content"].strip() or message["role"] == "system")
        for message in messages
    )
'''

STRATA = {
    "classification": '''
def strata(rows):
    """Return what is to keep its share among the rows chosen: the class."""
    return [str(row[LABEL]) for row in rows]
''',
    "multi-label-classification": '''
def strata(rows):
    """Return what is to keep its share among the rows chosen: of several labels the rarest."""
    marks = [labels_of(row) for row in rows]
    counts = Counter(label for labels in marks for label in labels)
    return [min(labels, key=lambda label: (counts[label], str(label)), default="") for labels in marks]
''',
}

NO_STRATA = """
def strata(rows):
    return ["" for _ in rows]
"""

SHUFFLED = '''
def shuffled(rows):
    """Return the numbers of rows in an order of chance, stratum by stratum."""
    order = list(range(len(rows)))
    random.Random(DATA_SEED).shuffle(order)
    groups = strata(rows)
    return sorted(order, key=lambda i: groups[i])
'''

LIMIT = '''
def limit(rows, most):
    """Choose at most so many rows, as the trial did."""
    if most >= len(rows):
        return rows
    order = shuffled(rows)
    return [rows[i] for i in sorted(order[k * len(rows) // most] for k in range(most))]
'''

SET_ASIDE = '''
def set_aside(rows, shares):
    """Divide rows into those trained on and a share for each other split; every stratum gives what it comes to."""
    order, groups = shuffled(rows), strata(rows)
    taken = {split: [] for split in shares}
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and groups[order[end]] == groups[order[start]]:
            end += 1
        members = order[start:end]
        numbers = {split: round(share * end) - round(share * start) for split, share in shares.items()}
        numbers = at_least_one(numbers, len(members))
        for split, number in numbers.items():
            taken[split] += members[:number]
            members = members[number:]
        start = end
    held_out = {i for indices in taken.values() for i in indices}
    parts = {split: [rows[i] for i in sorted(indices)] for split, indices in taken.items()}
    return {"train": [row for i, row in enumerate(rows) if i not in held_out], **parts}
'''

AT_LEAST_ONE = '''
def at_least_one(numbers, n_members):
    """Let a class give each split a row, and keep one to train on."""
    if n_members <= len(numbers):
        return dict.fromkeys(numbers, 0)
    given = {split: max(1, number) for split, number in numbers.items()}
    while sum(given.values()) >= n_members:
        given[max(given, key=lambda split: given[split])] -= 1
    return given
'''

NO_MINIMUM = """
def at_least_one(numbers, n_members):
    return numbers
"""

SET_ASIDE_DOCUMENT = '''
def set_aside(rows, shares):
    """Cut a document at line breaks: the last parts of it are set aside."""
    text = rows[0][TEXT]
    lines = text.splitlines(keepends=True)
    ends, length = [], 0
    for line in lines:
        length += len(line)
        ends.append(length)
    parts, end = {}, len(lines)
    for place, (split, share) in enumerate(reversed(list(shares.items()))):
        n_before = len(shares) - place
        at = next(i for i, position in enumerate(ends) if position > ends[end - 1] - share * length)
        first = min(end - 1, max(n_before, at))
        parts[split] = [{TEXT: "".join(lines[first:end])}]
        end = first
    return {"train": [{TEXT: "".join(lines[:end])}], **parts}
'''

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

POOL = '''
def pool(body, args, kwargs, output):
    """Give the head one vector for each row, the POOLING of its tokens' states, wherever it looks for it.

    This hook is not saved with the model: whoever loads that has to add it again.
    """
    states = output["last_hidden_state"]
    VECTOR
    output["last_hidden_state"] = vector.unsqueeze(1).expand(-1, states.shape[1], -1)
    if getattr(output, "pooler_output", None) is not None:
        output["pooler_output"] = vector
    return output
'''

MEAN = """weights = kwargs["attention_mask"].to(torch.promote_types(states.dtype, torch.float32)).unsqueeze(-1)
    vector = ((states.to(weights.dtype) * weights).sum(1) / weights.sum(1)).to(states.dtype)"""
CLS = "vector = states[:, 0]"

FREEZE_ALL_BUT = """
for name, parameter in model.named_parameters():
    parameter.requires_grad = any(f"{name}.".startswith(f"{module}.") for module in UNFROZEN)
frozen = [model.get_submodule(name) for name in FROZEN]
"""

FREEZE_POOLER = """
for name, parameter in model.named_parameters():
    if f".{model.base_model_prefix}.pooler." in f".{name}":  # the body's own, which nobody reads
        parameter.requires_grad = False
"""

LORA_HEAD = """
fresh = {key if isinstance(key, str) else key[0] for key in (*loading["missing_keys"], *loading["mismatched_keys"])}
whole = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name in fresh}  # in no file
whole |= {
    name
    for name, module in model.named_children()
    if module is not model.base_model and any(True for _ in module.parameters())
}
whole = {name for name in whole if not any(name.startswith(f"{other}.") for other in whole)}
"""

LORA_NO_HEAD = """
fresh = {key if isinstance(key, str) else key[0] for key in (*loading["missing_keys"], *loading["mismatched_keys"])}
whole = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name in fresh}  # in no file
"""

LORA = """
idle = [name for name, _ in model.named_modules() if POOLER in f".{name}."]
adaptable = (torch.nn.Linear, Conv1D, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d)
kept = tuple(f"{name}." for name in (*whole, *idle))
targets = [
    name
    for name, module in model.named_modules()
    if isinstance(module, adaptable)
    and not f"{name}.".startswith(kept)
    and any(f".{name}".endswith(f".{wanted}") for wanted in LORA_TARGET_MODULES)
]
set_seed(SEED)
model = peft.get_peft_model(
    model,
    peft.LoraConfig(
        task_type=TASK_TYPE,
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        lora_dropout=LORA_DROPOUT,
        target_modules=TARGETS,
        exclude_modules=idle or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        modules_to_save=sorted(name for name in whole if name not in ("classifier", "score")) or None,
    ),
)
"""

LOSSES = {
    "classification": """
def loss_sum(logits, labels):
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=SMOOTHING)
""",
    "multi-label-classification": """
def loss_sum(logits, labels):
    return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")
""",
    "regression": """
def loss_sum(logits, labels):
    return torch.nn.functional.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="sum")
""",
    "causal-lm": """
def loss_sum(logits, labels):
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)  # the token at i is predicted at i - 1
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum", label_smoothing=SMOOTHING
    )
""",
}

COUNTS = {
    "causal-lm": '(batch["labels"][:, 1:] != -100).sum()',
    "": 'torch.tensor(batch["labels"].numel())',
}

MEAN_LOSS = """
def mean_loss(outputs, labels, num_items_in_batch):
    return loss_sum(outputs["logits"], labels) / num_items_in_batch
"""

TRAINER = '''
class WholeStepTrainer(Trainer):
    """A Trainer whose loss is the mean over an optimizer step, however it is split over devices and accumulation."""

    def compute_loss(self, model, *args, **options):
        for module in frozen:
            module.eval()  # the Trainer puts the whole model in training mode before every batch
        return super().compute_loss(model, *args, **options)

    def _get_num_items_in_batch(self, batches, device):
        count = torch.stack([N_LOSSES for batch in batches]).sum().to(device)
        return self.accelerator.gather(count).sum() if self.args.world_size > 1 else count
'''

SAMPLER = """
    def _get_train_sampler(self, train_dataset=None):
        order = ORDER
        return SAMPLER_EXPRESSION
"""

BY_LENGTH = '''
class ByLength(LengthGroupedSampler):
    """Batches of rows of like length, in an order that follows from seed and epoch alone."""

    def __init__(self, batch_size, lengths):
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.generator.manual_seed(SEED + self.epoch)
        return super().__iter__()
'''

WHOLE_BATCHES = '''
class WholeBatches(torch.utils.data.Sampler):
    """The rows of an epoch that fill whole batches."""

    def __init__(self, n_rows, order):
        self.n_rows, self.order = n_rows - n_rows % BATCH_SIZE, order

    def set_epoch(self, epoch):
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __len__(self):
        return self.n_rows

    def __iter__(self):
        return itertools.islice(self.order, self.n_rows)
'''

STOP = '''
class StopAtTheTrialsStep(TrainerCallback):
    """End where the trial had the value that it was chosen for; the schedule stays that of the whole training."""

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= state.global_step == STOP_AT
'''

STATISTICS = {
    "classification": """
def statistics(logits, labels):
    logits = first(logits)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return torch.cat([losses[:, None], logits], dim=-1)
""",
    "multi-label-classification": """
def statistics(logits, labels):
    logits = first(logits)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    return torch.cat([losses.mean(-1, keepdim=True), logits], dim=-1)
""",
    "regression": """
def statistics(logits, labels):
    return first(logits)
""",
    "causal-lm": '''
def statistics(logits, labels):
    """Reduce the logits of each row to its summed loss, its tokens, and those predicted right."""
    rows = []
    for scores, targets in zip(first(logits), labels):
        is_target = targets[1:] != -100
        targets, scores = targets[1:][is_target], scores[:-1][is_target]
        losses = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
        right = (scores.argmax(-1) == targets).sum()
        rows.append(torch.stack([losses, is_target.sum().to(losses), right.to(losses)]))
    return torch.stack(rows)
''',
}

FIRST = """
def first(logits):
    return (logits[0] if isinstance(logits, tuple) else logits).float()
"""

SCORES = {
    "classification": """
def scores(rows, labels):
    predicted, classes = rows[:, 1:].argmax(-1), range(rows.shape[1] - 1)
    confusion = np.array([[np.sum((labels == a) & (predicted == b)) for b in classes] for a in classes], dtype=float)
    right, wanted, given = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    met = wanted + given > 0
    spread = (len(labels) ** 2 - given @ given) * (len(labels) ** 2 - wanted @ wanted)
    return {
        "loss": rows[:, 0].mean(dtype=float),
        "accuracy": np.mean(predicted == labels),
        "macro_f1": np.mean(2 * right[met] / (wanted + given)[met]),
        "mcc": (right.sum() * len(labels) - given @ wanted) / np.sqrt(spread) if spread else 0.0,
    }
""",
    "multi-label-classification": """
def scores(rows, labels):
    wanted, given = labels > 0, rows[:, 1:] > 0
    right, wrong = (wanted & given).sum(0), (wanted != given).sum(0)
    return {
        "loss": rows[:, 0].mean(dtype=float),
        "macro_f1": np.mean(2 * right / np.maximum(2 * right + wrong, 1)),
        "micro_f1": 2 * right.sum() / max(2 * right.sum() + wrong.sum(), 1),
        "subset_accuracy": np.mean((wanted == given).all(-1)),
    }
""",
    "regression": """
def scores(rows, labels):
    outputs, labels = rows[:, 0].astype(float), labels.astype(float)
    square = np.mean((outputs - labels) ** 2)
    return {
        "loss": square,
        "mae": np.mean(np.abs(outputs - labels)),
        "rmse": np.sqrt(square),
        "r2": 1 - square / np.var(labels) if np.var(labels) else np.nan,
        "spearman": spearmanr(outputs, labels).statistic,
    }
""",
    "causal-lm": """
def scores(rows, labels):
    loss, tokens, right = rows.sum(0, dtype=float)
    return {"loss": loss / tokens, "perplexity": np.exp(loss / tokens), "token_accuracy": right / tokens}
""",
}
