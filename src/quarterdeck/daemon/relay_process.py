# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd relay`: one process without a database, wired here. What its parts do is in the room `relaying/`.

It must come up and serve its nodes while the server above is away; only its enrolment needs that one.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from quarterdeck import __version__
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.daemon import config as settings
from quarterdeck.daemon import (
    connections,
    enrolment_lines,
    genuine_files,
    log_lines,
    places,
    proxies,
    relay_edges,
    serving,
    tls,
)
from quarterdeck.daemon.config import Config, WrongSettings
from quarterdeck.daemon.mounts import Below
from quarterdeck.dialects.native import relayed_agents
from quarterdeck.dialects.native.relayed_agents import RelayedAgents, RelayedEdge
from quarterdeck.dialects.relay import callers, policies, version
from quarterdeck.dialects.relay.callers import Door
from quarterdeck.dialects.relay.dialect import RelayEdge
from quarterdeck.dialects.relay.parts import Parts
from quarterdeck.formats import agent_client, agent_file, relay_states
from quarterdeck.formats.agent_client import AgentError, Identity, NotEnrolled
from quarterdeck.formats.relay_states import State, Told
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying import folder_copies, kept_files
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.agent_copies import AgentCopy
from quarterdeck.relaying.copies import NodesCopy, PolicyCopies
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.drop_directory import DropDirectory
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.folder_copies import FolderCopy
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.relaying.forwarding import Forwarder
from quarterdeck.relaying.links import Link, Signer, Times
from quarterdeck.relaying.metrics import Metrics, queued
from quarterdeck.relaying.mirror import Mirror
from quarterdeck.relaying.node_commands import NodeCommands
from quarterdeck.relaying.nodes_list import NodesList
from quarterdeck.relaying.policy_files import PolicyFiles
from quarterdeck.relaying.remote_run_hops import RemoteRunHops
from quarterdeck.relaying.remote_runs import RemoteRuns
from quarterdeck.relaying.resource_copies import ResourceCopies
from quarterdeck.relaying.shared_file_hops import Hops
from quarterdeck.relaying.shared_files import SharedFiles
from quarterdeck.relaying.shared_folder import SharedFolder
from quarterdeck.relaying.spool import Spool
from quarterdeck.relaying.waiting_agents import WaitingAgents
from quarterdeck.relaying.waiting_commands import WaitingCommands

log = logging.getLogger(__name__)

#: The copy of the nodes list, below the data directory.
NODES_LIST = Path("mirror") / "nodes.json"
#: While a node waits for its policy there must be time left to give it the one that is kept.
_NODE_PATIENCE_SECONDS = 10.0
#: A batch of 500 reports may take the server above a while.
_BATCH_PATIENCE_SECONDS = 120.0
#: A file of a genuine agent is only written down there.
_FILE_PATIENCE_SECONDS = 30.0
#: Requests of nodes that may hang with the server above, at the same time.
_WAITING_THREADS = 4
#: How long a relay that starts waits to hear from above which agent it gives to machines.
_FIRST_LOOK_SECONDS = 3.0
_RENEWAL_SECONDS = 12 * 3600.0
#: How long threads may take to end what they are doing.
_STOP_SECONDS = 10.0


def enroll(config: Config, upstream: str, pin: str, token: str, accept_wait: float) -> tuple[str, str, list[str]]:
    """Make this relay a node of the server above it: its id, its status, what went less well. Raises Unavailable."""
    with places.own_data_directory(config.data):
        try:
            return agent_client.enroll(str(state_directory(config)), upstream, pin, token, accept_wait)
        except AgentError as error:
            raise Unavailable(str(error)) from error


def state_directory(config: Config) -> Path:
    """Where the node that this relay is keeps its key."""
    return Path(config.relay.state_directory) if config.relay.state_directory else config.data / "agent"


