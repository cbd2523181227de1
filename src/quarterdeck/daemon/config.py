# SPDX-License-Identifier: Apache-2.0
"""The daemon's settings: what they are, where they come from, and what makes them wrong.

The command line wins over the environment (QUARTERDECK_*), that over `quarterdeck.toml`, that over the defaults.
The description of a setting stands on its field; `docs/settings.md` is written from it (`documentation()`).
Settings that an administrator changes through an API are in `core/settings.py`, not here.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import shlex
import socket
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from quarterdeck.core import bounded_regexes, job_checks
from quarterdeck.core.errors import Invalid
from quarterdeck.daemon import time_zones
from quarterdeck.daemon.relay_settings import Relay
from quarterdeck.daemon.setting_kinds import flat, from_text, says

PREFIX = "QUARTERDECK_"
FILE_NAME = "quarterdeck.toml"
Level = Literal["debug", "info", "warning", "error"]
#: Settings that a reload changes; the others wait for a restart.
RELOADED = "log."
DEFAULT_DATA_DIR = "/var/lib/quarterdeck"
REFERENCE_SECONDS = 10


class WrongSettings(Invalid):
    """Nothing can be started with these settings; trying again does not help."""


class Workers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """How much runs beside the API."""

    count: Annotated[int, says("Worker processes that `serve` starts; 0 is the same as --no-worker.", ge=0, le=64)] = 1
    cpu: Annotated[
        int, says("Processes that generate policies in parallel; 0 means one per processor.", ge=0, le=256)
    ] = 0


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the processes write to standard error."""

    level: Annotated[Level, says("The least important kind of line that is written.")] = "info"
    levels: Annotated[
        dict[str, Level],
        says(
            'The same for parts of the program, as in `{"quarterdeck.relaying" = "debug"}`; in the environment '
            "NAME=LEVEL with commas between."
        ),
    ] = {}
    nodes: Annotated[
        list[str], says("Ids of nodes about which everything is written: each line that names one of them.")
    ] = []


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one request may take."""

    body_bytes: Annotated[
        int, says("The longest request body that is accepted, in bytes.", ge=1024, le=2 * 1024**3)
    ] = 10 * 1024 * 1024


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the API process keeps in memory so as not to make it again."""

    node_bytes: Annotated[
        int, says("Answers about nodes that are kept ready, in bytes; 10,000 nodes take about 25 MB.", ge=0, le=2**40)
    ] = 256 * 1024 * 1024


class Reports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of the runs that agents report."""

    keep_raw: Annotated[bool, says("Keep the signed originals of changed runs and of the latest run of each node.")] = (
        True
    )


class LocalNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server's own machine as a node of projects."""

    name: Annotated[str, says("What projects call it. Empty means this machine's host name.")] = ""
    user: Annotated[
        str,
        says(
            "The system user that steps on it run as. Empty means the daemon's own, and then only accounts with the "
            "role admin may run steps there."
        ),
    ] = ""


class Ssh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How nodes are reached where neither they nor their project say so."""

    user: Annotated[str, says("As which user nodes are reached.")] = ""
    key_path: Annotated[str, says("The private key file for nodes, without a passphrase.")] = ""
    connect_seconds: Annotated[float, says("How long connecting to a node may take.", gt=0, le=3600)] = 30.0
    host_keys: Annotated[
        Literal["first-use", "approve"],
        says(
            "What happens to the key of a host that is not known yet: `first-use` keeps it and trusts it from then "
            "on, `approve` refuses the host until somebody approves it. A key that differs is refused either way."
        ),
    ] = "first-use"
    known_hosts: Annotated[list[str], says("Files in the form of OpenSSH's known_hosts that are trusted, too.")] = []


class Projects(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What projects may reach on this machine and elsewhere."""

    allowed_paths: Annotated[
        list[str],
        says("Directories in which scripts, keys for nodes and `file:` addresses that projects name may lie."),
    ] = []
    allowed_urls: Annotated[
        list[str],
        says(
            "Patterns of addresses from which node lists may be fetched, besides a project's own. This machine and "
            "metadata services are asked, also for scripts, at these only."
        ),
    ] = []
    acl_directory: Annotated[
        str, says("Where *.aclpolicy files lie. Empty means `acl` in the data directory. Without files roles decide.")
    ] = ""


