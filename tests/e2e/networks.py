# SPDX-License-Identifier: Apache-2.0
"""Hosts in network namespaces, in a row: each reaches its neighbours, and nobody else. Needs root and `ip`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_NAMES = "quarterdeck-test-"
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_PROGRAM = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Network:
    """The hosts of one row. Two neighbours share a cable: 10.77.N.1 is the end of the first, 10.77.N.2 the other's."""

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self.hosts = hosts

    def address(self, host: str, *, towards: str) -> str:
        """Where a neighbour reaches a host."""
        here, there = self.hosts.index(host), self.hosts.index(towards)
        assert abs(here - there) == 1
        return f"10.77.{min(here, there)}.{1 if here < there else 2}"

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """This thread, and processes that it starts, are on a host meanwhile."""
        with Path("/proc/thread-self/ns/net").open("rb") as before:
            with (_NAMESPACES / _name(host)).open("rb") as namespace:
                _enter(namespace.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    @contextlib.contextmanager
    def cut(self, first: str, second: str) -> Iterator[None]:
        """The cable between two hosts is out meanwhile. What the second sends to the first is lost without a word."""
        cable = f"cable{self.hosts.index(first)}"
        _ip("-n", _name(first), "link", "set", cable, "down")
        try:
            yield
        finally:
            _ip("-n", _name(first), "link", "set", cable, "up")

    def make(self) -> None:
        for host in self.hosts:
            _ip("netns", "add", _name(host))
            _ip("-n", _name(host), "link", "set", "lo", "up")
        for number, (first, second) in enumerate(zip(self.hosts, self.hosts[1:], strict=False)):
            self._lay(number, first, second)

    def _lay(self, number: int, first: str, second: str) -> None:
        cable = f"cable{number}"
        one, other = f"02:00:00:00:{number:02x}:01", f"02:00:00:00:{number:02x}:02"
        ends = ("address", one, "netns", _name(first)), ("name", cable, "address", other, "netns", _name(second))
        _ip("link", "add", cable, *ends[0], "type", "veth", "peer", *ends[1])
        for position, host in ((1, first), (2, second)):
            _ip("-n", _name(host), "address", "add", f"10.77.{number}.{position}/30", "dev", cable)
            _ip("-n", _name(host), "link", "set", cable, "up")
        # Else the second would find out that the first does not answer to its name, and fail at once.
        neighbour = ("neigh", "replace", f"10.77.{number}.1", "lladdr", one, "dev", cable, "nud", "permanent")
        _ip("-n", _name(second), *neighbour)

    def remove(self) -> None:
        for host in self.hosts:
            if (_NAMESPACES / _name(host)).exists():
                _ip("netns", "delete", _name(host))


@contextlib.contextmanager
def network(*hosts: str) -> Iterator[Network]:
    """A row of hosts, gone afterwards; skips where this user may not make namespaces."""
    if os.geteuid() != 0 or _PROGRAM is None:
        pytest.skip("network namespaces need root and the program ip (iproute2)")
    _sweep()
    made = Network(hosts)
    try:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
        yield made
    finally:
        made.remove()


def _name(host: str) -> str:
    return f"{_NAMES}{os.getpid()}-{host}"


def _sweep() -> None:
    """Remove what runs of the tests left that were killed."""
    for left in _NAMESPACES.glob(f"{_NAMES}*"):
        owner = left.name.removeprefix(_NAMES).partition("-")[0]
        if not Path("/proc", owner).exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", left.name)


def _ip(*arguments: str) -> None:
    assert _PROGRAM is not None
    subprocess.run([_PROGRAM, *arguments], capture_output=True, text=True, check=True)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "The network namespace cannot be entered.")
