# SPDX-License-Identifier: Apache-2.0
"""What a technique must be like before it is kept: ids, parameters, blocks, and its calls against the catalogue."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from quarterdeck.core import methods, policy_items, technique_parameters
from quarterdeck.core.errors import Invalid
from quarterdeck.core.methods import Method
from quarterdeck.core.techniques import Block, Call, Item, Technique, TechniqueParameter

LOGICS = ("weighted", "worst-case-weighted-one", "worst-case-weighted-sum", "disabled")
#: Of blocks inside blocks.
MAX_NESTING = 32
_ID = re.compile(r"[A-Za-z0-9_]+")
_VERSION = re.compile(r"[0-9]+\.[0-9]+")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def check(technique: Technique, catalogue: Mapping[str, Method]) -> None:
    """Raise Invalid when the technique cannot be kept; `problems` maps where to what, the first is the message."""
    _check_nesting(technique)
    problems = {
        **dict(_header(technique)),
        **dict(_parameters(technique)),
        **dict(_items(technique.items, technique, catalogue)),
        **dict(_repeated_ids(technique)),
    }
    if problems:
        where, what = next(iter(problems.items()))
        raise Invalid(f"Technique '{technique.id}': {where}: {what}", problems=problems)


def _check_nesting(technique: Technique) -> None:
    """Comes first, and without recursion: everything after it walks blocks by recursion."""
    level: list[Item] = list(technique.items)
    for _ in range(MAX_NESTING):
        level = [inner for item in level if isinstance(item, Block) for inner in item.items]
    if level:
        raise Invalid(f"Technique '{technique.id}': Blocks are nested more than {MAX_NESTING} levels deep")


def _header(technique: Technique) -> Iterator[tuple[str, str]]:
    if not _ID.fullmatch(technique.id):
        yield "id", "Must consist of letters, digits and '_'"
    if not _VERSION.fullmatch(technique.version):
        yield "version", "Must be of the form MAJOR.MINOR"
    if not technique.name.strip():
        yield "name", "Must not be empty"


def _parameters(technique: Technique) -> Iterator[tuple[str, str]]:
    for one in technique.parameters:
        yield from _parameter(one)
    for twice in _twice(one.name for one in technique.parameters):
        yield f"parameter '{twice}'", "This name is used twice"
    for twice in _twice(one.id for one in technique.parameters):
        yield f"parameter '{twice}'", "This id is used twice"
    sections = {one.section for one in technique.parameters}
    for name in sorted(technique.repeated - sections):
        yield f"section '{name}'", "It has no parameter"


def _parameter(parameter: TechniqueParameter) -> Iterator[tuple[str, str]]:
    where = f"parameter '{parameter.name}'"
    if not _NAME.fullmatch(parameter.name):
        yield where, "Its name must consist of letters, digits, '_' and '-'"
    if parameter.type not in technique_parameters.TYPES:
        yield where, f"Unknown type '{parameter.type}'"
    try:
        re.compile(parameter.constraints.regex)
    except re.error as error:
        yield where, f"Its regex does not compile: {error}"
        return
    unknown = set(parameter.constraints.password_hashes) - set(technique_parameters.PASSWORD_HASHES)
    if unknown:
        yield where, f"Unknown password hash '{min(unknown)}'"
    if parameter.default and (wrong := technique_parameters.problem(parameter, parameter.default)):
        yield where, f"Its default is refused: {wrong}"


def _items(items: Iterable[Item], technique: Technique, catalogue: Mapping[str, Method]) -> Iterator[tuple[str, str]]:
    for item in items:
        yield from _when(item, technique)
        if isinstance(item, Call):
            yield from _call(item, catalogue)
            continue
        yield from _block(item, technique)
        yield from _items(item.items, technique, catalogue)


def _call(call: Call, catalogue: Mapping[str, Method]) -> Iterator[tuple[str, str]]:
    where = _where(call)
    method = catalogue.get(call.method)
    if method is None:
        yield where, f"Unknown method '{call.method}'"
        return
    for name, sentence in methods.problems(method, call.parameters).items():
        yield f"{where}, parameter '{name}'", sentence


def _block(block: Block, technique: Technique) -> Iterator[tuple[str, str]]:
    where = _where(block)
    if not block.component.strip():
        yield where, "A block needs a name"
    if not block.items:
        yield where, "A block needs at least one item"
    kind, found, target = block.logic.partition(":")
    if not (block.logic in LOGICS or (kind == "focus" and found and target)):
        yield where, f"Unknown reporting logic '{block.logic}'"
    elif kind == "focus" and target not in {name for item in block.items for name in (item.id, item.component)}:
        yield where, f"The focus '{target}' is not an item of the block"
    if block.foreach and block.foreach not in technique.repeated:
        yield where, f"'foreach' names no repeated section: '{block.foreach}'"


def _when(item: Item, technique: Technique) -> Iterator[tuple[str, str]]:
    if not item.when:
        return
    try:
        names = [name for clauses in policy_items.read_when(item.when) for name, _ in clauses]
    except Invalid as error:
        yield _where(item), error.message
        return
    for name in sorted(set(names) - {parameter.name for parameter in technique.parameters}):
        yield _where(item), f"'when' names no parameter: '{name}'"


def _where(item: Item) -> str:
    return f"{'call' if isinstance(item, Call) else 'block'} '{item.component or item.id}'"


def _repeated_ids(technique: Technique) -> Iterator[tuple[str, str]]:
    for twice in _twice(_ids(technique.items)):
        yield f"item '{twice}'", "This id is used twice"


def _ids(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        yield item.id
        if isinstance(item, Block):
            yield from _ids(item.items)


def _twice(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
