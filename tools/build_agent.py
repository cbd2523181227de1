# SPDX-License-Identifier: Apache-2.0
"""Write the agent as one file: `python tools/build_agent.py [TARGET]` (default build/quarterdeck-agent.pyz)."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from quarterdeck.formats import agent_file

_ROOT = Path(__file__).resolve().parent.parent


def build(target: Path) -> None:
    """Pack the package of this source tree into `target`, executable."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(agent_file.pack(_ROOT / "src" / "quarterdeck_agent"))
    target.chmod(0o755)


if __name__ == "__main__":
    wanted = Path(sys.argv[1]) if len(sys.argv) > 1 else _ROOT / "build" / "quarterdeck-agent.pyz"
    build(wanted)
    print(f"{wanted}  sha256 {hashlib.sha256(wanted.read_bytes()).hexdigest()}")