def serve(config: Config, say: Callable[[str], None], reread: Callable[[], Config] | None = None) -> int:
    """Relay until SIGTERM or SIGINT; the exit status. Raises Unavailable or WrongSettings when the start fails.

    `reread` gives the settings anew, for a reload; without it they stay.
    """
    if not config.tls:
        raise WrongSettings("A relay speaks TLS, for its nodes pin its key: leave the setting tls out.")
    if not config.public_url.startswith("https://"):
        raise WrongSettings(
            f"A relay speaks TLS, so nodes cannot reach it at {config.public_url}: correct the setting public_url."
        )
    with places.own_data_directory(config.data), places.listening(*config.address) as listener:
        log_lines.start(config.log)
        connections.allow_many()
        known = _identity(config)
        kept = tls.initialise_relay(config.data, config.public_url, datetime.now(UTC), known.key)

        def reload() -> None:
            if reread is not None:
                log_lines.choose(reread().log)

        _require_readable(config.data / NODES_LIST)
        relay = assemble(config, known, reload)
        server = connections.Server(
            uvicorn.Config(
                proxies.Proxied(relay.application, config.trusted_proxies, config.relay.certificate_header),
                http=connections.ConnectionProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=serving.API_DRAIN_SECONDS,
                ssl_keyfile=str(kept.server_key),
                ssl_certfile=str(kept.server_certificate),
                ssl_ciphers=serving.CIPHERS,
            ),
            relay.application.state.let_go,  # agents that wait would keep it until it loses patience
        )
        renewal = threading.Thread(target=_renew, args=(config, known, server), name="renewal", daemon=True)
        renewal.start()
        relay.mirror.look_for_agent(_FIRST_LOOK_SECONDS)  # so that the line is right from the start
        say(_banner(config, known, kept, relay.mirror))
        relay.mirror.agent_changed = lambda: say(_banner(config, known, kept, relay.mirror))
        log.info("%s", relay.told())
        # The server passes a signal that ended it on to whoever had it before; being told to stop is no failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        if not os.isatty(0) and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, lambda _number, _frame: threading.Thread(target=relay.reload).start())
        with relay.working():
            server.run(sockets=[listener])
        return 0 if server.started else 1


def _identity(config: Config) -> Identity:
    try:
        return agent_client.identity(str(state_directory(config)))
    except NotEnrolled as error:
        raise Unavailable(
            f"This relay is no node of a server yet (there is none in {state_directory(config)}): "
            "run `quarterdeckd relay enroll --upstream URL …` first, or name the right directory with --data-dir."
        ) from error
    except (AgentError, OSError) as error:
        raise places.Unreadable(f"What this relay is cannot be read: {error}") from error


def _require_readable(path: Path) -> None:
    """Raises Unreadable. What is damaged is no matter: it is fetched again."""
    try:
        kept_files.content(path)
    except OSError as error:
        raise places.Unreadable(f"{path} cannot be read: {error.strerror}.") from error


def _banner(config: Config, known: Identity, kept: tls.KeyFiles, mirror: Mirror) -> str:
    line = enrolment_lines.line(config.public_url, kept, "TOKEN", digest=mirror.agent.file().digest)
    return "\n".join(
        [
            f"Relay {known.node} answers at {config.public_url}, below {known.server}.",
            "To enrol a machine through it, paste this line there as root, with an enrolment token of the server:",
            "",
            line,
            "",
        ]
    )


def _renew(config: Config, known: Identity, server: uvicorn.Server) -> None:
    """Put a new certificate into the running server in time; its key stays."""
    waiting = threading.Event()
    while not waiting.wait(_RENEWAL_SECONDS):
        try:
            kept = tls.initialise_relay(config.data, config.public_url, datetime.now(UTC), known.key)
            if server.config.ssl is not None:
                server.config.ssl.load_cert_chain(kept.server_certificate, kept.server_key)
        except (QuarterdeckError, OSError) as error:  # as on a full disk; there is time until the next look
            log.error("The certificate cannot be renewed now: %s", error)  # noqa: TRY400  # its sentence says it all


