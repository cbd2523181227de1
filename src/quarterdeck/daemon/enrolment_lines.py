# SPDX-License-Identifier: Apache-2.0
"""The line that people paste on a machine so that it becomes a node of a server, or of a relay."""

from __future__ import annotations

import hashlib
import shlex

from quarterdeck.daemon import tls
from quarterdeck.daemon.tls import KeyFiles
from quarterdeck.formats import agent_file

INSTALLED_AGENT = "/usr/local/bin/quarterdeck-agent"
AGENT_PATH = "/quarterdeck/agent/1/quarterdeck-agent.pyz"


def line(public_url: str, kept: KeyFiles | None, secret: str, *, digest: str = "") -> str:
    """One line for a shell that fetches the agent, checks that it is ours, installs it and enrols its machine.

    `kept` are the keys of the server, None without TLS; `digest` is the SHA-256 of the agent's file there, that of the
    installed one if empty. The agent is installed as /usr/local/bin/quarterdeck-agent, or
    as $QUARTERDECK_AGENT_PROGRAM says.
    """
    name = AGENT_PATH.rpartition("/")[2]
    digest = digest or hashlib.sha256(agent_file.agent_file()).hexdigest()
    steps = ["umask 077", "d=$(mktemp -d)", 'cd "$d"']
    trust, pin = "", ""
    if kept is not None:
        pem = " ".join(f"'{line}'" for line in kept.ca_certificate.read_text().split("\n") if line)
        steps.append(f"printf '%s\\n' {pem} > ca.pem")
        trust = " --cacert ca.pem"
        pin = f" --pin {tls.spki_pin(kept.server_certificate.read_bytes())}"
    steps += [
        f"curl -fsS{trust} -o {name} {shlex.quote(public_url + AGENT_PATH)}",
        f"echo '{digest}  {name}' | sha256sum -c -",
        f'p="${{QUARTERDECK_AGENT_PROGRAM:-{INSTALLED_AGENT}}}"',
        f'install -m 755 {name} "$p"',
        'cd / && rm -r "$d"',
        f'python3 "$p" enroll --server {shlex.quote(public_url)}{pin} --token {secret}',
    ]
    return f"({' && '.join(steps)})"
