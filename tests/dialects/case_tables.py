# SPDX-License-Identifier: Apache-2.0
"""Dialect tests are data: a YAML file of stories, each a list of requests with the answers they must get.

    - story: deleting an unknown rule succeeds
      as: admin                       # read | write | admin (default) | nobody
      steps:
        - DELETE: /rudder/api/latest/rules/nope
          json: {...}                 # or form: {...}, body: text, headers: {...}, files: {...}
          status: 200                 # the default
          answer: {result: success}   # dictionaries: these keys at least; lists: as long and in this order
          text: "OK\n"                # or the body as text
          headers_are: {Content-Type: application/json; charset=utf-8}   # spelling included
          save: {rule: data.rules.0.id}   # later written <<rule>>
          xml: {/result/@success: "true", count(//job): 2, //job/name: [a, b]}  # XPath: text, number, or all texts
          save_xml: {job: string(//job/@id)}

A text `~regex` matches by full match; `<any>` matches anything; `<absent>` demands that the key is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from lxml import etree

METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH")


@dataclass(frozen=True)
class Story:
    file: Path
    name: str
    account: str
    setup: str
    steps: list[dict[str, Any]]

    @property
    def id(self) -> str:
        return f"{self.file.stem}: {self.name}"


def stories(folder: Path) -> Iterator[Story]:
    """All stories of a folder's tables."""
    for file in sorted(folder.glob("*.yaml")):
        for one in yaml.safe_load(file.read_text()) or []:
            yield Story(file, one["story"], one.get("as", "admin"), one.get("setup", ""), one["steps"])


def play(story: Story, client: httpx.Client, tokens: Mapping[str, str], *, token_header: str = "X-API-Token") -> None:
    """Send the story's requests in order and compare the answers."""
    saved: dict[str, str] = {}
    for number, raw in enumerate(story.steps, 1):
        step = _fill(raw, saved)
        where = f"step {number} ({_method(step)} {step[_method(step)]})"
        response = _send(client, step, tokens[step.get("as", story.account)], token_header)
        shown = f"{where}: {response.status_code} {response.text[:3000]}"
        assert response.status_code == step.get("status", 200), shown
        if "text" in step:
            assert _matches(step["text"], response.text), shown
        for name, value in step.get("headers_are", {}).items():
            spelled = {key.decode(): text.decode() for key, text in response.headers.raw}
            assert spelled.get(name) == value, f"{where}: {spelled}"
        if "answer" in step:
            compare(step["answer"], response.json(), where, response.text)
        if "xml" in step or "save_xml" in step:
            document = etree.fromstring(response.content)
            for path, wanted in step.get("xml", {}).items():
                compare(wanted, _evaluated(document, path, wanted), f"{where} {path}", response.text)
            for name, path in step.get("save_xml", {}).items():
                saved[name] = str(document.xpath(path))
        for name, path in step.get("save", {}).items():
            saved[name] = str(_dig(response.json(), path))


def _method(step: Mapping[str, Any]) -> str:
    return next(name for name in METHODS if name in step)


def _send(client: httpx.Client, step: Mapping[str, Any], token: str, token_header: str) -> httpx.Response:
    method = _method(step)
    headers = {token_header: token} if token else {}
    headers |= step.get("headers", {})
    arguments: dict[str, Any] = {}
    if "json" in step:
        arguments["json"] = step["json"]
    if "form" in step:
        arguments["data"] = step["form"]
    if "body" in step:
        arguments["content"] = step["body"].encode()
    if "files" in step:
        arguments["files"] = {key: (value.get("name"), value["content"]) for key, value in step["files"].items()}
    return client.request(
        method, step[method], headers={k: v for k, v in headers.items() if v is not None}, **arguments
    )


def _fill(value: Any, saved: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"<<(\w+)>>", lambda match: saved[match[1]], value)
    if isinstance(value, list):
        return [_fill(one, saved) for one in value]
    if isinstance(value, dict):
        return {_fill(key, saved): _fill(one, saved) for key, one in value.items()}
    return value


def _dig(document: Any, path: str) -> Any:
    for piece in path.split("."):
        document = document[int(piece)] if isinstance(document, list) else document[piece]
    return document


def _evaluated(document: etree._Element, path: str, wanted: Any) -> Any:
    """What an XPath finds: the only text where a text is wanted, else all of them; counts as whole numbers."""
    found = document.xpath(path)
    if isinstance(found, float):
        return int(found)
    if not isinstance(found, list):
        return found
    texts = [one.text or "" if isinstance(one, etree._Element) else str(one) for one in found]
    return texts[0] if isinstance(wanted, str) and len(texts) == 1 else texts


def _matches(wanted: str, got: object) -> bool:
    if wanted.startswith("~"):
        return isinstance(got, str) and re.fullmatch(wanted[1:], got, re.DOTALL) is not None
    return wanted == got


def compare(wanted: Any, got: Any, where: str, whole: str = "") -> None:
    """Fail with the path of the first difference."""
    if wanted == "<any>":
        return
    if isinstance(wanted, dict):
        assert isinstance(got, dict), f"{where}: expected an object, got {got!r}\n{whole[:3000]}"
        for key, value in wanted.items():
            if value == "<absent>":
                assert key not in got, f"{where}.{key} should be absent\n{whole[:3000]}"
            else:
                assert key in got, f"{where}.{key} is missing in {json.dumps(got)[:2000]}"
                compare(value, got[key], f"{where}.{key}", whole)
    elif isinstance(wanted, list):
        assert isinstance(got, list), f"{where}: expected a list, got {got!r}\n{whole[:3000]}"
        assert len(got) == len(wanted), f"{where}: {len(wanted)} elements expected\n{json.dumps(got)[:3000]}"
        for index, (one, other) in enumerate(zip(wanted, got, strict=True)):
            compare(one, other, f"{where}[{index}]", whole)
    elif isinstance(wanted, str):
        assert _matches(wanted, got), f"{where}: {wanted!r} expected, got {got!r}\n{whole[:3000]}"
    else:
        assert wanted == got, f"{where}: {wanted!r} expected, got {got!r}\n{whole[:3000]}"