class Executions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one worker runs, and how long is known what it ran."""

    at_once: Annotated[int, says("Executions that one worker runs at the same time.", ge=1, le=10_000)] = 100
    log_bytes: Annotated[int, says("The most output that is kept of one execution, in bytes.", ge=1024, le=2**50)] = (
        2 * 1024**3
    )
    loglevel: Annotated[
        Literal["DEBUG", "VERBOSE", "INFO", "WARN", "ERR"], says("The log level where a request names none.")
    ] = "INFO"
    retention_days: Annotated[
        int,
        says(
            "Days for which executions that ended, their output and the history of projects are kept.",
            ge=1,
            le=36_500,
        ),
    ] = 90


class Schedules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When scheduled jobs run."""

    time_zone: Annotated[
        str,
        says(
            "The time zone of schedules that name none, as in Europe/Berlin. Empty means this machine's by TZ or "
            "/etc/localtime, and UTC where these do not tell its name."
        ),
    ] = ""
    misfire_grace_seconds: Annotated[
        float, says("How late a scheduled run may begin; one that is later still is told as missed.", ge=0, le=86400)
    ] = 60.0


class Mail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mail server that takes notifications."""

    host: Annotated[str, says("Its name or address. Empty means that no mail is sent.")] = ""
    port: Annotated[
        int, says("Its port; 0 means 25, 587 or 465, for the securities none, starttls and tls.", ge=0, le=65535)
    ] = 0
    user: Annotated[str, says("The user to log in as. Empty means without login.")] = ""
    password: Annotated[str, says("The password of that user; better as `file:PATH`.")] = ""
    sender: Annotated[
        str, says("The address that mails come from. Empty means quarterdeck@ and the name in `public_url`.")
    ] = ""
    security: Annotated[
        Literal["none", "starttls", "tls"], says("How the connection is protected; certificates are checked.")
    ] = "starttls"


class Webhooks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where notifications may be posted to."""

    allowed: Annotated[
        list[str],
        says(
            "Patterns (regular expressions, whole addresses) of webhooks that may be called. Empty means all but those "
            "on this machine, its link-local networks and a cloud's metadata service."
        ),
    ] = []


