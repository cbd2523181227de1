# SPDX-License-Identifier: Apache-2.0
"""Our own OpenAPI documents, taken at their word by schemathesis: whatever they allow gets an answer of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tests.fuzz.fuzzed import (
    KNOWN,
    RUDDER_PREFIX,
    Fuzzed,
    check,
    described,
    fuzzed,
    native_operations,
    rudder_operations,
)
from tests.postgres import database_from

pytestmark = [pytest.mark.xdist_group("openapi"), pytest.mark.timeout(300)]

EXAMPLES = 20
bounded = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
rudder = schemathesis.openapi.from_dict(described(rudder_operations(), RUDDER_PREFIX))
native = schemathesis.openapi.from_dict(described(native_operations(), "/quarterdeck"))
#: Half of the requests are about what exists.
known = st.none() | st.sampled_from(KNOWN)


@pytest.fixture(scope="module")
def target(postgres_server: str, postgres_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    directory: Path = tmp_path_factory.mktemp("openapi")
    with database_from(postgres_server, postgres_template, "openapi") as url, fuzzed(url, directory) as made:
        yield made


def ask(target: Fuzzed, case: Any, instead: str | None) -> None:
    """Send what schemathesis made up, perhaps about something that exists, and check the answer."""
    if instead is not None and case.path_parameters and case.operation.method != "delete":
        case.path_parameters = dict.fromkeys(case.path_parameters, instead)
    arguments = case.as_transport_kwargs(base_url="https://server.example.com")
    # Not the tokens that it makes up: those are refused before anything happens.
    headers = [(name, value) for name, value in arguments.pop("headers").items() if name.lower() != "x-api-token"]
    arguments["headers"] = dict(headers) | target.headers
    arguments.pop("cookies", None)
    if isinstance(arguments.get("data"), bytes):
        arguments["content"] = arguments.pop("data")
    check(target.client.request(**arguments))


@rudder.given(instead=known)
@rudder.parametrize()
@bounded
def test_the_rudder_dialect_answers_whatever_its_document_allows(
    target: Fuzzed, case: Any, instead: str | None
) -> None:
    ask(target, case, instead)


@native.given(instead=known)
@native.parametrize()
@bounded
def test_the_native_dialect_answers_whatever_its_document_allows(
    target: Fuzzed, case: Any, instead: str | None
) -> None:
    ask(target, case, instead)
