# SPDX-License-Identifier: Apache-2.0
"""SSH itself: keys, connections that check the host's key, and commands on them. The only module that knows asyncssh.

asyncssh takes 0.7 s and 50 MB to import: `ssh.py` imports this module when the first command runs. How connections are
shared and how commands are ended is `ssh.py`'s; which keys a file names for a host is `ssh_host_keys.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncssh

from quarterdeck.core.connections import Address, Hop, HostKeyPolicy
from quarterdeck.engine.ssh_access import Access, Credential, NoWay
from quarterdeck.engine.ssh_writes import Direct
from quarterdeck.engine.transports import Command, HostKey, NodeResult, Sink

# It tells of every command line, and those may hold secrets.
asyncssh.set_log_level(logging.WARNING)

#: Data that a node may send before it has to wait for us. Twice this is what a command that is not read costs.
WINDOW = 2 * 1024 * 1024
#: A peer that was asked this often and stays silent is gone.
KEEPALIVE_COUNT = 3
#: The longest that connecting may take where it has no limit.
CONNECT_SECONDS = 120.0
#: sshd drops connections when too many knock at once (MaxStartups): how often one is tried.
TRIES = 5

_KEY_EXCHANGES = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
)
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
)
_HOST_KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_CERTIFICATE_TYPES = tuple(f"{name}-cert-v01@openssh.com" for name in _HOST_KEY_TYPES)


class Identities:
    """The keys that this process offers to nodes, read once; and the SSH agents that it asks."""

    def __init__(self) -> None:
        self._reading: dict[str, asyncio.Task[list[asyncssh.SSHKeyPair]]] = {}
        self._agents: dict[str, asyncssh.SSHAgentClient] = {}

    async def offered(self, access: Access, credential: Credential) -> list[asyncssh.SSHKeyPair]:
        """The key pairs to offer, in this order. Raises NoWay when they cannot be read."""
        reading = self._reading.get(credential.digest)
        if reading is None:
            # Only the newest hundred: a key that changes often does not fill the memory.
            while len(self._reading) >= 100:
                self._reading.pop(next(iter(self._reading)))
            reading = asyncio.ensure_future(asyncio.to_thread(_key_pairs, access, credential))
            reading.add_done_callback(_forget_failure)
            self._reading[credential.digest] = reading
        try:
            pairs = await asyncio.shield(reading)
        except NoWay:
            self._reading.pop(credential.digest, None)
            raise
        if credential.agent_path:
            pairs = pairs + await self._of_agent(credential.agent_path)
        # They remember the algorithm that was chosen for a node.
        return [copy.copy(pair) for pair in pairs]

    async def _of_agent(self, path: str) -> list[asyncssh.SSHKeyPair]:
        agent = self._agents.setdefault(path, asyncssh.SSHAgentClient(path))
        try:
            return list(await agent.get_keys())
        except ValueError as error:
            raise NoWay("refused", f"The SSH agent at {path} does not answer: {error}") from error

    async def close(self) -> None:
        """Leave the agents."""
        if self._reading:
            await asyncio.wait(self._reading.values())
        for agent in self._agents.values():
            agent.close()
            await agent.wait_closed()


def _forget_failure(task: asyncio.Task[list[asyncssh.SSHKeyPair]]) -> None:
    """Whoever waits hears of it; nobody may be waiting any more."""
    if not task.cancelled():
        task.exception()


def _key_pairs(access: Access, credential: Credential) -> list[asyncssh.SSHKeyPair]:
    path, passphrase = credential.key_path, access.passphrase or None
    try:
        if access.private_key:
            return list(asyncssh.load_keypairs(asyncssh.import_private_key(access.private_key, passphrase)))
        return list(asyncssh.load_keypairs(path, passphrase)) if path else []
    except ValueError as error:
        raise NoWay("refused", _unreadable(f"the SSH key {path}" if path else "the SSH key", str(error))) from error
    except OSError as error:
        raise NoWay("refused", f"SSH Keyfile cannot be read: {path}: {error.strerror}") from error


def _unreadable(key: str, error: str) -> str:
    if "must be specified" in error:
        return f"No passphrase is set for {key}."
    if "Incorrect" in error or "Unable to decrypt" in error:
        return f"The passphrase does not open {key}."
    return f"{key[0].upper()}{key[1:]} cannot be read: {error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What is known of the key of a host: approved keys, lines of known_hosts, the key it showed us before."""

    address: Address
    policy: HostKeyPolicy
    approved: tuple[str, ...] = ()
    known_hosts: str = ""
    shown_before: str = ""


@functools.lru_cache(maxsize=4096)
def _public_key(text: str) -> asyncssh.SSHKey:
    return asyncssh.import_public_key(text)