class Rundeck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The dialect that clients of RunDeck speak."""

    max_api_version: Annotated[int, says("The newest version of its API that is served.", ge=1, le=1)] = 1
    listen: Annotated[str, says("A second ADDRESS:PORT for its clients, as in 0.0.0.0:4440. Empty means none.")] = ""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one daemon, checked. After `load`, `public_url` is never empty."""

    data_dir: Annotated[
        str, says("Where keys, spool and the embedded database live. Only on the command line or in the environment.")
    ] = DEFAULT_DATA_DIR
    listen: Annotated[str, says("ADDRESS:PORT to accept connections at; an IPv6 address stands in brackets.")] = (
        "0.0.0.0:8443"
    )
    public_url: Annotated[
        str,
        says(
            "How other machines reach this server: gives the names in its certificate, links and enrolment lines. "
            "Empty means https:// with this machine's full name and the port of `listen`."
        ),
    ] = ""
    tls: Annotated[
        bool, says("Serve HTTPS. Plain HTTP is accepted on loopback, or when `trusted_proxies` names a proxy.")
    ] = True
    database_url: Annotated[
        str, says("The PostgreSQL to use, as postgresql://USER:PASSWORD@HOST/DATABASE. Empty means the embedded one.")
    ] = ""
    threads: Annotated[
        int, says("Requests worked on at the same time, and so connections to the database.", ge=1, le=256)
    ] = 16
    trusted_proxies: Annotated[
        list[str],
        says(
            "Addresses or networks whose X-Forwarded-* and client certificate headers are believed. Who calls from one "
            "is never taken for this machine itself, even on the loopback."
        ),
    ] = []
    workers: Workers = Workers()
    log: Log = Log()
    limits: Limits = Limits()
    cache: Cache = Cache()
    reports: Reports = Reports()
    local_node: LocalNode = LocalNode()
    ssh: Ssh = Ssh()
    projects: Projects = Projects()
    executions: Executions = Executions()
    schedules: Schedules = Schedules()
    mail: Mail = Mail()
    webhooks: Webhooks = Webhooks()
    rundeck: Rundeck = Rundeck()
    relay: Relay = Relay()
    #: No setting: the file that the others were read from, where it was named.
    config_file: str = ""

    @property
    def data(self) -> Path:
        """The data directory as a path."""
        return Path(self.data_dir)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`."""
        return split_address(self.listen)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Every address to listen at, that of `listen` first."""
        more = [split_address(self.rundeck.listen, "rundeck.listen")] if self.rundeck.listen else []
        return [self.address, *more]


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the supervisor tells a process later on: settings that may change, or why they stay."""

    log: Log | None = None
    problem: str = ""


#: Settings that say where the others are found, and so cannot stand in the file.
NOT_IN_FILE = frozenset({"data_dir"})


class Setting(msgspec.Struct, frozen=True):
    """One setting as the documentation shows it; `name` is dotted as in the file."""

    name: str
    kind: Any
    description: str
    default: Any

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.replace(".", "_").upper()


@functools.cache
def settings() -> tuple[Setting, ...]:
    """Every setting there is, in the order of the documentation."""
    return tuple(_settings(Config, ""))


def _settings(struct: type[msgspec.Struct], prefix: str) -> Iterator[Setting]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        if hint is str:  # where settings are from, and none itself
            continue
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _settings(hint, f"{prefix}{field.name}.")
            continue
        kind, meta = get_args(hint)
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        yield Setting(f"{prefix}{field.name}", kind, meta.description, default)


def load(command_line: Mapping[str, Any], environment: Mapping[str, str], config_file: Path | None = None) -> Config:
    """The settings in force. `command_line` maps dotted names to values; None is "not given". Raises WrongSettings."""
    try:
        return _loaded(command_line, environment, config_file)
    except Invalid as error:
        raise WrongSettings(error.message) from error


def _loaded(command_line: Mapping[str, Any], environment: Mapping[str, str], config_file: Path | None) -> Config:
    given = {name: value for name, value in command_line.items() if value is not None}
    environed = _from_environment(environment)
    data_dir = data_directory(command_line, environment)
    filed = _from_file(config_file or data_dir / FILE_NAME, required=config_file is not None)
    values = filed | environed | given | {"data_dir": str(data_dir)}
    config = _convert({name: _resolve(name, value) for name, value in values.items()})
    return msgspec.structs.replace(_checked(config), config_file=str(config_file or ""))


def data_directory(command_line: Mapping[str, Any], environment: Mapping[str, str]) -> Path:
    """The data directory that command line and environment name, as an absolute path."""
    named = command_line.get("data_dir") or environment.get(f"{PREFIX}DATA_DIR") or DEFAULT_DATA_DIR
    return Path(named).expanduser().absolute()


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {setting.variable: setting for setting in settings()}
    found: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX):
            continue
        if variable in known:
            found[known[variable].name] = value
        # Other programs (the CLI, the agent) have variables of this prefix: only a slip of the pen is an error.
        elif near := difflib.get_close_matches(variable, known, n=1, cutoff=0.9):
            raise Invalid(f"There is no setting {variable} in the environment; did you mean {near[0]}?")
    return found


def check_file(config: Config) -> None:
    """Whether the file that these settings were read from can still be read, and names settings that there are.

    Raises Invalid.
    """
    named = Path(config.config_file) if config.config_file else None
    _from_file(named or config.data / FILE_NAME, required=named is not None)


def _from_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise Invalid(f"The configuration file {path} does not exist.") from None
        return {}
    except OSError as error:
        raise Invalid(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The configuration file {path} is not valid TOML: {error}.") from error
    known = {setting.name for setting in settings()} - NOT_IN_FILE
    values = dict(_flat(document, known, ""))
    for name in values.keys() - known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise Invalid(f"There is no setting '{name}' in {path}; did you mean '{near}'?")
    return values


def _flat(document: Mapping[str, Any], known: set[str], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in known and value:
            yield from _flat(value, known, f"{name}.")
        else:
            yield name, value


def _resolve(name: str, value: Any) -> Any:
    """Follow `file:PATH` and `exec:COMMAND`: a secret need not stand in the configuration itself."""
    if not isinstance(value, str):
        return value
    scheme, _, rest = value.partition(":")
    try:
        if scheme == "file":
            return Path(rest).read_text(encoding="utf-8").strip()
        if scheme == "exec":
            command = shlex.split(rest)
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=REFERENCE_SECONDS)
            return done.stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # What a command printed may be a secret: only the kind of failure is told.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise Invalid(f"The setting {name} refers to {scheme}:… and that failed: {reason}.") from None
    return value


def _convert(values: Mapping[str, Any]) -> Config:
    kinds = {setting.name: setting.kind for setting in settings()}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, str):
            value = from_text(name, kinds[name], value)  # noqa: PLW2901
        elif get_origin(kinds[name]) is dict and isinstance(value, dict):
            value = dict(flat(value))  # noqa: PLW2901
        *rooms, last = name.split(".")
        target = nested
        for room in rooms:
            target = target.setdefault(room, {})
        target[last] = value
    try:
        return msgspec.convert(nested, Config, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        raise Invalid(f"The setting {path.rstrip('`')} is wrong: {message[:1].lower()}{message[1:]}.") from None


# --- what belongs together -------------------------------------------------------------------------------------------


