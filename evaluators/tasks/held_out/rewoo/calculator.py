"""Evaluate arithmetic without running code."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    name: getattr(math, name)
    for name in ("sqrt", "sin", "cos", "tan", "exp", "log", "log10", "radians", "degrees")
} | {"abs": abs, "round": round, "min": min, "max": max}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_LONGEST = 300
_LARGEST_POWER = 1000.0
_GROUPS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def calculate(expression: str) -> str:
    """Return the value of an arithmetic expression, as text.

    `^` is a power; brackets of inserted evidence, dollar signs and commas between groups of three
    digits are ignored.

    Raises:
        ValueError: It is not arithmetic, or has no finite value.
    """
    text = _GROUPS.sub("", expression).replace("^", "**").replace("$", "")
    text = text.replace("[", "(").replace("]", ")").rpartition("=")[2].strip()
    if len(text) > _LONGEST:
        raise ValueError(f"{len(text)} characters are too many")
    try:
        value = _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("this is no arithmetic expression") from error
    except (ArithmeticError, TypeError) as error:
        raise ValueError(str(error)) from error
    if isinstance(value, complex) or not math.isfinite(value):
        raise ValueError("the value is not a finite number")
    return f"{value:.10g}"


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            first, second = _value(left), _value(right)
            if isinstance(op, ast.Pow) and abs(second) > _LARGEST_POWER:
                raise ValueError("the power is too large")
            return _BINARY[type(op)](first, second)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            numbers = [_value(argument) for argument in arguments]
            return float(_FUNCTIONS[name](*numbers))
    raise ValueError("this is no arithmetic expression")