def _text(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


class _Checked(asyncssh.SSHClient):
    """Judges the key that a host shows, and offers our keys."""

    def __init__(self, trust: Trust, pairs: Sequence[asyncssh.SSHKeyPair]) -> None:
        self._trust, self._pairs = trust, list(pairs)
        self.connection: asyncssh.SSHClientConnection | None = None
        #: the text of a key that nobody had told us of
        self.new_key = ""
        self.refusal: NoWay | None = None
        self.lost: Callable[[], None] = lambda: None
        self.is_lost = False
        found = asyncssh.import_known_hosts(trust.known_hosts).match(trust.address.host.lower(), "", _port(trust))
        keys, self.authorities, self.revoked = found[0], found[1], found[2]
        try:
            approved = [_public_key(text) for text in trust.approved]
        except asyncssh.KeyImportError as error:
            raise NoWay("host-key", f"The approved key of {trust.address} cannot be read: {error}") from error
        self.trusted = [*approved, *keys]

    @property
    def key_was_checked(self) -> bool:
        return self.connection is not None and self.connection.get_server_host_key() is not None

    def host_key_algorithms(self) -> list[str]:
        """Those of the keys that are trusted first: a host with several keys then shows one that we know."""
        names = [name.decode() for key in self.trusted for name in key.sig_algorithms]
        if self._trust.shown_before and not self.trusted:
            names += [name.decode() for name in _public_key(self._trust.shown_before).sig_algorithms]
        certificates = _CERTIFICATE_TYPES if self.authorities else ()
        return list(dict.fromkeys([*certificates, *names, *_HOST_KEY_TYPES]))

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.lost()

    def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair]:
        pairs, self._pairs = self._pairs, []
        return pairs

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Called for keys that are not trusted yet (`trusted` has been given to asyncssh)."""
        text, trust = _text(key), self._trust
        shown = key.get_fingerprint()
        if self.trusted:
            expected = " or ".join(trusted.get_fingerprint() for trusted in self.trusted)
            self._refuse(f"The host key of {trust.address} has changed: it shows {shown}, expected is {expected}.")
        elif self.authorities:
            self._refuse(f"{trust.address} shows the key {shown} without a certificate of the authority known for it.")
        elif trust.policy != "first-use":
            self.refusal = NoWay(
                "host-key",
                f"The host key of {trust.address} is not approved yet: {shown}. Approve it, then run again.",
                HostKey(trust.address, text),
            )
        elif trust.shown_before not in ("", text):
            before = _public_key(trust.shown_before).get_fingerprint()
            self._refuse(f"The host key of {trust.address} has changed: it shows {shown}, expected is {before}.")
        else:
            self.new_key = text
            return True
        return False

    def _refuse(self, reason: str) -> None:
        self.refusal = NoWay("host-key", reason)


def _port(trust: Trust) -> int | None:
    return None if trust.address.port == 22 else trust.address.port


class Link:
    """An open connection."""

    def __init__(self, connection: asyncssh.SSHClientConnection, client: _Checked, address: Address) -> None:
        self.connection, self._client = connection, client
        self.new_host_key = HostKey(address, client.new_key) if client.new_key else None
        key = connection.get_server_host_key()
        self._shown_key = _text(key) if key else ""

    @property
    def is_lost(self) -> bool:
        return self._client.is_lost

    def when_lost(self, call: Callable[[], None]) -> None:
        """Call when the connection has ended, whoever ended it."""
        self._client.lost = call

    async def begin(self, session: Session, command: Command) -> None:
        """Have the node begin the command. Raises NotBegun; `session.begun` says whether it may have begun."""
        try:
            channel, _ = await self.connection.create_session(
                session.opened,
                command.line,
                env=[*command.environment.items()],
                request_pty=False,
                encoding=None,
                window=WINDOW,
            )
        except asyncssh.ChannelOpenError as error:
            raise NotBegun(str(error.reason)) from error
        except (OSError, asyncssh.Error) as error:
            raise NotBegun(str(error)) from error
        with contextlib.suppress(OSError):  # it has ended already
            if command.stdin:
                channel.write(command.stdin)
            channel.write_eof()

    def shows_one_of(self, keys: Sequence[str]) -> bool:
        """Whether the host's key is one of these."""
        return any(self._shown_key == _text(_public_key(key)) for key in keys)

    def close(self) -> None:
        self.connection.close()

    async def close_and_wait(self) -> None:
        self.connection.close()
        await self.connection.wait_closed()


class NotBegun(Exception):
    """The node did not begin a command: it refused, or the connection had ended."""


