# SPDX-License-Identifier: Apache-2.0
"""The rounds in which a relay fetches what changed above it: nodes list, policies, files of techniques, shared folder,
files of nodes, the agent.

One part that fails does not hold up the others. A round comes every so many seconds, and when somebody asks for it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.relaying.agent_copies import AgentCopy
from quarterdeck.relaying.copies import NodesCopy, PolicyCopies
from quarterdeck.relaying.folder_copies import FolderCopy
from quarterdeck.relaying.nodes_list import NodesList
from quarterdeck.relaying.resource_copies import ResourceCopies

log = logging.getLogger(__name__)

_LOCK_SECONDS = 2.0


@dataclass(kw_only=True)
class Mirror:
    """Everything that a relay mirrors."""

    copy: NodesCopy
    nodes: NodesList
    policies: PolicyCopies
    resources: ResourceCopies
    folder: FolderCopy
    share: FolderCopy
    agent: AgentCopy
    seconds: float
    #: told when machines get another agent from now on
    agent_changed: Callable[[], None] = field(default=lambda: None)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wanted: threading.Event = field(default_factory=threading.Event)
    _complained: bool = False

    def run(self, stop: threading.Event) -> None:
        """Round after round until told to stop; `wake` begins the next one at once."""
        while not stop.is_set():
            self.round()
            # Spread: the relays of a site that started together must not ask together for ever.
            self._wanted.wait(self.seconds * random.uniform(0.8, 1.2))  # noqa: S311  # nothing secret
            self._wanted.clear()

    def wake(self) -> None:
        """Begin a round now, or end the waiting of `run`."""
        self._wanted.set()

    def refresh_nodes(self) -> None:
        """Fetch the nodes list if it changed; it is in use when this returns. Raises Unavailable."""
        # Whoever asks for it while a round hangs with the server above does not wait as long as that.
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            raise Unavailable("The nodes list is being fetched.")
        try:
            if self.copy.refresh():
                self.nodes.reload()
        finally:
            self._lock.release()

    def round(self) -> bool:
        """Fetch everything that changed; whether all of it could be asked for."""
        parts = (
            self.refresh_nodes,
            self._refresh_policies,
            self._refresh_resources,
            self._refresh_folder,
            self._refresh_share,
            self._refresh_agent,
        )
        done = [self._try(part) for part in parts]
        if all(done) and self._complained:
            log.info("The server above answers again.")
            self._complained = False
        return all(done)

    def _refresh_policies(self) -> None:
        self.policies.refresh()

    def _refresh_resources(self) -> None:
        self.resources.refresh()

    def _refresh_agent(self) -> None:
        if self.agent.refresh():
            log.info("Machines get another agent from now on.")
            self.agent_changed()

    def _refresh_folder(self) -> None:
        if self.folder.refresh():
            log.info("The shared folder has changed.")

    def _refresh_share(self) -> None:
        if self.share.refresh():
            log.info("The files of nodes have changed.")

    def look_for_agent(self, seconds: float) -> None:
        """Let the agent be the server's, unless finding out takes longer than this."""
        looking = threading.Thread(target=self._try, args=(self.agent.refresh,), name="agent", daemon=True)
        looking.start()
        looking.join(seconds)

    def _try(self, part: Callable[[], object]) -> bool:
        try:
            part()
        except (QuarterdeckError, OSError) as error:
            if not self._complained:  # once, not every round of a long night
                log.warning("What is mirrored stays as it is: %s", error)
                self._complained = True
            return False
        except Exception:
            # Whatever it is, this thread must not end silently while the rest looks healthy.
            log.exception("What is mirrored stays as it is")
            return False
        return True
