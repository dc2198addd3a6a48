"""Files for jobs: as the protocol wants them, refused before anything is paid."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from finesweep.errors import DataError
from finesweep.remote import rows as rows_module
from finesweep.remote.rows import JobFiles, prepare_rows
from finesweep.spec.sweep import RemoteSweep
from finesweep.training.rows import Rows

Prepare = Callable[..., JobFiles]


def pairs(n: int, *, first: int = 0, prompt: str = "number {}\n\n###\n\n", completion: str = " {}.") -> list[Any]:
    return [{"prompt": prompt.format(i), "completion": completion.format(i)} for i in range(first, first + n)]


@pytest.fixture
def prepare(make_sweep: Callable[..., RemoteSweep], tmp_path: Path) -> Prepare:
    """Return a function that prepares rows; keywords are keys of the section `data`."""

    def prepare(train: Sequence[Any], validation: Sequence[Any] | float, **data: Any) -> JobFiles:
        spec = make_sweep()
        for split, rows in (("train", train), ("validation", validation)):
            if not isinstance(rows, float):
                lines = "".join(f"{json.dumps(row)}\n" for row in rows)
                (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        given = {"validation": validation} if isinstance(validation, float) else {}
        changed = {**spec.data.model_dump(exclude_unset=True), **given, **data}
        return prepare_rows(make_sweep(data=changed), cache_dir=tmp_path / "cache")

    return prepare


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_pairs_are_written_as_they_are(prepare: Prepare) -> None:
    train, validation = pairs(12), pairs(10, first=50)
    files = prepare(train, validation)
    assert read(files.train.path) == train
    assert read(files.validation.path) == validation
    assert (files.train.n_rows, files.validation.n_rows) == (12, 10)
    assert files.train.n_bytes == files.train.path.stat().st_size
    assert files.notes == ()


def test_columns_of_other_names_are_written_under_the_protocols(prepare: Prepare) -> None:
    rows = [{"term": row["prompt"], "meaning": row["completion"], "source": "x"} for row in pairs(12)]
    files = prepare(rows, rows, prompt="term", completion="meaning")
    assert read(files.train.path) == pairs(12)


def test_chats_are_written_with_their_messages(prepare: Prepare) -> None:
    chats = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(12)
    ]
    files = prepare(chats, chats, format="messages")
    assert read(files.train.path) == chats
    assert not [note for note in files.notes if "separator" in note or "space" in note]


def test_what_is_not_ascii_stays_as_it_is(prepare: Prepare) -> None:
    rows = pairs(12, prompt="número {} 東京 🙂\u2028\n\n", completion=" é{}")
    files = prepare(rows, pairs(10, first=50))
    assert read_lines(files.train.path) == rows
    assert "東京 🙂".encode() in files.train.path.read_bytes()


def read_lines(path: Path) -> list[Any]:
    """Read rows as servers do, who split at line feeds alone."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


@pytest.mark.parametrize(
    ("n_train", "n_validation", "told"),
    [
        (9, 12, r"data\.train: 9 rows, but fine-tuning servers want 10 at least\. Add rows\."),
        (12, 9, r"data\.validation: 9 rows, .* Add rows, or raise its share\."),
    ],
)
def test_too_few_rows_are_refused(prepare: Prepare, n_train: int, n_validation: int, told: str) -> None:
    with pytest.raises(DataError, match=told):
        prepare(pairs(n_train), pairs(n_validation))


def test_limits_and_shares_are_kept(prepare: Prepare) -> None:
    files = prepare(pairs(40), 0.25, max_train_rows=15)
    assert (files.train.n_rows, files.validation.n_rows) == (15, 10)
    assert not {json.dumps(row) for row in read(files.train.path)} & {
        json.dumps(row) for row in read(files.validation.path)
    }


def test_files_that_are_too_large_are_refused(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MOST_BYTES", 2**20)
    rows = pairs(12, completion=" " + "x" * 100_000)
    with pytest.raises(
        DataError, match=r"data\.train: 1 MiB of rows, but .* take 1 at most\. Set data\.max_train_rows"
    ):
        prepare(rows, pairs(10))
    assert prepare(rows[:10], pairs(10)).train.n_bytes < 2**20


def test_what_is_advised_otherwise_is_noted(prepare: Prepare) -> None:
    train = [*pairs(11, prompt="number {}", completion="{}"), *pairs(2, prompt="number {}", completion="{}")]
    notes = "\n".join(prepare(train, pairs(10, first=50) + train[:3]).notes)
    assert "train: 2 rows are there more than once, and are paid for each time" in notes
    assert "validation: 3 rows are also in train" in notes
    assert "prompts do not end alike; end each with a separator" in notes
    assert "train: completions do not begin with a space" in notes
    assert "train: completions do not end alike; end each with what stops the model" in notes
    assert "validation: prompts do not end alike" in notes  # by the three that are not as the others


def test_nine_of_ten_that_do_as_advised_are_enough(prepare: Prepare) -> None:
    train = [*pairs(18), *pairs(2, first=90, prompt="number {}", completion="{}")]
    assert prepare(train, pairs(10, first=50)).notes == ()


def test_the_same_rows_are_one_file_and_others_another(prepare: Prepare) -> None:
    files = prepare(pairs(12), pairs(12))
    assert files.train == files.validation
    again = prepare(pairs(12), pairs(12))
    assert again == files
    assert prepare(pairs(13), pairs(12)).train.digest != files.train.digest
    assert len(list(files.train.path.parent.iterdir())) == 2


def test_workers_that_begin_together_write_whole_files(tmp_path: Path) -> None:
    """Each of its own accord, as workers on a machine that has no cache yet."""
    pair = pairs(800)
    columns = {key: [row[key] for row in pair] for key in ("prompt", "completion")}
    rows = Rows("train.jsonl", columns, range(1, 801))
    faults: list[Exception] = []

    def write(cache_dir: Path, start: threading.Barrier) -> None:
        start.wait()
        try:
            file = rows_module._write(rows, "train", is_chat=False, cache_dir=cache_dir)
            assert read(file.path) == pair
        except Exception as error:
            faults.append(error)

    for n in range(6):
        start = threading.Barrier(8)
        threads = [threading.Thread(target=write, args=(tmp_path / str(n), start)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list((tmp_path / str(n) / "remote").iterdir())) == 1
    assert faults == []


@pytest.mark.parametrize(
    "text", ["plain", "東京東京", "🙂🙃", 'quotes " and \\ and \n lines', "\x00\x01", "e\u0301" * 9]
)
def test_no_tokenizer_of_bytes_makes_more_tokens_than_a_file_has_bytes(prepare: Prepare, text: str) -> None:
    rows = [{"prompt": f"{text}{n}\n\n", "completion": f" {text}"} for n in range(10)]
    n_bytes = sum(len(row["prompt"].encode()) + len(row["completion"].encode()) for row in rows)
    special = 2 * len(rows)  # begin and end of each
    assert prepare(rows, pairs(10, first=50)).train.n_bytes > n_bytes + special
