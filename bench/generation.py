# SPDX-License-Identifier: Apache-2.0
"""How fast policies are generated, without storage: nodes x directives x parameters, by how much depends on nodes.

    python bench/generation.py [--nodes 10000] [--directives 50] [--parameters 20] [--processes 2] [--json]

Every case goes from a fresh snapshot: prepare, choose, compile, resolve, hash. `assemble` is what a fetch costs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from quarterdeck.core import policies
from quarterdeck.core.directives import Directive
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import DirectiveId, GroupId, NodeId, RuleId, TechniqueId
from quarterdeck.core.methods import Method, MethodParameter
from quarterdeck.core.policies import AppliedRule, Fleet, FleetNode
from quarterdeck.core.rules import Rule
from quarterdeck.core.techniques import Call, Technique, TechniqueParameter

#: Nodes of a chunk that one process works on at a time.
CHUNK = 500


class Case(NamedTuple):
    name: str
    #: One parameter in so many depends on the node; 0: none does.
    every: int
    #: The properties that such parameters use.
    names: tuple[str, ...]


CASES = (
    Case("no parameter depends on the node", 0, ()),
    Case("1 in 5, values shared by many nodes", 5, ("env", "dc", "role", "tier")),
    Case("1 in 5, values of one node only", 5, ("net][fqdn", "net][ip", "serial", "owner")),
    Case("all, both kinds", 1, ("env", "dc", "role", "tier", "net][fqdn", "net][ip", "serial", "owner")),
)


def make_node(number: int) -> FleetNode:
    properties = {
        "env": ("prod", "staging", "dev", "qa")[number % 4],
        "dc": ("par1", "lyo2", "fra1")[number % 3],
        "role": f"role{number % 12}",
        "tier": ("web", "app", "db")[number % 3],
        "net": {
            "fqdn": f"node{number}.example.com",
            "ip": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        },
        "serial": f"SN-{number:08d}",
        "owner": f'team "{number % 40}" é',
    }
    identity = f"{number:08x}-0000-4000-8000-{number:012x}"
    groups = (GroupId("all"), GroupId(f"group{number % 10}"))
    return FleetNode(id=NodeId(identity), hostname=f"node{number}", properties=properties, groups=groups)


def make_fleet(case: Case, options: argparse.Namespace) -> Fleet:
    nodes = [make_node(number) for number in range(options.nodes)]
    names = [f"param_{number}" for number in range(options.parameters)]
    methods = {
        "command_execution": Method(
            id="command_execution",
            name="Command execution",
            description="",
            parameters=tuple(MethodParameter(name=name) for name in ("command",)),
            prefix="command_execution",
            class_parameter="command",
        )
    }
    techniques = [make_technique(f"tech{number}", names) for number in range(9)]
    directives = {}
    count = 0
    for number in range(options.directives):
        values = {}
        for name in names:
            count += 1
            end = (
                f"${{node.properties[{case.names[count % len(case.names)]}]}}"
                if case.every and count % case.every == 0
                else "static"
            )
            values[name] = (f"/opt/app{number}/conf.d/{name}/value-{count:x}/{end}/etc",)
        directive = Directive(
            id=DirectiveId(f"dir-{number:04d}"),
            name=f"Directive {number}",
            technique=TechniqueId(f"tech{number % 9}"),
            version="1.0",
            parameters=values,
        )
        directives[directive.id] = directive
    rule = Rule(id=RuleId("rule"), name="All", directives=frozenset(directives))
    groups = {GroupId(name): Group(id=GroupId(name), name=name) for name in ("all", *(f"group{n}" for n in range(10)))}
    return Fleet(
        nodes=nodes,
        rules=[AppliedRule(rule, frozenset(node.id for node in nodes))],
        directives=directives,
        techniques={technique.key: technique for technique in techniques},
        methods=methods,
        groups=groups,
    )


def make_technique(identity: str, names: list[str]) -> Technique:
    return Technique(
        id=TechniqueId(identity),
        version="1.0",
        name=identity,
        parameters=tuple(TechniqueParameter(id=name, name=name) for name in names),
        items=tuple(
            Call(id=f"{identity}-{name}", method="command_execution", parameters={"command": f"${{{identity}.{name}}}"})
            for name in names
        ),
    )


_prepared: policies.Prepared
_nodes: list[FleetNode]


def work(start: int) -> policies.Generated:
    return policies.generate_nodes(_prepared, _nodes[start : start + CHUNK])


def run(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    global _prepared, _nodes  # what forked workers find
    fleet = make_fleet(case, options)
    began = time.perf_counter()
    _prepared, _nodes = policies.prepare(fleet), list(fleet.nodes)
    prepared = time.perf_counter()
    single = policies.generate_nodes(_prepared, _nodes)
    alone = time.perf_counter() - prepared
    assert not single.errors
    began_pool = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(options.processes) as pool:
        chunks = pool.map(work, range(0, len(_nodes), CHUNK), chunksize=1)
    pooled = time.perf_counter() - began_pool
    assert [policy for chunk in chunks for policy in chunk.policies] == list(single.policies)
    sample = single.policies[:: max(1, len(single.policies) // 200)]
    began_fetch = time.perf_counter()
    sizes = [len(policies.assemble(policy, "20260101-000000-00000000", single.fragments)) for policy in sample]
    fetch = (time.perf_counter() - began_fetch) / len(sample)
    kept = sum(
        len(policy.head) + sum(map(len, policy.values.values())) + 32 * len(policy.fragments)
        for policy in single.policies
    )
    return {
        "case": case.name,
        "prepare_s": round(prepared - began, 3),
        "nodes_per_s_per_core": round(len(_nodes) / alone),
        "processes": options.processes,
        "all_s": round(prepared - began + pooled, 3),
        "document_bytes": sum(sizes) // len(sizes),
        "kept_bytes_per_node": kept // len(single.policies),
        "shared_fragments": len(single.fragments),
        "assemble_us": round(fetch * 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10000)
    parser.add_argument("--directives", type=int, default=50)
    parser.add_argument("--parameters", type=int, default=20)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [run(case, options) for case in CASES]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, peak {peak} MB"
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}))
        return
    print(f"{options.nodes} nodes x {options.directives} directives x {options.parameters} parameters; {machine}")
    for row in rows:
        print(
            f"{row['case']:<38} {row['nodes_per_s_per_core']:>7} nodes/s per core; prepare {row['prepare_s']} s;"
            f" all on {row['processes']} processes {row['all_s']} s; document {row['document_bytes']} B,"
            f" kept {row['kept_bytes_per_node']} B per node; assemble {row['assemble_us']} us"
        )


if __name__ == "__main__":
    main()
