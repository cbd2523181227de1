# SPDX-License-Identifier: Apache-2.0
"""What a technique must be like before it is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quarterdeck.core import technique_checks
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import TechniqueId
from quarterdeck.core.methods import Method, MethodParameter
from quarterdeck.core.techniques import Block, Call, Constraints, Technique, TechniqueParameter

CATALOGUE = {
    "file_present": Method(
        id="file_present",
        name="File present",
        description="",
        parameters=(MethodParameter(name="path"),),
        prefix="file_present",
        class_parameter="path",
        renamed={"target": "path"},
    )
}
CALL = Call(id="c", method="file_present", parameters={"target": "/a"})
BLOCK = Block(id="b", component="Files", items=(CALL,))
PARAMETER = TechniqueParameter(id="P", name="p", section="Files")
GOOD = Technique(
    id=TechniqueId("good_1"),
    version="1.0",
    name="Good",
    parameters=(PARAMETER,),
    repeated=frozenset({"Files"}),
    items=(replace(BLOCK, foreach="Files", when="p == a|b and !p or p", logic="focus:c"),),
)


def test_a_good_technique_is_fine() -> None:
    technique_checks.check(GOOD, CATALOGUE)


def test_blocks_nested_thousands_of_levels_deep_are_refused() -> None:
    item: Block | Call = CALL
    for number in range(5000):
        item = Block(id=f"b{number}", component="x", items=(item,))

    with pytest.raises(Invalid, match="nested more than 32 levels deep"):
        technique_checks.check(replace(GOOD, items=(item,)), CATALOGUE)


@pytest.mark.parametrize(
    ("technique", "message"),
    [
        (replace(GOOD, id=TechniqueId("a-b")), "id: Must consist of letters, digits and '_'"),
        (replace(GOOD, version="1"), "version: Must be of the form MAJOR.MINOR"),
        (replace(GOOD, name=" "), "name: Must not be empty"),
        (replace(GOOD, parameters=(PARAMETER, PARAMETER)), "parameter 'p': This name is used twice"),
        (replace(GOOD, parameters=(PARAMETER, replace(PARAMETER, name="q"))), "parameter 'P': This id is used twice"),
        (replace(GOOD, parameters=(replace(PARAMETER, name="a b"),)), "parameter 'a b': Its name must consist of"),
        (replace(GOOD, parameters=(replace(PARAMETER, type="colour"),)), "parameter 'p': Unknown type 'colour'"),
        (
            replace(GOOD, parameters=(replace(PARAMETER, constraints=Constraints(regex="(")),)),
            "parameter 'p': Its regex does not compile",
        ),
        (
            replace(GOOD, parameters=(replace(PARAMETER, type="integer", default="x"),)),
            "parameter 'p': Its default is refused: Wrong value x",
        ),
        (
            replace(GOOD, parameters=(replace(PARAMETER, constraints=Constraints(password_hashes=("rot13",))),)),
            "parameter 'p': Unknown password hash 'rot13'",
        ),
        (replace(GOOD, repeated=frozenset({"Files", "None"})), "section 'None': It has no parameter"),
        (replace(GOOD, items=(replace(CALL, method="x"),)), "call 'c': Unknown method 'x'"),
        (replace(GOOD, items=(replace(CALL, parameters={}),)), "call 'c', parameter 'path': Must not be empty"),
        (replace(GOOD, items=(CALL, replace(CALL))), "item 'c': This id is used twice"),
        (replace(GOOD, items=(replace(BLOCK, items=()),)), "block 'Files': A block needs at least one item"),
        (replace(GOOD, items=(replace(BLOCK, component=""),)), "block 'b': A block needs a name"),
        (replace(GOOD, items=(replace(BLOCK, logic="best"),)), "block 'Files': Unknown reporting logic 'best'"),
        (replace(GOOD, items=(replace(BLOCK, logic="focus:x"),)), "block 'Files': The focus 'x' is not an item"),
        (
            replace(GOOD, items=(replace(BLOCK, foreach="X"),)),
            "block 'Files': 'foreach' names no repeated section: 'X'",
        ),
        (replace(GOOD, items=(replace(CALL, when="p ="),)), "call 'c': 'when' must be of the form"),
        (replace(GOOD, items=(replace(CALL, when="!p == a"),)), "call 'c': 'when' must be of the form"),
        (replace(GOOD, items=(replace(CALL, when="q"),)), "call 'c': 'when' names no parameter: 'q'"),
    ],
)
def test_what_is_wrong_is_told(technique: Technique, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        technique_checks.check(technique, CATALOGUE)

    assert f": {message}" in caught.value.message
