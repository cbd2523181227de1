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
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection

from quarterdeck.core import policies
from quarterdeck.core.policies import Fleet, FleetNode, Generated, Prepared

#: Processes are started when this much work would be left to one; starting them takes a third of a second.
WORTH_SECONDS = 1.5
_CHUNK = 500

_prepared: Prepared | None = None


def generate(fleet: Fleet, *, processes: int, worth_seconds: float = WORTH_SECONDS) -> Iterator[Generated]:
    """The policies of the fleet's nodes, in parts, as they are ready; `processes` are used when it is worth it.

    The first part tells how long the others will take: that depends more on how many values differ between
    nodes than on how many nodes there are.
    """
    prepared = policies.prepare(fleet)
    chunks = [fleet.nodes[start : start + _CHUNK] for start in range(0, len(fleet.nodes), _CHUNK)]
    for number, chunk in enumerate(chunks):
        begun = time.thread_time()
        part = policies.generate_nodes(prepared, chunk)
        seconds = time.thread_time() - begun
        yield part
        rest = chunks[number + 1 :]
        if processes > 1 and rest and seconds * len(rest) >= worth_seconds:
            yield from _in_processes(prepared, rest, processes)
            return


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
