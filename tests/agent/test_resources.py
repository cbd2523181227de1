# SPDX-License-Identifier: Apache-2.0
"""Files of techniques on a node: fetched once, checked, laid out, used by methods, and gone when nobody needs them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.agent.server import FakeServer, call, policy

from quarterdeck_agent import documents, run
from quarterdeck_agent import policy as policies
from quarterdeck_agent.__main__ import main
from quarterdeck_agent.errors import Untrusted
from quarterdeck_agent.state import StateDirectory


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def offer(server: FakeServer, *contents: bytes) -> None:
    """Exactly these can be fetched."""
    server.contents = {digest(one): one for one in contents}


def named(**files: bytes) -> list[Any]:
    """The resources of a policy item; `__` in a name stands for a slash."""
    return [
        {"path": name.replace("__", "/"), "sha256": digest(content), "size": len(content)}
        for name, content in files.items()
    ]


def copying(target: Path, source: str = "motd", **changes: Any) -> documents.Call:
    """A call that copies a resource."""
    params = {"source": "${resources_dir}/" + source, "path": str(target)}
    return call("file_from_local_source", str(target), params=params, **changes)


def publish(server: FakeServer, state: StateDirectory, *items: Any, config: str = "config-1", **files: bytes) -> None:
    """A policy of one directive with these files."""
    document: Any = policy(state.node_id(), *items, config_id=config)
    if files:
        document["policies"][0]["resources"] = named(**files)
    server.publish(document)


def tree(state: StateDirectory) -> dict[str, bytes]:
    """Everything that is laid out."""
    root = Path(state.at("resources")) / "trees"
    return {str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*") if one.is_file()}


def kept(state: StateDirectory) -> set[str]:
    return {one.name for one in (Path(state.at("resources")) / "contents").iterdir()}


def fetched(server: FakeServer) -> int:
    return sum(path.startswith(documents.PATH_RESOURCES) for _, path, _ in server.requests)


def statuses(result: run.RunResult) -> list[str]:
    return [report["status"] for report in result.reports]


def perform(state: StateDirectory, **options: Any) -> run.RunResult:
    return run.perform(state, run.Options(**options))


def test_a_method_uses_a_file_of_its_technique(enrolled: StateDirectory, server: FakeServer, tmp_path: Path) -> None:
    target = tmp_path / "motd"
    offer(server, b"hello\n", b"deep\n")
    publish(server, enrolled, copying(target), motd=b"hello\n", a__b__c=b"deep\n")

    first, second = perform(enrolled), perform(enrolled)

    assert (statuses(first), statuses(second)) == (["result_repaired"], ["result_success"])
    assert target.read_bytes() == b"hello\n"
    assert tree(enrolled) == {"technique/1.0/motd": b"hello\n", "technique/1.0/a/b/c": b"deep\n"}
    assert fetched(server) == 2


def test_a_changed_file_is_fetched_and_what_nobody_needs_goes(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    target = tmp_path / "motd"
    offer(server, b"old", b"new", b"same")
    publish(server, enrolled, copying(target), motd=b"old", other=b"same", gone=b"old")
    perform(enrolled)
    publish(server, enrolled, copying(target), config="config-2", motd=b"new", other=b"same")
    perform(enrolled)

    assert target.read_bytes() == b"new"
    assert tree(enrolled) == {"technique/1.0/motd": b"new", "technique/1.0/other": b"same"}
    assert kept(enrolled) == {digest(b"new"), digest(b"same")}
    assert fetched(server) == 3
    publish(server, enrolled, config="config-3")
    perform(enrolled)
    assert (tree(enrolled), kept(enrolled)) == ({}, set())


def test_without_a_server_what_is_here_is_used(enrolled: StateDirectory, server: FakeServer, tmp_path: Path) -> None:
    target = tmp_path / "motd"
    offer(server, b"hello")
    publish(server, enrolled, copying(target), motd=b"hello")
    perform(enrolled)
    target.write_bytes(b"damaged")
    enrolled.save_settings({**enrolled.settings(), "server": "https://127.0.0.1:1"})

    result = perform(enrolled)

    assert statuses(result) == ["result_repaired"]
    assert target.read_bytes() == b"hello"


@pytest.mark.parametrize("offered", [None, b"olleh", b"hello and more"])
def test_a_file_that_cannot_be_had_is_an_error_of_what_needs_it_only(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path, offered: bytes | None
) -> None:
    target, other = tmp_path / "motd", tmp_path / "other"
    server.contents = {} if offered is None else {digest(b"hello"): offered}
    present = call("file_content", str(other), params={"path": str(other), "lines": "x", "enforce": "true"})
    publish(server, enrolled, copying(target), present, copying(tmp_path / "never", condition="no_such"), motd=b"hello")

    result = perform(enrolled)

    assert statuses(result) == ["result_error", "result_repaired", "result_na"]
    assert "The resource motd of technique technique 1.0 is not here" in result.reports[0]["message"]
    assert any("The resource motd" in line["message"] for line in result.log)
    assert not target.exists()
    assert kept(enrolled) == set()
    offer(server, b"hello")
    assert statuses(perform(enrolled)) == ["result_repaired", "result_success", "result_na"]


def test_one_content_that_fails_does_not_hold_up_other_techniques(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    offer(server, b"there")
    document: Any = policy(enrolled.node_id(), copying(tmp_path / "a"))
    second: Any = policy(enrolled.node_id(), copying(tmp_path / "b"))["policies"][0]
    document["policies"][0]["resources"] = named(motd=b"missing")
    document["policies"].append({**second, "technique": "second", "resources": named(motd=b"there")})
    server.publish(document)

    result = perform(enrolled)

    assert statuses(result) == ["result_error", "result_repaired"]
    assert (tmp_path / "b").read_bytes() == b"there"


def test_what_was_altered_on_the_node_is_fetched_and_laid_out_again(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    offer(server, b"hello")
    publish(server, enrolled, copying(tmp_path / "motd"), motd=b"hello", same=b"hello")
    perform(enrolled)
    place = Path(enrolled.at("resources")) / "trees" / "technique" / "1.0"
    (place / "motd").write_bytes(b"evil!")
    (place / "left-over").write_bytes(b"of a script")
    (place / "link").symlink_to("/etc")

    perform(enrolled)

    assert tree(enrolled) == {"technique/1.0/motd": b"hello", "technique/1.0/same": b"hello"}
    assert not (place / "link").is_symlink()
    assert fetched(server) == 2


def test_what_a_killed_run_left_goes(enrolled: StateDirectory, server: FakeServer, tmp_path: Path) -> None:
    offer(server, b"hello")
    publish(server, enrolled, copying(tmp_path / "motd"), motd=b"hello")
    perform(enrolled)
    root = Path(enrolled.at("resources"))
    (root / "trees" / "technique" / "1.0.new-").mkdir()
    (root / "trees" / "technique" / "1.0.new-" / "half").write_bytes(b"x")
    (root / "contents" / ".new-1").write_bytes(b"half")

    perform(enrolled)

    assert tree(enrolled) == {"technique/1.0/motd": b"hello"}
    assert kept(enrolled) == {digest(b"hello")}


def test_nobody_else_reads_what_is_laid_out(enrolled: StateDirectory, server: FakeServer, tmp_path: Path) -> None:
    offer(server, b"hello")
    publish(server, enrolled, copying(tmp_path / "motd"), deep__motd=b"hello", motd=b"hello")
    perform(enrolled)

    modes = {path.stat().st_mode & 0o077 for path in Path(enrolled.at("resources")).rglob("*")}

    assert modes == {0}
    assert (tmp_path / "motd").stat().st_mode & 0o777 == 0o600


def test_a_policy_that_became_old_meanwhile_is_fetched_again(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    offer(server, b"new")
    publish(server, enrolled, copying(tmp_path / "motd"), motd=b"old")
    answer = server.answer

    def changing(method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path.endswith(digest(b"old")):
            publish(server, enrolled, copying(tmp_path / "motd"), config="config-2", motd=b"new")
        return answer(method, path, headers, body)

    server.answer = changing  # type: ignore[method-assign]  # this server belongs to the test

    result = perform(enrolled)

    assert (statuses(result), result.config_id) == (["result_repaired"], "config-2")
    assert (tmp_path / "motd").read_bytes() == b"new"


def test_a_run_without_update_fetches_nothing_and_update_fetches_files_too(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "motd"
    publish(server, enrolled, copying(target), motd=b"hello")

    missing = main(["update", "--state-dir", enrolled.path])
    before = perform(enrolled, update=False)
    offer(server, b"hello")
    done = main(["update", "--state-dir", enrolled.path])
    requests = len(server.requests)
    after = perform(enrolled, update=False, audit_only=True)

    assert (missing, done) == (1, 0)
    assert "The resource motd" in capsys.readouterr().err
    assert "not fetched with the policy" in before.reports[0]["message"]
    assert statuses(after) == ["audit_noncompliant"]
    assert len(server.requests) == requests


def test_without_files_the_words_stay_what_they_are(
    enrolled: StateDirectory, server: FakeServer, tmp_path: Path
) -> None:
    script = call(
        "command_execution", "x", params={"command": f"resources_dir=here; echo ${{resources_dir}} > {tmp_path}/out"}
    )
    publish(server, enrolled, script)

    perform(enrolled)

    assert (tmp_path / "out").read_text() == "here\n"
    assert not Path(enrolled.at("resources")).exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../out"},
        {"path": "/etc/motd"},
        {"path": "a//b"},
        {"path": "a\0b"},
        {"path": ""},
        {"sha256": "x"},
        {"sha256": "../../../etc/passwd"},
        {"size": "5"},
    ],
)
def test_a_policy_with_a_resource_that_leads_elsewhere_is_not_obeyed(
    enrolled: StateDirectory, server: FakeServer, changes: Any
) -> None:
    document: Any = policy(enrolled.node_id())
    document["policies"][0]["resources"] = [{**named(motd=b"hello")[0], **changes}]
    server.publish(document)

    with pytest.raises(Untrusted, match="resource"):
        perform(enrolled)


@pytest.mark.parametrize("changes", [{"technique": ".."}, {"version": ".."}, {"version": "1/0"}, {"resources": {}}])
def test_a_technique_whose_files_have_no_place_of_their_own_is_not_obeyed(
    enrolled: StateDirectory, server: FakeServer, changes: Any
) -> None:
    document: Any = policy(enrolled.node_id())
    document["policies"][0] |= {"resources": named(motd=b"hello"), **changes}
    server.publish(document)

    with pytest.raises(Untrusted):
        perform(enrolled)
    assert policies.cached(enrolled, enrolled.node_id(), server.policy_key_pem()) is None
