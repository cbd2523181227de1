# SPDX-License-Identifier: Apache-2.0
"""The tables, but for those of projects, jobs and executions (`runbook_tables.py`). Rows become core objects in the
file named for the noun, nowhere else.

Text that is ordered or compared as an identifier collates "C", so that every database sorts alike.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_name)s_idx",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

Id = Text(collation="C")
Time = DateTime(timezone=True)


def _categories(name: str) -> Table:
    """A tree of folders, for one kind of thing."""
    return Table(
        name,
        metadata,
        Column("id", Id, primary_key=True),
        Column("name", Text, nullable=False),
        Column("description", Text, nullable=False),
        Column("parent", Id, nullable=False),
        Column("system", Boolean, nullable=False),
    )


# -- who asks -----------------------------------------------------------------

accounts = Table(
    "accounts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Id, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("access", Text),
    Column("roles", ARRAY(Text), nullable=False),
    Column("enabled", Boolean, nullable=False),
    #: SHA-256 of the token, for kind "token"
    Column("token_digest", LargeBinary, unique=True),
    #: Argon2, for kind "user"
    Column("password_hash", Text),
    Column("created_at", Time, nullable=False),
    Column("expires_at", Time),
)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    #: Nodes that present it are accepted at once.
    Column("accept", Boolean, nullable=False),
    Column("uses_left", Integer),
    Column("created_at", Time, nullable=False),
    Column("expires_at", Time),
)

#: Requests of agents already seen, for as long as their time is acceptable.
agent_nonces = Table(
    "agent_nonces",
    metadata,
    Column("node_id", Id, primary_key=True),
    Column("nonce", Id, primary_key=True),
    Column("seen_at", Time, nullable=False, index=True),
    prefixes=["UNLOGGED"],
)

# -- the audit trail ------------------------------------------------------------

history = Table(
    "history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", Time, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    #: rule, directive, group, technique, parameter, setting, node, account, rule_category, group_category ...
    Column("kind", Id, nullable=False),
    Column("object_id", Id, nullable=False),
    #: created | modified | deleted
    Column("change", Text, nullable=False),
    #: the state after the change; null after deletion. Before = the row of the same object before this one.
    Column("after", JSONB),
    Index("history_object_idx", "kind", "object_id", "id"),
)

# -- configuration ----------------------------------------------------------------

settings = Table("settings", metadata, Column("key", Id, primary_key=True), Column("value", JSONB, nullable=False))

parameters = Table(
    "parameters",
    metadata,
    Column("name", Id, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("description", Text, nullable=False),
    Column("inherit_mode", Text),
    Column("provider", Text),
)

techniques = Table(
    "techniques",
    metadata,
    Column("id", Id, primary_key=True),
    Column("version", Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("system", Boolean, nullable=False),
    #: the technique's YAML (formats/technique_yaml.py)
    Column("document", Text, nullable=False),
)

#: What files of techniques have in them, each content once.
resource_contents = Table(
    "resource_contents",
    metadata,
    #: SHA-256, hex
    Column("digest", Id, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

#: The files that come with techniques; not nodes of projects, which are in `resources`.
technique_resources = Table(
    "technique_resources",
    metadata,
    Column("technique", Id, primary_key=True),
    Column("version", Id, primary_key=True),
    Column("path", Id, primary_key=True),
    Column("digest", Id, ForeignKey("resource_contents.digest"), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    ForeignKeyConstraint(["technique", "version"], ["techniques.id", "techniques.version"], ondelete="CASCADE"),
)

directives = Table(
    "directives",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Id, nullable=False, unique=True),
    Column("technique", Id, nullable=False),
    Column("version", Id, nullable=False),
    Column("short_description", Text, nullable=False),
    Column("long_description", Text, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("system", Boolean, nullable=False),
    Column("mode", Text),
    Column("tags", JSONB, nullable=False),
    Index("directives_technique_idx", "technique", "version"),
)

rule_categories = _categories("rule_categories")

rules = Table(
    "rules",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Id, nullable=False, unique=True),
    Column("category", Id, nullable=False),
    Column("short_description", Text, nullable=False),
    Column("long_description", Text, nullable=False),
    Column("directives", ARRAY(Text), nullable=False),
    Column("targets", JSONB, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("system", Boolean, nullable=False),
    Column("tags", JSONB, nullable=False),
)

group_categories = _categories("group_categories")

groups = Table(
    "groups",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Id, nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("category", Id, nullable=False),
    Column("query", JSONB),
    Column("dynamic", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("system", Boolean, nullable=False),
    Column("properties", JSONB, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", Id, ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True, index=True),
)

# -- nodes --------------------------------------------------------------------------

#: Never the same twice, also when a deleted node comes back: what was made of an older row is known to be stale.
node_versions = Sequence("node_versions", metadata=metadata)
node_version = Column("version", BigInteger, nullable=False, server_default=node_versions.next_value())

nodes = Table(
    "nodes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("hostname", Id, nullable=False, index=True),
    Column("status", Id, nullable=False, index=True),
    Column("state", Id, nullable=False),
    Column("kind", Id, nullable=False),
    Column("mode", Text),
    Column("description", Text, nullable=False),
    Column("documentation", Text, nullable=False),
    Column("policy_server", Id, nullable=False),
    Column("properties", JSONB, nullable=False),
    Column("key_pem", Text, nullable=False),
    Column("key_status", Text, nullable=False),
    Column("schedule", JSONB),
    Column("agent", Text, nullable=False),
    Column("agent_version", Text, nullable=False),
    Column("agent_capabilities", ARRAY(Text), nullable=False),
    Column("os_type", Text, nullable=False),
    Column("os_name", Text, nullable=False),
    Column("os_version", Text, nullable=False),
    Column("os_full_name", Text, nullable=False),
    Column("os_kernel_version", Text, nullable=False),
    Column("os_service_pack", Text, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("ram", BigInteger),
    Column("swap", BigInteger),
    Column("machine_id", Text, nullable=False),
    Column("machine_type", Text, nullable=False),
    Column("machine_provider", Text, nullable=False),
    Column("machine_manufacturer", Text, nullable=False),
    Column("machine_serial_number", Text, nullable=False),
    Column("timezone_name", Text, nullable=False),
    Column("timezone_offset", Text, nullable=False),
    Column("ip_addresses", ARRAY(Text), nullable=False),
    Column("accounts", ARRAY(Text), nullable=False),
    Column("environment", JSONB, nullable=False),
    #: the inventory's named lists, except software
    Column("lists", JSONB, nullable=False),
    Column("inventory_date", Time),
    Column("accepted_at", Time),
    #: SHA-256 of the last inventory's content, to tell an unchanged one
    Column("inventory_digest", Text, nullable=False, server_default=text("''")),
    node_version,
    Index(
        "nodes_properties_idx", "properties", postgresql_using="gin", postgresql_ops={"properties": "jsonb_path_ops"}
    ),
)

software = Table(
    "software",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Id, nullable=False),
    Column("version", Id, nullable=False),
    #: editor, description, releaseDate, license: what the inventory said first
    Column("details", JSONB, nullable=False),
    UniqueConstraint("name", "version"),
)

node_software = Table(
    "node_software",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("software_id", BigInteger, ForeignKey("software.id"), primary_key=True),
    # Who has this software is read from the index alone.
    Index("node_software_software_id_idx", "software_id", "node_id"),
)

#: Content-addressed inventories, one per node and day of change.
inventories = Table(
    "inventories",
    metadata,
    Column("node_id", Id, primary_key=True),
    Column("day", Id, primary_key=True),
    Column("digest", Id, nullable=False),
    Column("received_at", Time, nullable=False),
    #: the parcel as it came, signature included
    Column("document", LargeBinary, nullable=False),
)

#: What changes at every run, narrow on purpose.
node_status = Table(
    "node_status",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("last_run", Time),
    Column("last_run_config_id", Text, nullable=False, server_default=text("''")),
    #: stands for the node where there are very many rows
    Column("number", Integer, Identity(always=True), nullable=False, unique=True),
    #: of the run's reports, as in `run_bodies`
    Column("last_run_digest", LargeBinary),
    #: after this moment the node's compliance is to be decided again: its run expires, or a new policy's time is up
    Column("valid_until", Time),
    Column("last_contact", Time),
    postgresql_with={"fillfactor": "70"},
)

# -- policies -----------------------------------------------------------------------

#: One directive as expanded for one or many nodes: canonical JSON, content-addressed.
policy_fragments = Table(
    "policy_fragments",
    metadata,
    Column("digest", Id, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    #: digests of resource_contents that it names: who has it in their policy may fetch them
    Column("resources", ARRAY(Id), nullable=False, server_default=text("'{}'")),
)

#: What nodes of the same groups, rules and mode share of a policy, content-addressed.
policy_outlines = Table(
    "policy_outlines",
    metadata,
    Column("digest", Id, primary_key=True),
    #: digests of policy_fragments, in order
    Column("fragments", ARRAY(Id), nullable=False),
    #: the rules that apply and the groups that the nodes are in: whom a change of one concerns
    Column("rules", ARRAY(Id), nullable=False),
    Column("groups", ARRAY(Id), nullable=False),
    #: [[rule, directive, overriding rule, overriding directive] ...]
    Column("overridden", JSONB, nullable=False),
)

node_policies = Table(
    "node_policies",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("config_id", Id, nullable=False),
    #: of what the agent receives
    Column("digest", Id, nullable=False),
    Column("outline", Id, nullable=False),
    #: the document without its policies, canonical JSON
    Column("head", LargeBinary, nullable=False),
    #: what fills the holes of the fragments, canonical JSON
    Column("hole_values", LargeBinary, nullable=False),
    Column("begin_at", Time, nullable=False),
    #: made when the node first fetches the document
    Column("signature", LargeBinary),
)

#: Nodes that the last generation could not serve, and why.
generation_errors = Table(
    "generation_errors",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("message", Text, nullable=False),
    Column("at", Time, nullable=False),
)

generations = Table(
    "generations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("requested_at", Time, nullable=False),
    Column("started_at", Time),
    Column("ended_at", Time),
    #: asked | running | done | failed
    Column("state", Text, nullable=False),
    Column("manual", Boolean, nullable=False),
    #: what changed, {kind: [id ...]}; null: compute every node
    Column("concerns", JSONB),
    #: give every node a new configuration id, also where nothing changed
    Column("afresh", Boolean, nullable=False, server_default=text("false")),
    Column("nodes_total", Integer),
    Column("nodes_changed", Integer),
    Column("message", Text, nullable=False, server_default=text("''")),
)

# -- reports and compliance -----------------------------------------------------------

#: What runs reported, without times, content-addressed (half a SHA-256): equal runs share one.
run_bodies = Table(
    "run_bodies", metadata, Column("digest", LargeBinary, primary_key=True), Column("body", LargeBinary, nullable=False)
)

#: One row per run, as narrow as can be; partitioned by day. Fixed widths first: they need no padding so.
runs = Table(
    "runs",
    metadata,
    Column("start", Time, nullable=False),
    #: `number` of the node's row in `node_status`
    Column("node", Integer, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("config_id", Id, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    PrimaryKeyConstraint("node", "start"),
    postgresql_partition_by="RANGE (start)",
)

#: Signed originals: of changed runs, and the latest of each node.
raw_runs = Table(
    "raw_runs",
    metadata,
    Column("node_id", Id, primary_key=True),
    Column("start", Time, primary_key=True),
    #: False: kept only as long as it is the latest
    Column("changed", Boolean, nullable=False),
    Column("parcel", LargeBinary, nullable=False),
)

#: What each node's last run reported; `since` is when it began to report so.
report_states = Table(
    "report_states",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    #: digest of all that identifies the report: the columns up to `ordinal`, some of which are too long for an index
    Column("key", LargeBinary, primary_key=True),
    Column("rule_id", Id, nullable=False),
    Column("directive_id", Id, nullable=False),
    Column("component", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("report_id", Text, nullable=False),
    Column("ordinal", Integer, nullable=False),
    #: index into the agent's REPORT_STATUSES
    Column("status", SmallInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("since", Time, nullable=False),
)

#: Counters of nodes, content-addressed: in a fleet in order most nodes share a few.
compliance_counters = Table(
    "compliance_counters",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    #: [[rule, directive, counts per status, values when silent, digest of what is expected] ...]
    Column("counters", JSONB, nullable=False),
    #: counts per status over all of them
    Column("totals", ARRAY(Integer), nullable=False),
    #: how many values there are to miss when the node is silent
    Column("silent", Integer, nullable=False),
)

#: When it has to be decided again stands in `node_status`, which changes at every run anyway.
node_compliance = Table(
    "node_compliance",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True),
    Column("config_id", Id, nullable=False),
    Column("state", Text, nullable=False),
    Column("status_since", Time, nullable=False),
    #: digest in `compliance_counters`
    Column("counters", LargeBinary, nullable=False),
    Column("computed_at", Time, nullable=False, server_default=func.now()),
)

# -- who is logged in ---------------------------------------------------------------------

sessions = Table(
    "sessions",
    metadata,
    #: SHA-256 of what the cookie holds
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Time, nullable=False),
    Column("seen_at", Time, nullable=False),
    Column("expires_at", Time, nullable=False, index=True),
)

#: Encrypted with the server's secret key; who may read them is the services' business.
secrets = Table(
    "secrets",
    metadata,
    Column("name", Id, primary_key=True),
    Column("description", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
)
