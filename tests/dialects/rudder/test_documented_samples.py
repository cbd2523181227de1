# SPDX-License-Identifier: Apache-2.0
"""The published documentation's own curl commands, sent as curl sends them: `samples.yaml`."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.testclient import TestClient
from tests.common import genuine
from tests.dialects.case_tables import METHODS, compare
from tests.served import Served

from quarterdeck.daemon.http import mount
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.dialects.rudder.parts import Parts
from quarterdeck.storage.database import Provenance

CHAPTERS = yaml.safe_load((Path(__file__).parent / "samples.yaml").read_text())
#: Commands that the text of the documentation prints, those that only its machine-readable form has, and ours.
PRINTED = {"text": 60, "spec": 48, "nowhere": 7}
NODE = "00000000-0000-4000-8000-000000000001"


class Watcher:
    """Watches nothing."""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    app = mount({"/rudder/api": RudderDialect(parts=Parts(watcher=Watcher()))}, served.database, threads=2)
    with TestClient(app, base_url="https://rudder.example.com") as client:
        yield client


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter["chapter"])
def test_the_samples_of_a_chapter(chapter: dict[str, Any], client: httpx.Client, served: Served) -> None:
    token = {"X-API-Token": served.tokens["admin"]}
    for method, path, document in chapter.get("given", ()):
        answer = client.request(method, path, json=document, headers=token)
        assert answer.status_code == 200, f"{method} {path}: {answer.text}"

    problems = []
    for sample in chapter["samples"]:
        answer = client.send(as_curl_sends(client, sample, token))
        try:
            check(sample, answer, served)
        except AssertionError as problem:
            problems.append(f"{sample['sample']}: {problem}")

    assert not problems, "\n\n".join(problems)


def as_curl_sends(client: httpx.Client, sample: Mapping[str, Any], token: Mapping[str, str]) -> httpx.Request:
    """The request that curl makes of a command."""
    first, _, rest = sample["send"].partition(" ")
    given, url = (first, rest) if first in METHODS else ("", sample["send"])
    headers = dict(sample.get("headers", {}))
    if sample.get("token", True):
        headers |= token
    if "form" in sample:
        content = genuine.inventory(NODE, "node1.example.com")
        parts = {"file": content, "signature": genuine.sign_file(content)}
        files = {name: (file, parts[name]) for name, file in sample["form"].items()}
        return client.build_request(given or "POST", _path(url), headers=headers, files=files)
    if "data" not in sample:
        return client.build_request(given or "GET", _path(url), headers=headers)
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    body = "&".join(map(_piece, sample["data"]))
    return client.build_request(given or "POST", _path(url), headers=headers, content=body.encode())


def _piece(piece: str | dict[str, str]) -> str:
    """An argument of -d as it is; of a file, curl leaves out the ends of lines."""
    return piece if isinstance(piece, str) else piece["file"].replace("\r", "").replace("\n", "")


def _path(url: str) -> str:
    """The URL without its host."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def check(sample: Mapping[str, Any], answer: httpx.Response, served: Served) -> None:
    """Fail where the answer is not what the sample promises."""
    shown = f"{answer.status_code} {answer.text[:2000]}"
    assert answer.status_code == sample.get("status", 200), shown
    if "text" in sample:
        assert answer.text == sample["text"], shown
    if "answer" in sample:
        compare(sample["answer"], answer.json(), "", answer.text)
    if "lines" in sample:
        assert ("\n" in answer.text) is sample["lines"], shown
    if "reason" in sample:
        kind, key, reason = sample["reason"]
        with served.database.unit_of_work(Provenance(actor="tests")) as store:
            assert store.history.of(kind, key)[-1].reason == reason


def test_no_sample_went_lost() -> None:
    printed = [sample.get("printed", "text") for chapter in CHAPTERS for sample in chapter["samples"]]

    assert {kind: printed.count(kind) for kind in PRINTED} == PRINTED
