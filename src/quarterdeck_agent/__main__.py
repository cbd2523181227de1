# SPDX-License-Identifier: Apache-2.0
"""The command line: `quarterdeck-agent COMMAND`. Parses, calls one function, prints, chooses the exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, Dict, List, Optional

from quarterdeck_agent import __version__, documents, state
from quarterdeck_agent.errors import AgentError, Locked
from quarterdeck_agent.state import StateDirectory

FINE, FAILED, IN_ERROR, DRIFTED, LOCKED = 0, 1, 2, 3, 4

_EPILOG = """exit codes:
  0  done
  1  the command could not be carried out; one sentence on standard error says why
  2  the run was carried out, some component is in error
  3  with --fail-on-drift: some component is not compliant
  4  another run is under way
"""


def main(arguments: Optional[List[str]] = None) -> int:
    """Carry out one command; the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except Locked as error:
        print(f"quarterdeck-agent: {error}", file=sys.stderr)
        return LOCKED
    except (AgentError, OSError) as error:
        print(f"quarterdeck-agent: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130


def _enroll(options: argparse.Namespace) -> int:
    from quarterdeck_agent import enrolment  # every command loads only what it needs

    token = options.token or os.environ.get("QUARTERDECK_AGENT_TOKEN", "")
    if options.token_file:
        with open(options.token_file) as stream:
            token = stream.read().strip()
    directory = StateDirectory(options.state_dir)
    if options.node_id:
        directory.set_node_id(options.node_id)
    done = enrolment.enroll(directory, options.server, options.pin, token, options.accept_wait)
    for problem in done.problems:
        print(f"quarterdeck-agent: {problem}", file=sys.stderr)
    if options.json:
        _print_json({"node": done.node, "status": done.status})
    elif done.status == "accepted":
        print(f"Node {done.node} is enrolled and accepted. Next: quarterdeck-agent run")
    else:
        print(f"Node {done.node} is enrolled and waits to be accepted on the server.")
    return FAILED if options.accept_wait and done.status != "accepted" else FINE


def _run(options: argparse.Namespace) -> int:
    from quarterdeck_agent import console, run  # every command loads only what it needs

    directory = StateDirectory(options.state_dir)
    if options.splay:
        time.sleep(_splay(directory))
    asked = run.Options(
        audit_only=options.audit,
        update=not options.no_update,
        conditions=options.define,
        show=None if options.json else console.Lines(verbose=options.verbose).show,
    )
    result = run.perform(directory, asked)
    if options.json:
        entry = run.history_entry(result, asked)
        _print_json({**entry, "waiting": result.waiting, "reports": result.reports, "queued": result.queued})
    else:
        console.show_end(result, audit_only=options.audit)
    counts = result.counts()
    if counts.get("result_error") or counts.get("audit_error"):
        return IN_ERROR
    return DRIFTED if options.fail_on_drift and counts.get("audit_noncompliant") else FINE


def _listen(options: argparse.Namespace) -> int:
    from quarterdeck_agent import listening  # every command loads only what it needs

    listening.listen(StateDirectory(options.state_dir), commands=options.commands)
    return FINE


def _update(options: argparse.Namespace) -> int:
    from quarterdeck_agent import keys, policy, resources, run  # every command loads only what it needs
    from quarterdeck_agent.client import Client
    from quarterdeck_agent.errors import Refused

    directory = StateDirectory(options.state_dir)
    with directory.lock():
        settings, node = directory.settings(), directory.node_id()
        client = Client(settings.server, settings.pin, keys.load(directory.path), node)
        try:
            changed = policy.update(directory, client, node, settings.policy_key)
            found = policy.cached(directory, node, settings.policy_key)
            laid_out = resources.lay_out(directory.path, found, client.download) if found else None
        except Refused as error:
            if error.code not in run.WAITING_CODES:
                raise
            print("This node waits to be accepted on the server.")
            return FINE
        finally:
            client.close()
        directory.remember(last_update=int(time.time()))
    print("A new policy was fetched." if changed else "The policy is current.")
    problems = [place.problem for place in laid_out.places.values() if place.problem] if laid_out else []
    for problem in problems:
        print(f"quarterdeck-agent: {problem}", file=sys.stderr)
    return FAILED if problems else FINE


def _inventory(options: argparse.Namespace) -> int:
    from quarterdeck_agent import keys, run  # every command loads only what it needs
    from quarterdeck_agent.client import Client
    from quarterdeck_agent.parcels import Queue

    directory = StateDirectory(options.state_dir)
    node = directory.node_id()
    document = run.collect_inventory(node)
    if options.show:
        _print_json(document)
        return FINE
    with directory.lock():
        settings, key = directory.settings(), keys.load(directory.path)
        queue = Queue(directory.at("queue"), directory.at("refused"))
        queue.add("inventory", node, key, document)
        directory.remember(last_inventory=int(time.time()))
        client = Client(settings.server, settings.pin, key, node)
        try:
            flushed = queue.flush(client.send)
        finally:
            client.close()
    for problem in flushed.problems:
        print(f"quarterdeck-agent: {problem}", file=sys.stderr)
    print(f"{flushed.sent} parcel(s) sent, {flushed.waiting} waiting.")
    return FAILED if flushed.problems else FINE


def _check(options: argparse.Namespace) -> int:
    from quarterdeck_agent import checkup  # every command loads only what it needs

    lines = checkup.check(StateDirectory(options.state_dir))
    if options.json:
        _print_json([line._asdict() for line in lines])
    for line in [] if options.json else lines:
        print(f"{line.state:<8} {line.subject}: {line.text}")
    return FAILED if any(line.state == "failed" for line in lines) else FINE


def _info(options: argparse.Namespace) -> int:
    from quarterdeck_agent import information  # every command loads only what it needs

    found = information.gather(StateDirectory(options.state_dir))
    if options.json:
        _print_json(found)
    for name, value in {} if options.json else found.items():
        print(f"{name.replace('_', ' '):<16} {value}")
    return FINE


def _history(options: argparse.Namespace) -> int:
    runs = StateDirectory(options.state_dir).history()[-options.number :]
    if options.json:
        _print_json(runs)
    for run in [] if options.json else runs:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(run["counts"].items())) or "nothing"
        print(f"{run['start']}  {run['seconds']:>7.2f} s  {run['mode']:<6} {run['config_id'][:16]:<16} {counts}")
    return FINE


