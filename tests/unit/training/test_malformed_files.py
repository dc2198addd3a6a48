"""Files of rows that are broken, or meant to break their reader: each is refused in our words, or read."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finesweep.errors import DataError
from finesweep.training.files import open_file

ROW = b'{"text": "a", "label": "x"}\n'
BROKEN: dict[str, dict[str, tuple[bytes, str]]] = {
    ".jsonl": {
        "deeper than the reader's stack": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested more than"),
        "deep objects": (b'{"text": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001 + b"\n", "nested more than"),
        "null rows, of which the reader dies": (b"null\nnull\n", "row 1 is null"),
        "a null row among others": (ROW + b" null \r\n" + ROW, "row 2 is null"),
        "20 MB of nonsense": (b"{" * 20_000_000, "nested more than"),
        "NUL bytes": (ROW + b"\0\0\n", "row 2 is no JSON"),
        "mixed encodings": (ROW + '{"text": "é"}\n'.encode("latin-1"), "row 2 is no UTF-8 text"),
        "UTF-16": ((ROW * 2).decode().encode("utf-16"), "no UTF-8 text"),
        "half a row": (ROW + b'{"text":', "row 2 is no JSON"),
        "scalars": (b"1\n2\n", "row 1 is no JSON object"),
        "a key twice": (b'{"text": "a", "text": "b"}\n', "specified twice"),
        "half a character": (b'{"text": "\\ud800"}\n', "surrogate"),
        "thousands of columns": (json.dumps({f"c{i}": 1 for i in range(2_500)}).encode(), "2,500 columns"),
        "nothing": (b" \n\n", "no rows"),
    },
    ".csv": {
        "an open quote": (b'text,label\n"' + b"a\n" * 300_000, "unexpected end of data"),
        "columns twice": (b"text,text\na,b\n", "names 'text' twice"),
        "rows of other lengths": (b"text,label\na\n", "row 1 has 1 cells"),
        "mixed encodings": ("text,label\ng,x\né,x\n".encode("latin-1"), "no UTF-8 text"),
        "UTF-16": ("text,label\na,x\n".encode("utf-16"), "no UTF-8 text"),
        "nothing": (b"", "no rows"),
    },
    ".parquet": {"text": (ROW, "cannot be read"), "nothing": (b"", "cannot be read")},
    ".arrow": {"text": (ROW, "cannot be read"), "zeros": (b"\0" * 100, "cannot be read")},
    ".txt": {"latin-1": ("é".encode("latin-1"), "no UTF-8 text"), "nothing": (b" ", "no rows")},
}


def read(path: Path) -> int:
    rows = open_file(path, where=f"data.train: {path}", text_column="text", scratch_dir=path.parent)
    rows[:]  # every value can be had
    return len(rows)


@pytest.mark.parametrize(("ending", "kind"), [(ending, kind) for ending, kinds in BROKEN.items() for kind in kinds])
def test_a_broken_file_is_refused(tmp_path: Path, ending: str, kind: str) -> None:
    content, said = BROKEN[ending][kind]
    path = tmp_path / f"rows{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read(path)
    assert str(caught.value).startswith(f"data.train: {path}")
    assert len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("ending", "content", "n_rows"),
    [
        (".jsonl", json.dumps({"text": "w " * 2_000_000}).encode(), 1),
        (".jsonl", b"\xef\xbb\xbf" + ROW.replace(b"\n", b"\r\n"), 1),
        (".jsonl", json.dumps({"text": '[{"' * 2_000}).encode() + b"\n" + ROW, 2),  # brackets, but in a text
        (".jsonl", b'{"text": "null", "label": null}\n', 1),
        (".jsonl", b'{"text": "a\\u0000b", "label": NaN}\n', 1),
        (".csv", b'\xef\xbb\xbftext,label\r\n"' + b"w " * 2_000_000 + b'",x\r\n', 1),
        (".csv", b"text,label\na\0b,x\n", 1),
    ],
)
def test_an_odd_file_is_read(tmp_path: Path, ending: str, content: bytes, n_rows: int) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(content)
    assert read(path) == n_rows


def test_damaged_bytes_of_a_table_are_refused_or_read(tmp_path: Path) -> None:
    whole = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "bc"] * 50, "label": ["x", "y"] * 50}), whole)
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, pa.schema({"text": pa.string()})) as writer:
        writer.write_table(pa.table({"text": ["a", "bc"] * 50}))
    draw = random.Random(0)
    for ending, content in ((".parquet", whole.getvalue()), (".arrow", stream.getvalue())):
        path = tmp_path / f"rows{ending}"
        for _ in range(15):
            at = draw.randrange(len(content))
            path.write_bytes(content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :])
            try:
                read(path)
            except DataError as error:
                assert "cannot be read" in str(error) or "no rows" in str(error)
