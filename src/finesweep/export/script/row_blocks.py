"""Blocks of a training script, as text: rows are read and chosen among. As trials are trained.

A block is plain Python; its names in capitals are constants at the head of the script.
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
