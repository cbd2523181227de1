# SPDX-License-Identifier: Apache-2.0
"""Computing policies in several processes. Imported in them too: keep this module's imports to `core`.

The processes are spawned for one generation and end with it, so that an idle worker stays small. They also end
when the worker is killed: each watches for that.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection

from quarterdeck.core import policies
from quarterdeck.core.policies import Fleet, FleetNode, Generated, Prepared

#: Below this many nodes, starting processes costs more than it saves.
WORTH_PROCESSES = 1500
_CHUNK = 500

_prepared: Prepared | None = None


def generate(fleet: Fleet, *, processes: int) -> Iterator[Generated]:
    """The policies of the fleet's nodes, in parts, as they are ready."""
    prepared = policies.prepare(fleet)
    chunks = [fleet.nodes[start : start + _CHUNK] for start in range(0, len(fleet.nodes), _CHUNK)]
    if processes < 2 or len(fleet.nodes) < WORTH_PROCESSES:
        return (policies.generate_nodes(prepared, chunk) for chunk in chunks)
    return _in_processes(prepared, chunks, processes)


def _in_processes(prepared: Prepared, chunks: Sequence[Sequence[FleetNode]], processes: int) -> Iterator[Generated]:
    common = pickle.dumps(prepared, protocol=pickle.HIGHEST_PROTOCOL)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(common,)) as pool:
        for part in pool.map(_generate, chunks):
            yield pickle.loads(part)  # noqa: S301  # made by our own processes


def _begin(common: bytes) -> None:
    global _prepared  # noqa: PLW0603  # a process of the pool serves one generation
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _prepared = pickle.loads(common)  # noqa: S301  # made by our parent process


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _generate(nodes: Sequence[FleetNode]) -> bytes:
    assert _prepared is not None
    return pickle.dumps(policies.generate_nodes(_prepared, nodes), protocol=pickle.HIGHEST_PROTOCOL)
