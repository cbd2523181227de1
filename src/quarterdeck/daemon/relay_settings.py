# SPDX-License-Identifier: Apache-2.0
"""The settings `relay.*`: what this server does as a relay, and what `quarterdeckd relay` does."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec

from quarterdeck.core.errors import Invalid
from quarterdeck.core.remote_run_commands import UNREACHED, Command
from quarterdeck.daemon.setting_kinds import says


class RemoteRunCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to nodes; `Command` says what its items may hold."""

    name: str
    command: list[str | list[str]]
    unreached: tuple[int, ...] = UNREACHED

    def checked(self) -> Command:
        """The same for the relay. Raises Invalid."""
        items = tuple(item if isinstance(item, str) else tuple(item) for item in self.command)
        return Command(name=self.name, items=items, unreached=self.unreached)


class Relay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this server does as a relay: files for nodes, and from node to node."""

    allowed_networks: Annotated[
        list[str],
        says(
            "Addresses or networks that nodes may come from to the relay API, besides this machine. Empty means that "
            "only nodes that sign their requests may come, from everywhere."
        ),
    ] = []
    shared_folder: Annotated[
        str, says("The directory whose files nodes may have. Empty means `shared-folder` in the data directory.")
    ] = ""
    shared_file_bytes: Annotated[
        int,
        says("The longest file that one node may send to another, in bytes, with its metadata.", ge=1024, le=2**40),
    ] = 50 * 1024 * 1024
    cleanup_seconds: Annotated[
        float, says("How often files from node to node are looked through for those whose time is over.", gt=0)
    ] = 600.0
    state_directory: Annotated[
        str,
        says(
            "Only for `quarterdeckd relay`: the agent's state directory with the node that this relay is. Empty means "
            "`agent` in the data directory."
        ),
    ] = ""
    mirror_seconds: Annotated[
        float,
        says(
            "Only for `quarterdeckd relay`: how often the server above is asked for what changed of nodes list, "
            "policies, shared folder and files of nodes.",
            gt=0,
            le=86400,
        ),
    ] = 30.0
    remote_run: Annotated[bool, says("Whether agents are asked to run when somebody wants it.")] = True
    remote_run_commands: Annotated[
        list[RemoteRunCommand],
        says(
            "Commands that have the agent of a node run which does not wait here, tried in this order; see "
            "[relays.md](relays.md). In the environment as JSON."
        ),
    ] = []
    remote_run_seconds: Annotated[float, says("How long one of these commands may take.", gt=0, le=86400)] = 300.0
    remote_run_at_once: Annotated[
        int, says("How many of these commands run at the same time, together.", ge=1, le=1000)
    ] = 16
    certificate_header: Annotated[
        str, says("The header in which a trusted proxy passes on the certificate (PEM) that a client has shown.")
    ] = "X-SSL-Client-Cert"
    report_user: Annotated[
        str, says("The user with which genuine agents and relays put reports and updated inventories here.")
    ] = "rudder"
    report_password: Annotated[
        str, says("The password of that user; better as `file:PATH`. Empty means that nobody may put any.")
    ] = ""
    inventory_password: Annotated[
        str,
        says(
            "The password with which new nodes put their inventories here, as the user rudder. Genuine agents come "
            "with `rudder`. Empty means that nobody may put any."
        ),
    ] = "rudder"  # noqa: S105  # known to everybody
    upstream_url: Annotated[
        str,
        says(
            "Only for `quarterdeckd relay`: where files of genuine agents are passed on to, as in https://HOST:443. "
            "Empty means the server above. For another server's nodes this relay's nodes list does not count."
        ),
    ] = ""
    upstream_pin: Annotated[
        str,
        says(
            "Only with `relay.upstream_url`: the hash of that server's public key, as in sha256//…. Empty means that "
            "its certificate is checked as browsers do."
        ),
    ] = ""
    upstream_user: Annotated[
        str, says("Only for `quarterdeckd relay`: the user with which files of genuine agents are passed on.")
    ] = "rudder"
    upstream_password: Annotated[
        str,
        says(
            "The password of that user for reports and updated inventories; better as `file:PATH`. Empty means "
            "`relay.report_password`."
        ),
    ] = ""
    upstream_default_password: Annotated[
        str, says("The password of that user for inventories of new nodes, which come without any other.")
    ] = "rudder"  # noqa: S105  # known to everybody
    retention_seconds: Annotated[
        float,
        says("How long genuine agents' files are kept that nobody could take, or that were set aside.", ge=60),
    ] = 7 * 86400.0

    def commands(self) -> tuple[Command, ...]:
        """The commands for nodes. Raises Invalid, which names the setting."""
        try:
            commands = tuple(command.checked() for command in self.remote_run_commands)
        except Invalid as error:
            raise Invalid(f"The setting relay.remote_run_commands is wrong: {error.message}") from error
        names = [command.name for command in commands]
        for name in names:
            if names.count(name) > 1:
                raise Invalid(f"The setting relay.remote_run_commands is wrong: two commands are called '{name}'.")
        return commands

    def check(self) -> None:
        """Raises Invalid for what would be found wrong later."""
        self.commands()
        for network in self.allowed_networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise Invalid(
                    f"The setting relay.allowed_networks is wrong: '{network}' is no address or network."
                ) from None