# -- the parts ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Relay:
    """A relay that is put together and does nothing yet."""

    application: Starlette
    mirror: Mirror
    forwarder: Forwarder
    #: what a reload does
    reloads: tuple[Callable[[], None], ...]
    #: of files of genuine agents, by kind
    carriers: Mapping[str, DropDirectory]
    #: to the server above
    links: tuple[Link, ...]
    #: where reports and inventories wait to go up
    queues: tuple[Path, ...] = ()

    def told(self) -> str:
        """What it begins with, in a sentence for the log."""
        waiting, oldest = queued(self.queues, time.time())
        files = f"{waiting} files wait to go up, the oldest for {oldest:.0f} s" if waiting else "nothing waits to go up"
        try:
            listing = self.mirror.nodes.current()
        except QuarterdeckError as error:
            return f"The nodes list is fetched anew ({error.message}); {files}"
        return (
            f"{len(listing.topology.nodes)} nodes below, {len(listing.relays)} of them relays, as last heard; {files}"
        )

    def reload(self) -> None:
        """The same as a request for it, for a signal: what goes wrong is in the log only."""
        for reload in self.reloads:
            try:
                reload()
            except QuarterdeckError as error:
                log.error("Not everything is read anew: %s", error.message)  # noqa: TRY400  # its sentence says it all
        log.info("The settings are read anew: levels of log lines hold at once, all others from the next start on")

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mirror and carry meanwhile, on a thread each."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=work, args=(stop,), name=name, daemon=True)
            for name, work in (
                ("mirror", self.mirror.run),
                ("forwarder", self.forwarder.run),
                *((name, carrier.run) for name, carrier in self.carriers.items()),
            )
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            self.mirror.wake()
            end = time.monotonic() + _STOP_SECONDS
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
            for link in self.links:
                link.close()


def assemble(config: Config, known: Identity, reload: Callable[[], None] = lambda: None) -> Relay:
    """The parts of one relay. `reload` has the settings read anew that may change."""
    me, data = NodeId(known.node), config.data
    signer = Signer(node=me, key=SigningKey(known.key))

    links: list[Link] = []
    times = Times()

    def up(answer_seconds: float) -> Link:
        links.append(Link(url=known.server, pin=known.pin, signer=signer, answer_seconds=answer_seconds, times=times))
        return links[-1]

    mirrored, for_nodes = up(_NODE_PATIENCE_SECONDS * 3), up(_NODE_PATIENCE_SECONDS)
    policies = data / "mirror" / "policies"
    policies.mkdir(mode=0o700, parents=True, exist_ok=True)
    asked = PolicyCopies(policies, for_nodes)
    mirror = _mirror(config, known, PolicyCopies(policies, mirrored), asked, mirrored, for_nodes)
    nodes, addresses = mirror.nodes, Addresses(data / "relays.json")
    carried = up(_BATCH_PATIENCE_SECONDS)
    carried.rest_seconds = 0.0  # the forwarder waits by itself
    spool = data / "spool" / "parcels"
    counters, ways = Counters(), genuine_files.ways(config)
    queues = {"parcels": spool, **{way.name: way.incoming for way in ways}}
    mirror.copy.state = lambda: _state(queues.values(), addresses)
    waiting, carrying = WaitingAgents(), WaitingCommands()
    metrics = Metrics(nodes, queues, counted=counters.snapshot, waiting=lambda: waiting.count, commands=carrying)
    carriers = genuine_files.carriers(
        config,
        [genuine_files.link_to(config, up(_FILE_PATIENCE_SECONDS)) for _ in ways],
        counters,
        genuine_files.is_known_to(mirror, me),
    )
    agents = relayed_agents.Parts(
        certificate=known.certificate,
        up=for_nodes,
        nodes=nodes,
        mirror=mirror,
        policies=asked,
        folder=FolderTree(mirror.folder.folder),
        share=relay_edges.share_tree(mirror.share.folder),
        spool=Spool(spool),
        addresses=addresses,
        waiting_agents=waiting,
        waiting_commands=carrying,
    )
    runs = _remote_runs(config, agents, signer)
    commands = NodeCommands(nodes=nodes, agents=carrying, others=waiting, addresses=addresses, signer=signer)
    hops = Hops(nodes, addresses, signer, up(_NODE_PATIENCE_SECONDS * 3))
    files = SharedFiles(data / "shared-files", nodes, hops.pass_on)
    own = _policy_files(config, known, mirror, asked)
    relay = _relay_edge(config, reload, files, own, metrics, mirror, runs, commands)
    return Relay(
        application=_application(config, relay, agents, runs),
        mirror=mirror,
        forwarder=Forwarder(spool, carried, FailedFiles(data / "spool" / "failed"), counters),
        reloads=(nodes.reload, *relay.parts.reloads),
        carriers=carriers,
        links=tuple(links),
        queues=tuple(queues.values()),
    )


