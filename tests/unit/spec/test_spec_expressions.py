"""Derived values: what can be computed, and that nothing else can."""

from __future__ import annotations

from typing import Any

import pytest

from finesweep.spec.expressions import ExpressionError, evaluate_value, parse_expression

VALUES: dict[str, Any] = {"rank": 8, "rate": 0.5, "method": "lora", "fast": True, "none": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * rank", 16),
        ("rank / 16", 0.5),
        ("rank // 3 + rank % 3 - 1", 3),
        ("-rank ** 2", -64),
        ("+rank", 8),
        ("min(rank, 4)", 4),
        ("max(rank, 4, 12)", 12),
        ("round(rate * 3)", 2),
        ("int(rank * 1.5)", 12),
        ("float(rank)", 8.0),
        ("abs(-rank)", 8),
        ("16 if method == 'lora' else 32", 16),
        ("16 if method != 'lora' else 32", 32),
        ("1 < rank <= 8", True),
        ("rank >= 9 or rate > 0.4", True),
        ("rank >= 9 and rate > 0.4", False),
        ("not fast", False),
        ("'text'", "text"),
        ("1e-4", 1e-4),
        (" rank ", 8),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert parse_expression(text).evaluate(VALUES) == value


def test_names_are_the_parameters_needed() -> None:
    assert parse_expression("min(rank, 4) * (2 if method == 'lora' else rate)").names == {"rank", "method", "rate"}


def test_only_text_is_an_expression() -> None:
    assert evaluate_value("2 * rank", VALUES) == 16
    assert evaluate_value(3, {}) == 3
    assert evaluate_value(True, {}) is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 *", '"2 *" is not an expression. Write one like 2 * lora_rank; text needs quotes of its own.'),
        ("", '"" is not an expression.'),
        ("a = 1", "is not an expression"),
        ("\0", "is not an expression"),
        ("import os", "is not an expression"),
        ("rank.real", "attribute is not allowed: use numbers, parameters"),
        ("[1, 2]", "list is not allowed"),
        ("lambda: 1", "lambda is not allowed"),
        ("f'{rank}'", "joinedstr is not allowed"),
        ("[x for x in y]", "listcomp is not allowed"),
        ("(x := 3)", "namedexpr is not allowed"),
        ("rank[0]", "subscript is not allowed"),
        ("__import__('os')", 'function "__import__" is unknown'),
        ("maxx(1, 2)", 'function "maxx" is unknown; did you mean "max"? Known: abs, float, int, max, min, round.'),
        ("rank.bit_length()", "only these functions can be called: min, max, round, int, float, abs."),
        ("max(*rank)", "max takes plain arguments, as in max(lora_rank, 8)."),
        ("max(1, key=rank)", "max takes plain arguments"),
        ("int()", "int takes plain arguments"),
        ("rank @ rank", "only the operators + - * / // % ** can be used."),
        ("rank << 9", "only the operators"),
        ("~rank", "only the signs + and - and `not` can be used."),
        ("rank in method", "only the comparisons == != < <= > >= can be used."),
        ("b'x'", "is not a value that an expression may hold."),
        ("3j", "is not a value that an expression may hold."),
        ("1e999", "a number is not finite or beyond 1e18."),
        ("9" * 400, "a number is not finite or beyond 1e18."),
        ("1" + "+1" * 300, "an expression may have at most 500 characters; this one has 601."),
        ("1" + "+1" * 100, "the expression is nested more than 30 levels deep."),
        ("(" * 240 + "1" + ")" * 240, "is not an expression"),
    ],
)
def test_what_cannot_be_parsed(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora_rank * 2", '"lora_rank * 2": lora_rank has no value in this trial.'),
        ("rank / 0", '"rank / 0" divides by zero.'),
        ("rank % 0", "divides by zero."),
        ("method * 2", '"lora" and 2 cannot be calculated with; both must be numbers.'),
        ("'a' * rank", "cannot be calculated with"),
        ("none + 1", "null and 1 cannot be calculated with"),
        ("10 ** 100", "the exponent 100 is beyond 64."),
        ("10 ** 60", "a number is not finite or beyond 1e18."),
        ("10.0 ** 64 ** 2", "the exponent 4096 is beyond 64."),
        ("1e17 ** 64", "has no value"),
        ("(-8) ** 0.5", "the result is not a real number."),
        ("int(method)", "has no value: invalid literal for int()"),
        ("method < 3", "has no value: '<' not supported"),
        ("-method", "has no value: bad operand type"),
        ("min(rank)", "has no value: 'int' object is not iterable"),
    ],
)
def test_what_has_no_value(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text).evaluate(VALUES)
    assert message in str(caught.value)
