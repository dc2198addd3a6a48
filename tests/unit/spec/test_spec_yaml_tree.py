"""YAML as people write it: numbers, lines, aliases, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from finesweep.spec.yaml_tree import Tree, read_text, read_value


def read(text: str) -> Tree:
    return read_text(text, shown_as="f.yaml")


def faults(text: str) -> list[str]:
    return [str(fault) for fault in read(text).faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-6", 5e-6),
        ("1e-4", 1e-4),
        ("2E5", 2e5),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("3", 3),
        ("-3", -3),
        ("100_000", 100_000),
        ("0x10", 16),
        ("0o10", 8),
        ("010", 10),
        ("'5e-6'", "5e-6"),
        ('"3"', "3"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("yes", "yes"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("[1, {a: 2}]", [1, {"a": 2}]),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    read_back = read_value(text)
    assert read_back == value
    assert type(read_back) is type(value)


def test_lines_count_from_one_and_follow_nesting() -> None:
    lines = read("a: 1\n# comment\nb:\n  c: [1,\n    2]\n  d: {e: 5}\n").lines
    assert lines == {("a",): 1, ("b",): 3, ("b", "c"): 4, ("b", "c", 0): 4, ("b", "c", 1): 5, ("b", "d"): 6,
                     ("b", "d", "e"): 6}  # fmt: skip


def test_a_byte_order_mark_is_no_fault(tmp_path: Any) -> None:
    from finesweep.spec.yaml_tree import read_file

    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(path, shown_as="f.yaml").value == {"a": 1}


def test_aliases_and_merges() -> None:
    tree = read("a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [{x: 5}, *a]}\n")
    assert tree.value["b"] == {"x": 1, "y": 2}
    assert tree.value["c"] == {"x": 1, "y": 3}
    assert tree.value["d"] == {"x": 5, "y": 2}
    assert tree.lines[("c", "y")] == 3


def test_keys_become_text() -> None:
    assert read("m: {8: a, true: b, null: c, 1e-4: d}").value == {
        "m": {"8": "a", "True": "b", "None": "c", "0.0001": "d"}
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4: b.c: the key is given twice, first on line 3. Keep one of the two."),
        ("a: &a [*a]\n", "f.yaml:1: a.0: this alias contains itself. Write the values out."),
        ("a: &a {b: *a}\n", "f.yaml:1: a.b: this alias contains itself. Write the values out."),
        ("a: *b\n", "f.yaml:1: this is not YAML: found undefined alias 'b'."),
        ("a: !!binary aGk=\n", "f.yaml:1: a: the tag !!binary is not known here. Leave it out."),
        ("a: !thing 3\n", "f.yaml:1: a: the tag !thing is not known here. Leave it out."),
        ("a: !thing [3]\n", "f.yaml:1: a: the tag !thing is not known here. Leave it out."),
        ("a: !!set {x}\n", "f.yaml:1: a: the tag !!set is not known here. Leave it out."),
        ("a: !!bool x\n", "f.yaml:1: a: the tag !!bool is not known here. Leave it out."),
        ("a: !!int x\n", "f.yaml:1: a: x is not a number that can be read."),
        ("a: .nan\n", "f.yaml:1: a: .nan is not a finite number. Write one, or `null` for none."),
        ("a: -.inf\n", "f.yaml:1: a: -.inf is not a finite number. Write one, or `null` for none."),
        ("a: 1e999\n", "f.yaml:1: a: 1e999 is not a finite number. Write one, or `null` for none."),
        (
            "a: 99999999999999999999\n",
            "f.yaml:1: a: 99999999999999999999 is too large; whole numbers must fit 64 bits.",
        ),
        ("a: " + "9" * 5000, "f.yaml:1: a: " + "9" * 30 + " is not a number that can be read."),
        ("a: {[1]: 2}\n", "f.yaml:1: a: a key must be a single word or number."),
        ("a: {<<: 3}\n", "f.yaml:1: a: `<<` must name a mapping, as in `<<: *anchor`."),
        ("a:\n" + "[" * 100, "f.yaml:2: values are nested more than 40 levels deep."),
        ("a: 1\x07\n", "f.yaml:1: this is not YAML: special characters are not allowed."),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: this is not YAML: but found another document."),
        ('a: "\\UFFFFFFFF"\n', None),
    ],
)
def test_what_cannot_be_read(text: str, message: str | None) -> None:
    (fault,) = faults(text)
    assert fault == message or (message is None and "this is not YAML" in fault)


def test_aliases_that_multiply_without_end_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (fault,) = faults("\n".join(lines))
    assert "holds more than 20000 values once its aliases are followed" in fault


def test_one_value_is_one_line() -> None:
    with pytest.raises(ValueError, match="more than one line"):
        read_value("1\nb: 2")
    assert read_value("{a: 1, b: 2}") == {"a": 1, "b": 2}