def _mirror(
    config: Config, known: Identity, policies: PolicyCopies, asked: PolicyCopies, mirrored: Link, for_nodes: Link
) -> Mirror:
    """What is mirrored. `asked` are the policies as nodes ask for them."""
    kept = config.data / "mirror"
    copy = NodesCopy(path=config.data / NODES_LIST, me=NodeId(known.node), link=mirrored, address=config.public_url)
    return Mirror(
        copy=copy,
        nodes=NodesList(copy.load),
        policies=policies,
        resources=ResourceCopies(kept / "resources", asked, mirrored=mirrored, for_nodes=for_nodes),
        folder=FolderCopy(kept / "folder", mirrored),
        share=FolderCopy(kept / "share", mirrored, folder_copies.SHARE, relay_edges.MOST_SHARED_FILES),
        agent=AgentCopy(kept / "agent", mirrored, known.policy_key, agent_file.agent_file),
        seconds=config.relay.mirror_seconds,
    )


def _remote_runs(config: Config, agents: relayed_agents.Parts, signer: Signer) -> RemoteRuns:
    return RemoteRuns(
        nodes=agents.nodes,
        agents=agents.waiting_agents,
        hop=RemoteRunHops(addresses=agents.addresses, signer=signer),
        ways=serving.ways_to_nodes(config),
        enabled=config.relay.remote_run,
    )


def _policy_files(config: Config, known: Identity, mirror: Mirror, asked: PolicyCopies) -> PolicyFiles:
    share = config.data / "share"
    share.mkdir(mode=0o700, exist_ok=True)
    return PolicyFiles(
        share=SharedFolder(share),
        signed=asked.fetch,
        resource=mirror.resources.content,
        archives=relay_edges.archives(config, known.policy_key),
        mirrored=mirror.share.folder,
    )


def _state(queues: Iterable[Path], addresses: Addresses) -> str:
    """What this relay says of itself, and of those below it, whenever it asks for its nodes list."""
    waiting, oldest = queued(queues, time.time())
    state = State(version=__version__, waiting=waiting, oldest=round(oldest, 1))
    return relay_states.written(Told(state, addresses.contacts.below(addresses.of)))


def _relay_edge(
    config: Config,
    reload: Callable[[], None],
    files: SharedFiles,
    own: PolicyFiles,
    metrics: Metrics,
    mirror: Mirror,
    runs: RemoteRuns,
    commands: NodeCommands,
) -> RelayEdge:
    parts = Parts(
        nodes=runs.nodes,
        folder=mirror.folder.folder,
        files=files,
        policies=own,
        metrics=metrics,
        door=Door(
            nodes=runs.nodes,
            networks=callers.networks(config.relay.allowed_networks),
            certificate_header=config.relay.certificate_header.lower(),
            clock=mirror.copy.link.times.now,
        ),
        checks={"configuration": lambda: settings.check_file(config)},
        reloads=(mirror.wake, reload),
        remote_runs=runs,
        commands=commands,
    )
    return relay_edges.edge(config, parts, {policies.LINE: anyio.CapacityLimiter(_WAITING_THREADS)})


def _application(config: Config, relay: RelayEdge, agents: relayed_agents.Parts, runs: RemoteRuns) -> Starlette:
    edge = RelayedEdge(
        grammar=RelayedAgents(),
        parts=agents,
        prefix=relayed_agents.PREFIX,
        threads=anyio.CapacityLimiter(config.threads),
        turns={line: anyio.CapacityLimiter(_WAITING_THREADS) for line in relayed_agents.LINES},
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with relay_edges.tidying(relay.parts.files, config.relay.cleanup_seconds), runs.working():
            yield

    routes = [
        *(Below(path, app=relay) for path in version.MOUNTS),
        *(Route(path, endpoint=relay) for path in version.ROUTES),
        Below(relayed_agents.PREFIX, app=edge),
        *genuine_files.routes(genuine_files.edge(config, relay.parts.door)),
    ]
    served = Starlette(routes=routes, lifespan=lifespan)

    def let_go() -> None:
        runs.agents.let_go()
        agents.waiting_commands.let_go()

    served.state.let_go = let_go
    return served
