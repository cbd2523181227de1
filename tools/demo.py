# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the main job on this machine, from an empty directory to a compliant node, with proof at each step.

Everything goes through what users have: the HTTP APIs, the printed enrolment line, the agent's command line. Each
step is checked on the server or in the file system; one that did not happen ends the demo with status 1. Policies
change files below the demo's directory only; the rest of the machine is audited.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from tools import demo_policies, demo_relays, demo_results, demo_runbooks
from tools.demo_results import Results
from tools.demo_world import (
    Api,
    DemoFailed,
    Places,
    api,
    clean_environment,
    enrolment_line,
    eventually,
    free_port,
    serving,
    snapshot,
    tied,
)

USUAL_PORT = 8443
USUAL_DIRECTORY = Path("demo-data")
#: Root's database runs as another user, who cannot enter a clone in a closed directory such as /root.
ROOTS_DIRECTORY = Path("/var/lib/quarterdeck-demo")
RUN_SECONDS = 180  # making a key of 4096 bits takes a busy machine its time
INTERVAL_SECONDS = 300
TOTAL_STEPS = 16


@dataclass
class Tour:
    """One playing of the demo: where it happens, and what is known so far."""

    console: Console
    places: Places
    url: str
    api: Api
    node: str = ""
    hostname: str = ""
    #: Name of a stage -> what the server said about the node then.
    stages: dict[str, Results] = field(default_factory=dict)
    steps: int = 0

    # -- how steps look -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """One step of the tour: its title while it runs, then a mark, the time it took, and what was found."""
        self.steps += 1
        found: list[str] = []
        begun = time.monotonic()
        number = f"[dim]{self.steps:2}/{TOTAL_STEPS}[/dim]"
        with self.console.status(f"{title} …"):
            try:
                yield found
            except DemoFailed:
                self.console.print(f"{number} [red]✗[/red] {title}")
                raise
        took = time.monotonic() - begun
        self.console.print(f"{number} [green]✓[/green] {title} [dim]{took:.1f} s[/dim]", soft_wrap=True)
        for line in found:
            self.console.print(f"        {line}", soft_wrap=True)

    # -- the machine becomes a node -----------------------------------------------------------------------------

    def enrol(self) -> None:
        """Run the very line that the server prints for other machines."""
        with self.step("This machine enrols with the line the server printed") as found:
            environment = clean_environment() | {
                "QUARTERDECK_AGENT_STATE": str(self.places.agent),
                "QUARTERDECK_AGENT_PROGRAM": str(self.places.agent_program),
            }
            line = enrolment_line(self.places)
            done = _run(["sh", "-c", line], environment)
            if done.returncode != 0:
                raise DemoFailed(f"The enrolment line failed with status {done.returncode}: {done.stderr.strip()}")
            self.node = (self.places.agent / "node.id").read_text().strip()
            pending = {node["id"]: node for node in self.api.rudder("GET", "/nodes/pending")["nodes"]}
            if self.node not in pending:
                raise DemoFailed(f"The node {self.node} does not wait to be accepted.")
            self.hostname = pending[self.node]["hostname"]
            found.append(f"server key pinned, agent's digest checked; node [bold]{self.node}[/bold]")
            found.append(f"{escape(self.hostname)} is [yellow]pending[/yellow]")

    def accept(self) -> None:
        """Pending becomes accepted; the node starts in audit mode."""
        with self.step("An administrator accepts it") as found:
            self.api.rudder("POST", f"/nodes/pending/{self.node}", {"status": "accepted"})
            properties = [{"name": "web", "value": {"port": 8080}}]
            self._set_mode("audit", properties=properties)
            (node,) = [one for one in self.api.rudder("GET", "/nodes")["nodes"] if one["id"] == self.node]
            system = node["os"]
            found.append(
                f"[green]{node['status']}[/green]: {escape(node['hostname'])}, {system['fullName']}; policy mode audit"
            )

    def _set_mode(self, mode: str, **more: Any) -> None:
        self.api.rudder("POST", f"/nodes/{self.node}", {"policyMode": mode, "reason": "demo", **more})
        (node,) = self.api.rudder("GET", f"/nodes/{self.node}")["nodes"]
        if node["policyMode"] != mode:
            raise DemoFailed(f"The node's policy mode is {node['policyMode']} and not {mode}.")

    # -- what shall be so ---------------------------------------------------------------------------------------

    def make_group(self) -> None:
        """A dynamic group finds the node by itself."""
        with self.step("A dynamic group is made") as found:
            self.api.rudder("PUT", "/groups", demo_policies.GROUP)

            def holds_node() -> bool:
                (group,) = self.api.rudder("GET", f"/groups/{demo_policies.GROUP['id']}")["groups"]
                return bool(group["nodeIds"] == [self.node])

            eventually(holds_node, "The dynamic group does not contain the node.")
            found.append(f"“{demo_policies.GROUP['displayName']}” holds one node: this one")

    def make_rules(self) -> None:
        """Directives from the shipped techniques, and the rules that give them to the group."""
        with self.step("Directives and rules are made from the technique library") as found:
            for directive in demo_policies.directives(self.places.machine):
                self.api.rudder("PUT", "/directives", directive)
                mode = f" [dim]({directive['policyMode']} only)[/dim]" if "policyMode" in directive else ""
                found.append(f"{directive['displayName']} [dim]from {directive['techniqueName']}[/dim]{mode}")
            for rule in demo_policies.rules(self.places.machine):
                self.api.rudder("PUT", "/rules", rule)
            kept = {rule["id"]: rule for rule in self.api.rudder("GET", "/rules")["rules"]}
            for rule in demo_policies.rules(self.places.machine):
                if kept.get(rule["id"], {}).get("directives") != sorted(rule["directives"]):
                    raise DemoFailed(f"The rule “{rule['displayName']}” is not as it was made.")
                found.append(f"rule “{rule['displayName']}”: {len(rule['directives'])} directives for the group")

    def await_policy(self, title: str = "The server generates the node's policy") -> None:
        """Wait until every change so far is in the policies."""
        with self.step(title) as found:
            answer: dict[str, Any] = {}

            def settled() -> bool:
                # What is looked at below must be this answer: the next may know of a further generation.
                answer.update(self.api.native("GET", "/generation"))
                return not answer["running"]

            eventually(settled, f"Policy generation did not end; see {self.places.log}.")
            if answer["errors"]:
                raise DemoFailed(f"A policy could not be generated: {answer['errors'][0]['message']}")
            newest = answer["generations"][0]
            if newest["state"] != "done":
                raise DemoFailed(f"Policy generation {newest['id']} {newest['state']}: {newest['message']}")
            found.append(f"generation {newest['id']} is done, without errors")

    # -- what is so ---------------------------------------------------------------------------------------------

    def run_agent(self) -> list[dict[str, str]]:
        """One run of the agent; its reports. Raises DemoFailed unless it could apply the policy and deliver."""
        command = [
            sys.executable,
            str(self.places.agent_program),
            "run",
            "--json",
            "--state-dir",
            str(self.places.agent),
        ]
        done = _run(command, clean_environment())
        try:
            result = json.loads(done.stdout)
        except ValueError:
            raise DemoFailed(f"The agent did not run: {done.stderr.strip()}") from None
        if result["queued"] or result["waiting"]:
            raise DemoFailed(f"The agent could not deliver its report: {'; '.join(result['problems'])}")
        reports: list[dict[str, str]] = result["reports"]
        if [one for one in reports if one["rule"] == demo_policies.LOOK and not one["status"].startswith("audit_")]:
            raise DemoFailed("Something outside the demo's directory was not only audited.")
        return reports

    def audit(self) -> None:
        """Findings, and nothing touched."""
        with self.step("First run, in audit mode") as found:
            before = snapshot(self.places.machine)
            reports = self.run_agent()
            if snapshot(self.places.machine) != before:
                raise DemoFailed("An audit changed something: it must never do that.")
            wrong = _of_demo(reports, "audit_noncompliant")
            if len(wrong) != demo_policies.FINDINGS:
                raise DemoFailed(f"The audit found {len(wrong)} deviations and not {demo_policies.FINDINGS}.")
            self._gather("audit", "auditNonCompliant", len(wrong))
            found.append(f"[yellow]{len(wrong)} deviations[/yellow] in {len(reports)} components")
            found.append(
                f"{len(before)} files and directories compared with before (content, mode, owner, inode, times): "
                "[green]nothing was touched[/green]"
            )

    def enforce(self) -> None:
        """The same policy, enforced."""
        with self.step("The node's policy mode becomes enforce") as found:
            self._set_mode("enforce")
            found.append("only below the demo's directory; the look at the rest of the machine stays an audit")
        self.await_policy()
        with self.step("Second run, in enforce mode") as found:
            reports = self.run_agent()
            repaired = _of_demo(reports, "result_repaired")
            if len(repaired) != demo_policies.FINDINGS:
                raise DemoFailed(f"{len(repaired)} components were repaired and not {demo_policies.FINDINGS}.")
            demo_policies.verify(self.places.machine, self.hostname)
            self._gather("enforce", "successRepaired", len(repaired))
            found.append(f"[green]{len(repaired)} repaired[/green], and the files are as they should be")

    def damage_and_repair(self) -> None:
        """Somebody edits a file; the next run notices and mends it."""
        with self.step("A file is damaged behind its back, and the agent runs again") as found:
            damaged = demo_policies.damage(self.places.machine)
            repaired = _of_demo(self.run_agent(), "result_repaired")
            if len(repaired) != 1:
                raise DemoFailed(f"{len(repaired)} components were repaired after the damage and not 1.")
            demo_policies.verify(self.places.machine, self.hostname)
            self._gather("after damage", "successRepaired", 1)
            found.append(f"{damaged.name} was changed by hand: [green]found and repaired[/green]")
            found.extend(f"[dim]{escape(line)}[/dim]" for line in repaired[0]["message"].splitlines()[:8])

    def _gather(self, stage: str, status: str, count: int) -> None:
        """Wait until the server's compliance holds `count` components of the demo with `status`, and keep it."""

        def arrived() -> bool:
            self.stages[stage] = demo_results.read(self.api, self.node)
            of_demo = self.stages[stage].outcomes.items()
            return sum(
                outcome.status == status for key, outcome in of_demo if key.rule == demo_policies.RULE
            ) == count and not any(outcome.status == "applying" for _, outcome in of_demo)

        eventually(arrived, f"The node's compliance does not come to show {count} x {status}.")

    # -- runbooks -----------------------------------------------------------------------------------------------

    def run_a_job(self, stack: contextlib.ExitStack) -> None:
        """Three nodes over SSH, an imported job with an option, live output, one node that fails."""
        if missing := demo_runbooks.missing_programs():
            self.steps += 2
            self.console.print(
                f"[yellow]The scene with SSH nodes is left out: {', '.join(missing)} is missing.[/yellow]"
            )
            return
        with self.step("A project with three SSH nodes is made, and a job imported from YAML") as found:
            fleet = stack.enter_context(demo_runbooks.fleet(self.places.nodes))
            demo_runbooks.make_project(self.api, fleet)
            job = demo_runbooks.import_job(self.api)
            found.append(", ".join(f"{node}: sshd on {address}" for node, address in demo_runbooks.NODES.items()))
            found.append(f"job [bold]web/deploy[/bold], number {job}: three steps, option “version”")
        with self.step(f"The job runs with version {demo_runbooks.VERSION}, its output as it comes") as found:
            execution = demo_runbooks.run_job(self.api, job)
            for line in demo_runbooks.follow(self.api, execution):
                colour = "red" if line["level"] == "ERR" else "dim" if line["level"] != "INFO" else "default"
                text = escape(f"{line['node'] or '-':5} {line['text'].rstrip()}")
                self.console.print(f"        [{colour}]{text}[/{colour}]", soft_wrap=True)
            found.extend(demo_runbooks.verify(self.api, fleet, execution))

    # -- relays -------------------------------------------------------------------------------------------------

    def relay_a_file(self, stack: contextlib.ExitStack) -> None:
        """A relay in a process of its own, a machine behind it, and a file from the first machine to that one."""
        with self.step("A relay starts in a process of its own, and a second machine enrols through it") as found:
            branch = demo_relays.prepare(self.places.branch, self.places.agent_program)
            token = demo_relays.make_relay(self.api, branch, self.url)
            stack.enter_context(demo_relays.relaying(branch))
            demo_relays.enrol(self.api, branch, token)
            demo_relays.make_rules(self.api, branch, self.node)
            found.append(f"relay at {branch.url}, without a database; promoted over the API")
            found.append(f"node {branch.node} is served by it")
        self.await_policy("The server generates the policies of both machines")
        with self.step("The first machine shares a file with the second, through the relay") as found:
            self.run_agent()
            demo_relays.run_agent(branch)
            demo_relays.verify(self.api, branch)
            found.append(f"{branch.taken}: [green]there[/green], and the report came back through the relay")

    # -- and now you --------------------------------------------------------------------------------------------

    def show(self) -> None:
        """The table, before and after."""
        self.console.print()
        self.console.print(demo_results.table(self.stages))

    def lines_to_paste(self) -> list[str]:
        """Commands that look at what was made, with a token that may only read."""
        made = self.api.native("POST", "/tokens", {"name": "demo-reader", "access": "read"})
        curl = f"curl -sS --cacert {shlex.quote(str(self.places.ca))} -H 'X-API-Token: {made['token']}'"
        base = f"{self.url}/rudder/api/latest"
        return [
            f"{curl} '{base}/nodes/{self.node}?include=minimal,properties&prettify=true'",
            f"{curl} '{base}/compliance/nodes/{self.node}?level=2&prettify=true'",
            f"{curl} '{base}/rules/{demo_policies.RULE}?prettify=true'",
            f"{curl} '{self.url}/quarterdeck/api/1/events?limit=3'",
        ]

    def offer(self, *, verify: bool) -> None:
        """Print lines to paste; `verify` runs them first, for a demo without anybody to paste them."""
        lines = self.lines_to_paste()
        for line in lines if verify and shutil.which("curl") else ():
            done = _run(["sh", "-c", line], clean_environment())
            if done.returncode != 0 or '"error' in done.stdout:
                raise DemoFailed(f"This line does not work: {line}\n{done.stdout}{done.stderr}")
        self.console.print("\n[bold]Look for yourself[/bold] (this token may only read):\n")
        for line in lines:
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)
        server = shlex.quote(str(self.places.server))
        program = shlex.quote(str(Path(sys.executable).parent / "quarterdeck"))
        self.console.print("\nOr with the command line, as administrator:\n")
        login = f"{program} login {self.url} --token-file {server}/admin-token --ca-file {server}/keys/ca.pem"
        uptime = f"{program} run --project {demo_runbooks.PROJECT} --filter tags=web --threads 3 --keepgoing -- uptime"
        for line in (login, f"{program} compliance --by directives", *([uptime] if self.places.nodes.exists() else [])):
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)
        self.console.print(f"\nThe agent's part is in {self.places.agent}, the managed files in {self.places.machine}.")


