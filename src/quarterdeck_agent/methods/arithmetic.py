# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of policies: `3 * (2 + 1) ^ 2`, `sqrt(2)`, with bounds so that no expression can hang a run."""

from __future__ import annotations

import ast
import math
import operator
import re
from typing import Callable, Dict, Union

from quarterdeck_agent.methods.system import UnableError

Number = Union[int, float]

_OPERATORS: Dict[type, Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # in floating point: an integer power may never end
}
_FUNCTIONS: Dict[str, Callable[[float], Number]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_WITH_UNIT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([kmgt])\b")
_FORMAT = re.compile(r"[^%]*%[-+ 0#]*\d{0,3}(\.\d{1,3})?[dixXoeEfFgG][^%]*")


def evaluate(expression: str) -> Number:
    """The value of an expression of numbers, `+ - * / % ^ **`, parentheses and functions. Raises UnableError."""
    if len(expression) > 1000:
        raise UnableError("The expression is longer than 1000 characters.")
    text = re.sub(
        r"(?<![\w.])(\d+(?:\.\d+)?)([kmgt])\b", lambda found: f"({found[1]}*{_UNITS[found[2]]!r})", expression
    )
    try:
        return _value(ast.parse(text.replace("^", "**").strip(), mode="eval").body)
    except (SyntaxError, RecursionError, ValueError, ArithmeticError) as problem:
        raise UnableError(f"{expression} cannot be computed: {problem}.") from problem


def formatted(value: Number, pattern: str) -> str:
    """The number in a printf format with one conversion, `%d` or `%.2f`; whole numbers are cut as C does."""
    if not _FORMAT.fullmatch(pattern):
        raise UnableError(f"{pattern} is not a format for one number, like %d or %.2f.")
    try:
        return pattern % (int(value) if re.search(r"[dixXo](?=[^%]*$)", pattern.partition("%")[2]) else value)
    except (ValueError, OverflowError) as problem:
        raise UnableError(f"{value} cannot be shown as {pattern}: {problem}.") from problem


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        return -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        return _function(node.func.id)(_value(node.args[0]))
    raise ValueError("only numbers, + - * / % ^, parentheses and functions of one number are known")


def _function(name: str) -> Callable[[float], Number]:
    if name not in _FUNCTIONS:
        raise ValueError(f"there is no function {name}")
    return _FUNCTIONS[name]
