# SPDX-License-Identifier: Apache-2.0
"""Which operation a path leads to, whatever the order of declaration."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.web.operation import Operation, Reply
from quarterdeck.web.router import Router


def row(method: str, path: str) -> Operation:
    def handler(_ctx: Any, _request: Any) -> Reply:
        return Reply()

    return Operation(name=path, method=method, path=path, right=None, handler=handler, section="", summary="")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "wanted", "params"),
    [
        ("GET", "rules", "/rules", {}),
        ("GET", "rules/tree", "/rules/tree", {}),
        ("GET", "rules/other", "/rules/{id}", {"id": "other"}),
        ("GET", "rules/categories/x", "/rules/categories/{id}", {"id": "x"}),
        ("GET", "rules/x/y", "/rules/{id}/{part}", {"id": "x", "part": "y"}),
        # The literal leads nowhere with this method: the parameter's operation is found.
        ("DELETE", "rules/tree", "/rules/{id}", {"id": "tree"}),
    ],
)
def test_literal_segments_outrank_parameters(
    reverse: bool, method: str, path: str, wanted: str, params: dict[str, str]
) -> None:
    rows = [
        row("GET", "/rules"),
        row("GET", "/rules/tree"),
        row("GET", "/rules/{id}"),
        row("DELETE", "/rules/{id}"),
        row("GET", "/rules/categories/{id}"),
        row("GET", "/rules/{id}/{part}"),
    ]

    match = Router(reversed(rows) if reverse else rows).find(method, tuple(path.split("/")))

    assert match is not None
    assert match.operation.path == wanted
    assert match.params == params


def test_what_no_operation_claims_is_not_found() -> None:
    router = Router([row("GET", "/rules/{id}")])

    assert router.find("GET", ("rules",)) is None
    assert router.find("GET", ("rules", "a", "b")) is None
    assert router.find("PUT", ("rules", "a")) is None
    assert router.methods(("rules", "a")) == ["GET"]


def test_two_operations_cannot_claim_one_path() -> None:
    with pytest.raises(ValueError, match="both claim GET"):
        Router([row("GET", "/rules/{id}"), row("GET", "/rules/{name}")])
