"""Small safe expressions for derived values, such as `2 * lora_rank`. Text and numbers in, one scalar out."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finesweep.events import Value
from finesweep.spec.faults import show, unknown

_LONGEST_TEXT = 500  # characters
_DEEPEST = 30  # levels of brackets and operators
_LARGEST_EXPONENT = 64
_LARGEST_NUMBER = 1e18  # below 2**63, what the database can hold

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_SIGNS: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": round,
    "int": int,
    "float": float,
    "abs": abs,
}


class ExpressionError(ValueError):
    """Say what is wrong with an expression, or why it has no value."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression and the parameters it needs."""

    text: str
    names: frozenset[str]
    body: ast.expr

    def evaluate(self, values: Mapping[str, Value]) -> Value:
        """Compute the value. Raise ExpressionError where there is none: a missing name, a division by zero."""
        try:
            value = _value(self.body, values)
        except ExpressionError as error:
            raise ExpressionError(f"{show(self.text)}: {error}") from None
        except ZeroDivisionError:
            raise ExpressionError(f"{show(self.text)} divides by zero.") from None
        except (TypeError, ValueError, OverflowError, ArithmeticError) as error:
            raise ExpressionError(f"{show(self.text)} has no value: {error}.") from None
        return value


def parse_expression(text: str) -> Expression:
    """Check an expression's grammar. Raise ExpressionError for anything but the operators and functions below."""
    if len(text) > _LONGEST_TEXT:
        raise ExpressionError(f"an expression may have at most {_LONGEST_TEXT} characters; this one has {len(text)}.")
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ExpressionError(
            f"{show(text)} is not an expression. Write one like 2 * lora_rank; text needs quotes of its own."
        ) from None
    names: set[str] = set()
    _check(body, names, depth=0)
    return Expression(text, frozenset(names), body)


def evaluate_value(value: Value, values: Mapping[str, Value]) -> Value:
    """Compute a derived parameter's value: text is an expression, anything else stands for itself."""
    return parse_expression(value).evaluate(values) if isinstance(value, str) else value


def _check(node: ast.expr, names: set[str], *, depth: int) -> None:
    if depth > _DEEPEST:
        raise ExpressionError(f"the expression is nested more than {_DEEPEST} levels deep.")
    match node:
        case ast.Constant(value=value):
            if not isinstance(value, str | int | float | bool | None):
                raise ExpressionError(f"{show(str(value))} is not a value that an expression may hold.")
            _bounded(value)
        case ast.Name(id=name):
            names.add(name)
        case ast.Call():
            _check_call(node)
        case ast.BinOp(op=op) if type(op) not in _OPERATORS:
            raise ExpressionError("only the operators + - * / // % ** can be used.")
        case ast.UnaryOp(op=op) if type(op) not in _SIGNS:
            raise ExpressionError("only the signs + and - and `not` can be used.")
        case ast.Compare(ops=ops) if any(type(op) not in _COMPARISONS for op in ops):
            raise ExpressionError("only the comparisons == != < <= > >= can be used.")
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.IfExp() | ast.BoolOp():
            pass
        case _:
            raise ExpressionError(
                f"{type(node).__name__.lower()} is not allowed: use numbers, parameters, + - * / // % **, comparisons,"
                f" `a if b else c` and {', '.join(_FUNCTIONS)}."
            )
    for part in _parts(node):
        _check(part, names, depth=depth + 1)


def _check_call(node: ast.Call) -> None:
    if not isinstance(node.func, ast.Name):
        raise ExpressionError(f"only these functions can be called: {', '.join(_FUNCTIONS)}.")
    if node.func.id not in _FUNCTIONS:
        raise ExpressionError(unknown("function", node.func.id, _FUNCTIONS))
    if node.keywords or not node.args or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise ExpressionError(f"{node.func.id} takes plain arguments, as in {node.func.id}(lora_rank, 8).")


def _parts(node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.Call(args=args):
            return args
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.UnaryOp(operand=operand):
            return [operand]
        case ast.Compare(left=left, comparators=comparators):
            return [left, *comparators]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return [test, body, orelse]
        case ast.BoolOp(values=values):
            return values
    return []


def _value(node: ast.expr, values: Mapping[str, Value]) -> Value:
    result: Any
    match node:
        case ast.Constant(value=value):
            result = value
        case ast.Name(id=name):
            if name not in values:
                raise ExpressionError(f"{name} has no value in this trial.")
            result = values[name]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            result = _value(body if _value(test, values) else orelse, values)
        case ast.BoolOp(op=op, values=operands):
            result = _either(operands, values, until=isinstance(op, ast.Or))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            chain = [_value(part, values) for part in (left, *comparators)]
            result = all(_COMPARISONS[type(op)](a, b) for op, a, b in zip(ops, chain, chain[1:], strict=False))
        case ast.UnaryOp(op=op, operand=operand):
            result = _SIGNS[type(op)](_value(operand, values))
        case ast.BinOp(left=left, op=op, right=right):
            result = _combine(op, _value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id=function), args=args):
            result = _FUNCTIONS[function](*(_value(argument, values) for argument in args))
        case _:
            raise AssertionError(f"{type(node).__name__} passed the check")
    return _bounded(result)


def _either(operands: list[ast.expr], values: Mapping[str, Value], *, until: bool) -> Value:
    result: Value = None
    for operand in operands:
        result = _value(operand, values)
        if bool(result) is until:
            break
    return result


def _combine(op: ast.operator, left: Value, right: Value) -> Any:
    if isinstance(left, str | None) or isinstance(right, str | None):
        raise ExpressionError(f"{show(left)} and {show(right)} cannot be calculated with; both must be numbers.")
    if isinstance(op, ast.Pow) and abs(right) > _LARGEST_EXPONENT:
        raise ExpressionError(f"the exponent {show(right)} is beyond {_LARGEST_EXPONENT}.")
    return _OPERATORS[type(op)](left, right)


def _bounded(value: Any) -> Value:
    if isinstance(value, complex):
        raise ExpressionError("the result is not a real number.")
    if isinstance(value, int | float) and not abs(value) <= _LARGEST_NUMBER:  # nan included
        raise ExpressionError("a number is not finite or beyond 1e18.")
    result: Value = value
    return result
