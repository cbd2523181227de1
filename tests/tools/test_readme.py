# SPDX-License-Identifier: Apache-2.0
"""The README tells the truth: its commands run, its links lead somewhere, its targets exist.

Blocks after `<!-- tested -->` are put together into one script, in their order, with the example's host and
directory replaced by those of a server of this test; the agent keeps its state in the test's directory.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.daemon.servers import ROOT, environment, serving

README = (ROOT / "README.md").read_text()
HOST, DATA = "https://quarterdeck.example.org:8443", "/var/lib/quarterdeck"
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.relative_to(ROOT).parts[1:2] != ("api",)
)


def script_of(url: str, data: Path) -> str:
    blocks = re.findall(r"<!-- tested -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 8
    return "\n".join(blocks).replace(HOST, url).replace(DATA, str(data))


@pytest.mark.timeout(300)
def test_the_commands_of_the_readme_run_in_their_order(reachable_dir: Path) -> None:
    home = reachable_dir / "home"
    home.mkdir()
    with serving(reachable_dir / "data") as server:
        surroundings = environment() | {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "QUARTERDECK_AGENT_STATE": str(reachable_dir / "agent"),
            "QUARTERDECK_AGENT_PROGRAM": str(reachable_dir / "quarterdeck-agent"),
        }
        script = script_of(f"https://127.0.0.1:{server.port}", server.data_dir)
        done = subprocess.run(
            ["sh", "-eux"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
            env=surroundings,
            cwd=home,
            timeout=240,
        )

    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "is enrolled and accepted" in done.stdout
    assert "A word of welcome" in done.stdout
    assert (reachable_dir / "data-restored" / "keys" / "ca.pem").exists()


def test_every_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))

    assert named
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())

    assert [link for link in links if not (document.parent / link).exists()] == []


def test_settings_in_the_readme_are_settings() -> None:
    import tomllib

    from quarterdeck.daemon import config

    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    known = {setting.name for setting in config.settings()}
    document = tomllib.loads(block)
    names = {f"{key}.{inner}" for key, value in document.items() if isinstance(value, dict) for inner in value}

    assert names | {key for key, value in document.items() if not isinstance(value, dict)} <= known