def _service(options: argparse.Namespace) -> int:
    from quarterdeck_agent import service  # every command loads only what it needs

    directory = StateDirectory(options.state_dir)
    if options.action == "install":
        print(service.install(directory, listen=options.listen, commands=options.commands))
    else:
        print(service.remove(directory))
    return FINE


def _splay(directory: StateDirectory) -> int:
    """Seconds to wait before a scheduled run, from the cached policy."""
    from quarterdeck_agent import policy, run  # every command loads only what it needs

    node = directory.node_id()
    found = policy.cached(directory, node, directory.settings().policy_key)
    return run.splay_seconds(node, found["schedule"]["splay_minutes"]) if found else 0


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--state-dir",
        default=state.default_path(),
        metavar="DIRECTORY",
        help=f"where the agent keeps its state (default {state.DEFAULT_PATH}, or ${state.ENVIRONMENT})",
    )
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(
        prog="quarterdeck-agent",
        description="Keeps this machine as its Quarterdeck server wants it, and reports.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"quarterdeck-agent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    table: Dict[str, Any] = {}
    for name, function, parents, text in (
        ("enroll", _enroll, [shared, as_json], "make this machine a node of a server"),
        ("run", _run, [shared, as_json], "fetch the policy, carry it out, report"),
        ("listen", _listen, [shared], "wait for the server to ask for a run or, if allowed, a command"),
        ("update", _update, [shared], "fetch the policy only"),
        ("inventory", _inventory, [shared], "send the inventory of this machine"),
        ("check", _check, [shared, as_json], "check the agent itself and repair what can be repaired"),
        ("info", _info, [shared, as_json], "show identity, server and policy"),
        ("history", _history, [shared, as_json], "show the last runs"),
        ("service", _service, [shared], "run regularly by systemd, or by cron where there is none"),
    ):
        table[name] = commands.add_parser(
            name,
            parents=parents,
            help=text,
            description=text.capitalize() + ".",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        table[name].set_defaults(command=function)
    _add_options(table)
    return parser


def _add_options(commands: Dict[str, Any]) -> None:
    enroll, run = commands["enroll"], commands["run"]
    enroll.add_argument("--server", required=True, metavar="URL", help="https://HOST[:PORT]")
    enroll.add_argument(
        "--pin", default="", metavar="sha256//…", help="the server's public key; nothing else is trusted"
    )
    enroll.add_argument("--token", default="", help="enrolment token (or in $QUARTERDECK_AGENT_TOKEN)")
    enroll.add_argument("--token-file", default="", metavar="FILE", help="file that holds the enrolment token")
    enroll.add_argument("--node-id", default="", metavar="UUID", help="be this node (default: a new random id)")
    enroll.add_argument(
        "--accept-wait",
        type=float,
        default=0,
        metavar="SECONDS",
        help="wait until accepted; exit 1 if that takes longer",
    )
    run.add_argument(
        "--audit", action="store_true", help="audit everything, change nothing; the report is printed and NOT sent"
    )
    run.add_argument("--no-update", action="store_true", help="use the policy of the last update")
    run.add_argument("--splay", action="store_true", help="first wait as long as the policy gives this node")
    run.add_argument("--fail-on-drift", action="store_true", help="exit 3 when something is not compliant")
    run.add_argument(
        "-D",
        "--define",
        type=documents.conditions,
        default=(),
        metavar="NAME[,NAME…]",
        help="conditions that hold during this run",
    )
    run.add_argument("-v", "--verbose", action="store_true", help="show every component")
    commands["listen"].add_argument(
        "--commands", action="store_true", help="also carry out commands and scripts of jobs, which the server signs"
    )
    commands["inventory"].add_argument("--show", action="store_true", help="print it, send nothing")
    commands["history"].add_argument("-n", "--number", type=int, default=10, help="how many runs (default 10)")
    commands["service"].add_argument("action", choices=("install", "remove"))
    commands["service"].add_argument(
        "--listen", action="store_true", help="with install: also wait for the server to ask for a run (needs systemd)"
    )
    commands["service"].add_argument(
        "--commands", action="store_true", help="with --listen: also carry out commands and scripts of jobs"
    )


if __name__ == "__main__":
    sys.exit(main())