def _checked(config: Config) -> Config:
    open_ones = [address for address in config.addresses if not _is_loopback(address[0])]
    for proxy in config.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise Invalid(f"The setting trusted_proxies is wrong: '{proxy}' is no address or network.") from None
    config.relay.check()
    _check_log(config.log)
    if not config.tls and not config.trusted_proxies and open_ones:
        host, port = open_ones[0]
        raise Invalid(
            f"Without TLS the server listens on loopback only and {host} is not: listen at 127.0.0.1:{port}, "
            "leave TLS on, or name the proxy in front in `trusted_proxies`."
        )
    if config.database_url and not config.database_url.startswith(("postgresql://", "postgresql+psycopg://")):
        raise Invalid("The setting database_url is wrong: it must begin with postgresql://.")
    _check_outgoing(config)
    public_url = _checked_url(config.public_url) if config.public_url else _default_url(config)
    return msgspec.structs.replace(config, public_url=public_url)


def _check_log(log: Log) -> None:
    for name in log.levels:
        # What others' libraries tell in detail may hold what nobody should read.
        if name.split(".")[0] != "quarterdeck":
            raise Invalid(
                f"The setting log.levels is wrong: '{name}' is no part of this program, as quarterdeck.web is."
            )


def _check_outgoing(config: Config) -> None:
    """What would otherwise be found wrong when a schedule or a notification is due."""
    if config.schedules.time_zone:
        time_zones.zone(config.schedules.time_zone)
    for pattern in config.webhooks.allowed:
        try:
            bounded_regexes.compiled(pattern)
        except Invalid:
            raise Invalid(f"The setting webhooks.allowed is wrong: '{pattern}' is no regular expression.") from None
    if config.mail.sender and not job_checks.is_email(config.mail.sender):
        raise Invalid(f"The setting mail.sender is wrong: '{config.mail.sender}' is no mail address.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_address(listen: str, setting: str = "listen") -> tuple[str, int]:
    """Host and port of `ADDRESS:PORT` or `[ADDRESS]:PORT`. Raises Invalid, which names the setting."""
    host, colon, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Invalid(
            f"The setting {setting} is wrong: '{listen}' is not ADDRESS:PORT, as in 0.0.0.0:8443 or [::]:8443."
        )
    return host, int(port)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        good = good and parts.path in {"", "/"} and not (parts.query or parts.fragment or parts.username)
        good = good and _is_name(parts.hostname or "")
    except ValueError:
        good = False
    if not good:
        raise Invalid(f"The setting public_url is wrong: '{url}' is not like https://quarterdeck.example.org:8443.")
    return url.rstrip("/")


def _is_name(host: str) -> bool:
    """An IP address, or a name that can stand in a certificate."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.rstrip(".").split(".")
        return len(host) <= 253 and all(
            0 < len(label) <= 63 and label.replace("-", "").isalnum() and label.strip("-") == label for label in labels
        )
    return True


def _default_url(config: Config) -> str:
    host, port = config.address
    if _is_loopback(host):
        name = "localhost" if host == "localhost" else host
    elif "." in (name := socket.gethostname()):
        pass
    elif (full := socket.getfqdn()).partition(".")[0] != "localhost":  # what a name service says that knows nothing
        name = full
    shown = f"[{name}]" if ":" in name else name
    return f"{'https' if config.tls else 'http'}://{shown}:{port}"


def documentation() -> str:
    """The text of `docs/settings.md`."""
    lines = [
        "# Settings of `quarterdeckd`",
        "",
        "<!-- Written by `python -m quarterdeck.daemon.config`; a test compares. -->",
        "",
        f"They stand in `{FILE_NAME}` in the data directory (or the file given with --config), in the environment, or",
        "on the command line; the later of these wins. A text may be `file:PATH` (the content of a file) or",
        "`exec:COMMAND` (what a command prints; no shell) instead of the value itself. Lists are TOML arrays in the",
        "file and separated by commas in the environment. Times in seconds may also be texts such as `10 min` or",
        "`1d 2h`. Names that are no setting are refused.",
        "",
        f"A reload (SIGHUP, or `POST /rudder/relay-api/1/system/reload`) applies `{RELOADED}*`; everything else waits",
        "for a restart. `quarterdeckd` ends with status 2 when settings are wrong, and with 3 when a file that it",
        "keeps cannot be read.",
        "",
        "| Setting | Environment | Default | What it does |",
        "|---|---|---|---|",
    ]
    for setting in settings():
        shown = f"`{msgspec.json.encode(setting.default).decode()}`" if setting.default not in ("", [], {}) else "empty"
        lines.append(f"| `{setting.name}` | `{setting.variable}` | {shown} | {setting.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(documentation(), end="")