def _of_demo(reports: list[dict[str, str]], status: str) -> list[dict[str, str]]:
    return [one for one in reports if one["rule"] == demo_policies.RULE and one["status"] == status]


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command to its end; it ends with the demo, whatever happens to that."""
    program = shutil.which(command[0]) or command[0]
    try:
        return subprocess.run(
            tied([program, *command[1:]]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=RUN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"This took longer than {RUN_SECONDS} s: {shlex.join(command)[:200]}") from None


def play(console: Console, places: Places, *, port: int, once: bool) -> None:
    """The whole tour, then serve until Ctrl-C unless `once`. Raises DemoFailed."""
    begun = time.monotonic()
    if missing := [name for name in ("curl", "sha256sum") if shutil.which(name) is None]:
        raise DemoFailed(f"The enrolment line needs {' and '.join(missing)}: please install that first.")
    places.renew()
    demo_policies.prepare(places.machine)
    console.print("[bold]Quarterdeck[/bold]: from a clone to a compliant node, on this machine\n")
    said = partial(console.print, style="dim", soft_wrap=True)
    if os.geteuid() == 0:
        said("Started as root, so server and agent stay root; a real server has a user of its own.")
    said(f"Everything is kept below {places.root}; what the server says: {places.log}\n")
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        with console.status("The server starts: database, keys, certificate …"):
            url = stack.enter_context(serving(places, free_port(port)))
        tour = Tour(console, places, url, stack.enter_context(api(places, url)), steps=1)
        console.print(
            f"[dim] 1/{TOTAL_STEPS}[/dim] [green]✓[/green] The server answers at {url} "
            f"[dim]{time.monotonic() - started:.1f} s[/dim]"
        )
        tour.enrol()
        tour.accept()
        tour.make_group()
        tour.make_rules()
        tour.await_policy()
        tour.audit()
        tour.enforce()
        tour.damage_and_repair()
        tour.show()
        tour.run_a_job(stack)
        tour.relay_a_file(stack)
        tour.offer(verify=once)
        console.print(f"\n[green]The tour took {time.monotonic() - begun:.0f} s.[/green]")
        if not once:
            console.print(f"Serving at {url} until Ctrl-C; the agent runs every {INTERVAL_SECONDS // 60} minutes.")
            _wait_for_the_end(tour)
    console.print("Everything the demo started is stopped.")


def usual_directory() -> Path:
    """`demo-data` here; for root another place when here is closed to the database's user."""
    here = Path.cwd()
    if os.geteuid() != 0 or all(one.stat().st_mode & stat.S_IXOTH for one in (here, *here.parents)):
        return USUAL_DIRECTORY
    return ROOTS_DIRECTORY


def _wait_for_the_end(tour: Tour) -> None:
    """Until Ctrl-C, with the agent's regular runs, as a timer would do them."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(INTERVAL_SECONDS)
            try:
                tour.run_agent()
            except DemoFailed as error:
                tour.console.print(f"[red]The agent's regular run failed:[/red] {escape(str(error))}", soft_wrap=True)


def main() -> int:
    """Play; 0 when every step happened."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description="Play the main job on this machine.")
    parser.add_argument("--once", action="store_true", help="stop everything after the tour")
    parser.add_argument("--dir", type=Path, help=f"what the demo may own (default {USUAL_DIRECTORY})")
    parser.add_argument("--port", type=int, default=USUAL_PORT, help="where to serve; another if that is in use")
    options = parser.parse_args()
    console = Console(highlight=False)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT, too: in the background a shell has it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        play(console, Places((options.dir or usual_directory()).absolute()), port=options.port, once=options.once)
    except DemoFailed as error:
        console.print(f"[red]The demo failed:[/red] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything the demo started is stopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
