# SPDX-License-Identifier: Apache-2.0
"""A directive's values against its technique: defaults, instances, types and constraints."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.core import technique_parameters
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import TechniqueId
from quarterdeck.core.techniques import Constraints, Technique, TechniqueParameter


def parameter(kind: str = "string", **constraints: Any) -> TechniqueParameter:
    return TechniqueParameter(id="V", name="v", type=kind, constraints=Constraints(**constraints))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", "anything"),
        ("multiline-string", "a\nb"),
        ("raw", "'"),
        ("integer", "-12"),
        ("size-mb", "12"),
        ("ip", "10.0.0.1"),
        ("ip", "fe80::1"),
        ("ipv4", "10.0.0.1"),
        ("ipv6", "::"),
        ("mail", "a@example.com"),
        ("boolean", "TRUE"),
        ("datetime", "2026-11-21T09:05:03Z"),
        ("date", "2026-11-21"),
        ("time", "09:05"),
        ("perm", "644"),
        ("permissions", "4755"),
        ("destinationfullpath", "/etc/x"),
        ("json", '{"a": 1}'),
        ("yaml", "a: 1"),
        ("password", "sha512-crypt:$6$x"),
        ("password", "plain:secret"),
        ("integer", "${node.properties[port]}"),
    ],
)
def test_a_value_of_its_type_is_fine(kind: str, value: str) -> None:
    assert technique_parameters.problem(parameter(kind), value) == ""


FORMAT = "Please modify V to match the requested format  : "


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (parameter(), "", "'V' field must not be empty"),
        (parameter(may_be_empty=True), "", ""),
        (parameter(regex="[a-z]+", regex_message="lower case"), "A", FORMAT + "lower case"),
        (parameter(regex="[a-z]+"), "abc1", FORMAT + "[a-z]+"),
        (parameter(regex="[a-z]+"), "A ${rudder.node.id}", ""),
        (parameter(regex=".*end"), "a\nend", ""),
        (parameter(), "${node.properties}", "Please modify V: error while parsing property: ${node.properties}"),
        (parameter(), "${rudder.node.x}", "Please modify V: error while parsing property: ${rudder.node.x}"),
        (parameter(), "evaljs:1", "Please modify V: scripts in values are not supported"),
        (parameter("integer"), "1.5", "Wrong value 1.5 for field 'V': expecting an integer."),
        (parameter("size-kb"), "-1", "Wrong value -1 for field 'V': expecting an integer."),
        (parameter("datetime"), "today", "Wrong value today for field 'V': expecting a datetime in ISO 8601 standard."),
        (parameter("boolean"), "yes", "Wrong value yes for field 'V': expecting true or false."),
        (parameter("json"), "{", "Wrong value { for field 'V': expecting JSON."),
        (parameter("ip"), "10.0.0", FORMAT + "an IP address"),
        (parameter("ipv4"), "::1", FORMAT + "an IPv4 address"),
        (parameter("ipv6"), "10.0.0.1", FORMAT + "an IPv6 address"),
        (parameter("mail"), "nobody", FORMAT + "a mail address"),
        (parameter("perm"), "888", FORMAT + "an octal mode such as 644 or 4755"),
        (parameter(select=("a", "b")), "c", FORMAT + "one of a, b"),
        (
            parameter("password", password_hashes=("sha512-crypt",)),
            "plain:x",
            FORMAT + "algorithm:hash, with one of the algorithms sha512-crypt",
        ),
        (parameter("password", password_hashes=("pre-hashed",)), "linux-shadow-sha512:$6$", ""),
        (parameter("password", password_hashes=("pre-hashed",)), "$6$salt$hash", ""),
        (
            parameter("password", password_hashes=("pre-hashed",)),
            "plain:secret",
            FORMAT + "algorithm:hash, with one of the algorithms pre-hashed",
        ),
    ],
)
def test_what_a_value_breaks_is_told(spec: TechniqueParameter, value: str, expected: str) -> None:
    assert technique_parameters.problem(spec, value) == expected


TECHNIQUE = Technique(
    id=TechniqueId("t"),
    version="1.0",
    name="T",
    parameters=(
        TechniqueParameter(id="ONE", name="one", default="1", type="integer"),
        TechniqueParameter(id="PATH", name="path", section="Files"),
        TechniqueParameter(id="MODE", name="mode", section="Files", default="644", type="perm"),
    ),
    repeated=frozenset({"Files"}),
)


def test_defaults_and_instances_are_filled_in() -> None:
    assert technique_parameters.fill(TECHNIQUE, {}) == {"ONE": ("1",), "PATH": ("",), "MODE": ("644",)}
    assert technique_parameters.fill(
        TECHNIQUE, {"ONE": ("5", "6"), "PATH": ("/a", "/b", "/c"), "MODE": ("600",), "GONE": ("x",)}
    ) == {"ONE": ("5",), "PATH": ("/a", "/b", "/c"), "MODE": ("600", "644", "644")}


def test_a_check_gives_the_filled_values_or_names_every_bad_variable() -> None:
    assert technique_parameters.check(TECHNIQUE, {"PATH": ("/a",)})["MODE"] == ("644",)

    with pytest.raises(Invalid) as caught:
        technique_parameters.check(TECHNIQUE, {"ONE": ("x",), "PATH": ("/a", "")})

    assert caught.value.message == "Wrong value x for field 'ONE': expecting an integer."
    assert caught.value.problems == {
        "ONE": "Wrong value x for field 'ONE': expecting an integer.",
        "PATH": "'PATH' field must not be empty",
    }