class Session(asyncssh.SSHClientSession[bytes]):
    """One command: hands its output to the sink, and keeps how it ended."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._given_up = False
        self._error: Exception | None = None
        self._signal = ""
        self.exit_status: int | None = None
        #: the command has been sent, or is about to be in this very moment
        self.begun = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def opened(self) -> Session:
        """Asyncssh asks for the session when the node has opened a channel, and sends the command at once."""
        if self._given_up:
            raise NotBegun("given up")
        self.begun = True
        return self

    def give_up(self) -> None:
        """Nothing may begin any more."""
        self._given_up = True

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        more = self._sink.write("stdout" if datatype is None else "stderr", data)
        if not more and self._channel is not None:
            self._channel.pause_reading()
            if self._resuming is None or self._resuming.done():
                self._resuming = asyncio.ensure_future(self._resume())

    async def _resume(self) -> None:
        await self._sink.ready()
        # What has come meanwhile is handed over at once, and may ask for the next pause.
        self._resuming = None
        if self._channel is not None:
            self._channel.resume_reading()

    def exit_status_received(self, status: int) -> None:
        self.exit_status = status

    def exit_signal_received(self, signal_name: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._signal = signal_name

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._channel = None
        if self._resuming is not None:
            self._resuming.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def signal(self, name: str) -> None:
        """Have the node send a signal to all processes of the command."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send_signal(name)

    def close(self) -> None:
        """Hear no more of it."""
        self.give_up()
        if self._channel is not None:
            self._channel.abort()
        if self._resuming is not None:
            self._resuming.cancel()

    def result(self) -> NodeResult:
        """How it ended, when it did so by itself."""
        if self._error is not None:
            reason = f"The connection broke while the command ran: {self._error}"
            return NodeResult(ending="lost", exit_status=self.exit_status, reason=reason)
        if self._signal:
            number = getattr(signal, f"SIG{self._signal}", 0)
            return NodeResult(ending="ended", exit_status=128 + number, reason=f"ended by signal {self._signal}")
        if self.exit_status is None:
            return NodeResult(ending="lost", reason="The node did not say how the command ended.")
        return NodeResult(ending="ended", exit_status=self.exit_status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A machine to connect to: directly, or from the one before it."""

    hop: Hop
    trust: Trust
    connect_seconds: float
    #: how often a silent peer is asked whether it is there
    keepalive_seconds: float
    through: Link | None = None


async def connect(target: Target, pairs: Sequence[asyncssh.SSHKeyPair], gate: asyncio.Semaphore) -> Link:
    """Open a connection; `gate` bounds how many are being opened to this address. Raises NoWay."""
    seconds = target.connect_seconds or CONNECT_SECONDS
    try:
        async with asyncio.timeout(seconds), gate:
            for tried in range(1, TRIES + 1):
                client = _Checked(target.trust, pairs)
                try:
                    return Link(await _open(target, client), client, target.hop.address)
                except (OSError, asyncssh.Error, ValueError) as error:
                    if tried == TRIES or not _was_turned_away(error, client):
                        raise _no_way(target, client, error) from error
                await asyncio.sleep(random.uniform(0.5, 1.5) * 0.05 * 2**tried)  # noqa: S311  # no secret
    except TimeoutError:
        reason = f"No connection to {target.hop.address} within {seconds:g} seconds."
        raise NoWay("unreachable", reason) from None
    raise AssertionError("not reached")


async def _open(target: Target, client: _Checked) -> asyncssh.SSHClientConnection:
    nothing: list[str] = []
    known = (client.trusted, client.authorities, client.revoked, nothing, nothing, nothing, nothing)
    return await asyncssh.connect(
        target.hop.address.host,
        target.hop.address.port,
        tunnel=target.through.connection if target.through else Direct(),
        config=None,
        client_factory=lambda: client,
        username=target.hop.username,
        known_hosts=known,
        server_host_key_algs=client.host_key_algorithms(),
        kex_algs=_KEY_EXCHANGES,
        encryption_algs=_CIPHERS,
        compression_algs=["none"],
        x509_trusted_certs=None,
        # None, not []: an empty list would mean the keys in the home directory of the server's user, and its agent.
        client_keys=None,
        preferred_auth="publickey",
        gss_host=None,
        agent_forwarding=False,
        keepalive_interval=target.keepalive_seconds,
        keepalive_count_max=KEEPALIVE_COUNT,
        login_timeout=0,
    )


def _was_turned_away(error: Exception, client: _Checked) -> bool:
    """Whether the host hung up before it showed a key, as it does when too many knock."""
    lost = isinstance(error, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError)
    return lost and not client.key_was_checked and client.refusal is None


def _no_way(target: Target, client: _Checked, error: Exception) -> NoWay:
    address = target.hop.address
    if client.refusal is not None:
        return client.refusal
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return NoWay("host-key", f"The host key of {address} is not trusted: {error.reason}")
    if isinstance(error, asyncssh.PermissionDenied) or (isinstance(error, asyncssh.Error) and client.key_was_checked):
        new = [HostKey(address, client.new_key)] if client.new_key else []
        reason = f"{address} does not let user '{target.hop.username}' in with this key: {error}"
        return NoWay("login", reason, *new)
    return NoWay("unreachable", f"No connection to {address}: {_words(error)}")


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
