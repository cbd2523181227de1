# SPDX-License-Identifier: Apache-2.0
"""The parts that the root server is made of as a relay; what they know from the database is handed in here."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from quarterdeck.core import accounts
from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.agent_requests import NotAccepted
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.relays import Topology
from quarterdeck.daemon import config as settings
from quarterdeck.daemon import paths as directories
from quarterdeck.daemon import relay_edges, serving
from quarterdeck.daemon.config import Config
from quarterdeck.dialects.relay import callers
from quarterdeck.dialects.relay.callers import Door
from quarterdeck.dialects.relay.dialect import RelayEdge
from quarterdeck.dialects.relay.parts import Parts
from quarterdeck.engine.intake import QUARANTINE
from quarterdeck.engine.inventory_watcher import FAILED as FAILED_INVENTORIES
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying import counters
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.copies import PolicyCopy
from quarterdeck.relaying.drop_directory import FAILED, INCOMING
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.relaying.links import Signer
from quarterdeck.relaying.metrics import Metrics
from quarterdeck.relaying.node_commands import NodeCommands
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.policy_files import PolicyFiles
from quarterdeck.relaying.quarantine import Inventories, Quarantine, Records, ReportFiles
from quarterdeck.relaying.remote_run_hops import RemoteRunHops
from quarterdeck.relaying.remote_runs import RemoteRuns
from quarterdeck.relaying.shared_file_hops import Hops
from quarterdeck.relaying.shared_files import SharedFiles
from quarterdeck.relaying.shared_folder import SharedFolder
from quarterdeck.relaying.spool import Spool
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.relaying.waiting_commands import WaitingCommands
from quarterdeck.services import agent_policies, relays, system, technique_resources
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance
from quarterdeck.web import auth

log = logging.getLogger(__name__)

#: A node that was accepted is known to the relay after so long at the latest.
_FRESH_SECONDS = 10.0


@dataclass(frozen=True)
class _Known:
    """What the relay API asks of the database, each in a unit of work of its own that changes nothing."""

    database: Database
    key: SigningKey | None

    @contextmanager
    def _look(self) -> Iterator[Context]:
        with self.database.unit_of_work(Provenance(actor="relay")) as store:
            yield Context(account=SYSTEM, store=store)

    def listing(self) -> Listing:
        with self._look() as ctx:
            return relays.listing(ctx)

    def authorize(self, token: str, right: str) -> None:
        with self._look() as ctx:
            accounts.require(auth.account_of_token(ctx.store, token), right)

    def check(self) -> None:
        with self._look() as ctx:
            system.check_database(ctx)

    def signed_policy(self, node: NodeId) -> PolicyCopy:
        if self.key is None:
            raise NotAccepted("This server signs no policies.")
        with self._look() as ctx:
            # Nothing is committed here: a signature that is made now is made again next time, with the same bytes.
            offer = agent_policies.offer(ctx, self.key, node, known_id="")
        return PolicyCopy(offer.config_id, base64.b64encode(offer.signature).decode(), offer.body or b"")

    def resource(self, _node: NodeId, digest: str) -> bytes:
        with self._look() as ctx:
            return technique_resources.content(ctx, digest)


def root(
    config: Config,
    database: Database,
    key: SigningKey | None = None,
    addresses: Addresses | None = None,
    agents: WaitingAgents | None = None,
    commands: WaitingCommands | None = None,
    reload: Callable[[], None] | None = None,
) -> RelayEdge:
    """The relay API of the root server. Without a key and addresses it reaches no relays below it."""
    folder = directories.shared_folder(config)
    for directory in (folder, directories.share(config)):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    known = _Known(database, key)
    nodes = NodesList(known.listing, fresh_seconds=_FRESH_SECONDS)
    pass_on, hop, signer = None, None, None
    waiting, carrying = agents or WaitingAgents(), commands or WaitingCommands()
    if key is not None and addresses is not None:
        signer = Signer(node=ROOT, key=key)
        pass_on = Hops(nodes, addresses, signer).pass_on
        hop = RemoteRunHops(addresses=addresses, signer=signer)
    parts = Parts(
        nodes=nodes,
        folder=SharedFolder(folder),
        files=SharedFiles(config.data / "shared-files", nodes, pass_on),
        policies=PolicyFiles(
            share=SharedFolder(directories.share(config)),
            signed=known.signed_policy,
            resource=known.resource,
            archives=relay_edges.archives(config, key.public_pem if key is not None else ""),
        ),
        metrics=Metrics(
            nodes,
            {"reports": directories.report_spool(config), "run-logs": directories.reports_directory(config) / INCOMING},
            counted=lambda: counters.read(directories.counters_file(config)),
            waiting=lambda: waiting.count,
            commands=carrying,
        ),
        door=Door(
            nodes=nodes,
            networks=callers.networks(config.relay.allowed_networks),
            authorize=known.authorize,
            certificate_header=config.relay.certificate_header.lower(),
            own=_own(key),
        ),
        checks={
            "database": known.check,
            "configuration": lambda: settings.check_file(config),
        },
        reloads=(reload,) if reload is not None else (),
        remote_runs=RemoteRuns(
            nodes=nodes, agents=waiting, hop=hop, ways=serving.ways_to_nodes(config), enabled=config.relay.remote_run
        ),
        commands=NodeCommands(nodes=nodes, agents=carrying, others=waiting, addresses=addresses, signer=signer),
    )
    return relay_edges.edge(config, parts)


def _own(key: SigningKey | None) -> NodesList:
    """What this server's own workers prove themselves with; without a key nobody can."""
    keys = {} if key is None else {ROOT: (key.public_pem,)}
    listing = Listing(topology=Topology(ROOT, {}), keys=keys, server=None if key is None else ROOT)
    return NodesList(lambda: listing)


def quarantine(config: Config, spool: Spool) -> Quarantine:
    """All that this server sets aside."""
    reports, inventories = directories.reports_directory(config), config.data / "inventories"
    return Quarantine(
        [
            ReportFiles(FailedFiles(reports / FAILED), reports / INCOMING),
            Records(directories.report_spool(config) / QUARANTINE, spool),
            Inventories(inventories / FAILED_INVENTORIES, inventories / INCOMING),
        ]
    )


def folder_tree(config: Config) -> FolderTree:
    """The same as relays mirror it."""
    return FolderTree(SharedFolder(directories.shared_folder(config)))


def share_tree(config: Config) -> FolderTree:
    """The files of nodes, as relays mirror them."""
    return relay_edges.share_tree(SharedFolder(directories.share(config), relay_edges.MOST_SHARED_FILES))


def addresses(config: Config) -> Addresses:
    """Where the relays below this server are reached."""
    return Addresses(config.data / "relays.json")
