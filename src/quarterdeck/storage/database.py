# SPDX-License-Identifier: Apache-2.0
"""The database and the unit of work.

A `Store` is one unit of work: it takes a connection at its first statement and gives everything back
at `commit` or `rollback`. Only `web/runner.py` and `engine/tasks.py` commit. Repositories hang on it,
one per noun; driver exceptions become ours here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import Connection, CursorResult, Engine, Executable, Row

from quarterdeck.core.errors import AlreadyExists, Conflict, Unavailable
from quarterdeck.storage import driver
from quarterdeck.storage.accounts import AccountTable
from quarterdeck.storage.activities import ActivityTable
from quarterdeck.storage.agent_requests import AgentRequestTable
from quarterdeck.storage.categories import GroupCategoryTable, RuleCategoryTable
from quarterdeck.storage.compliance import ComplianceTable
from quarterdeck.storage.directives import DirectiveTable
from quarterdeck.storage.enrolment import EnrolmentTokenTable
from quarterdeck.storage.executions import ExecutionTable
from quarterdeck.storage.fleet import FleetReader
from quarterdeck.storage.generations import GenerationTable
from quarterdeck.storage.groups import GroupTable
from quarterdeck.storage.history import HistoryTable
from quarterdeck.storage.host_keys import HostKeyTable
from quarterdeck.storage.inventories import InventoryTable
from quarterdeck.storage.jobs import JobTable
from quarterdeck.storage.logs import LogTable
from quarterdeck.storage.memberships import MembershipTable
from quarterdeck.storage.nodes import NodeTable
from quarterdeck.storage.notifications import NotificationTable
from quarterdeck.storage.parameters import ParameterTable
from quarterdeck.storage.policies import PolicyTable
from quarterdeck.storage.projects import ProjectTable
from quarterdeck.storage.relays import KnownKeys, RelayTable
from quarterdeck.storage.reports import ReportTable
from quarterdeck.storage.resources import ResourceTable
from quarterdeck.storage.rules import RuleTable
from quarterdeck.storage.sealing import Sealer
from quarterdeck.storage.secrets import SecretTable
from quarterdeck.storage.sessions import SessionTable
from quarterdeck.storage.settings import SettingsTable
from quarterdeck.storage.technique_resources import TechniqueResourceTable
from quarterdeck.storage.techniques import TechniqueTable
from quarterdeck.storage.workers import WorkerTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who changes something, why, and in which request: stands in every history row."""

    actor: str
    reason: str = ""
    request_id: str = ""


class Database:
    """An engine with a bounded pool. `url` is a PostgreSQL URL; `pool_size` connections at most.

    Without `secret_key` nothing that is sealed can be read or written.
    """

    def __init__(self, url: str, *, pool_size: int = 16, secret_key: bytes | None = None) -> None:
        self.url = url
        self.sealer = Sealer(secret_key)
        self._known_keys = KnownKeys()
        self.engine: Engine = sqlalchemy.create_engine(
            _with_driver(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=False,
            hide_parameters=True,  # errors are logged, and what is written may be secret
            json_serializer=lambda value: msgspec.json.encode(value).decode(),
            json_deserializer=msgspec.json.decode,
            connect_args=driver.NETWORK,
        )

    @contextmanager
    def unit_of_work(self, by: Provenance) -> Iterator[Store]:
        """A store that is rolled back at the end unless somebody committed it."""
        store = Store(self.engine, by, self.sealer, self._known_keys)
        try:
            yield store
        finally:
            store.rollback()

    def close(self) -> None:
        """Give all connections back to the operating system."""
        self.engine.dispose()


class Store:
    """One unit of work; see the module."""

    def __init__(self, engine: Engine, by: Provenance, sealer: Sealer, known_keys: KnownKeys | None = None) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self.by = by
        self.sealer = sealer
        self.known_keys = known_keys or KnownKeys()

    @property
    def connection(self) -> Connection:
        """The connection of this unit of work, taken at first use. Raises Unavailable."""
        if self._connection is None:
            with translated():
                self._connection = self._engine.connect()
        return self._connection

    def run(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Execute one statement. Raises AlreadyExists, Conflict or Unavailable in place of driver errors."""
        with translated():
            return self.connection.execute(statement, parameters)

    def rows(self, statement: Executable) -> Sequence[Row[Any]]:
        """All rows of a query."""
        return self.run(statement).all()

    def commit(self) -> None:
        """Make everything durable and give the connection back."""
        if self._connection is not None:
            with translated():
                self._connection.commit()
            self._release()

    def rollback(self) -> None:
        """Forget what was not committed and give the connection back."""
        if self._connection is not None:
            self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except sqlalchemy.exc.DBAPIError:
            # It was lost beneath SQLAlchemy, which tried to roll it back: the server has done that by itself.
            if not connection.closed:
                connection.invalidate()
                connection.close()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is done inside is undone when it raises; the unit of work goes on without it."""
        with translated(), self.connection.begin_nested():
            yield

    @cached_property
    def now(self) -> datetime:
        """The time of this unit of work: equal in everything it writes."""
        return datetime.now(UTC)

    @cached_property
    def accounts(self) -> AccountTable:
        return AccountTable(self)

    @cached_property
    def enrolment_tokens(self) -> EnrolmentTokenTable:
        return EnrolmentTokenTable(self)

    @cached_property
    def agent_requests(self) -> AgentRequestTable:
        return AgentRequestTable(self)

    @cached_property
    def inventories(self) -> InventoryTable:
        return InventoryTable(self)

    @cached_property
    def reports(self) -> ReportTable:
        return ReportTable(self)

    @cached_property
    def compliance(self) -> ComplianceTable:
        return ComplianceTable(self)

    @cached_property
    def history(self) -> HistoryTable:
        return HistoryTable(self)

    @cached_property
    def settings(self) -> SettingsTable:
        return SettingsTable(self)

    @cached_property
    def parameters(self) -> ParameterTable:
        return ParameterTable(self)

    @cached_property
    def techniques(self) -> TechniqueTable:
        return TechniqueTable(self)

    @cached_property
    def directives(self) -> DirectiveTable:
        return DirectiveTable(self)

    @cached_property
    def rules(self) -> RuleTable:
        return RuleTable(self)

    @cached_property
    def rule_categories(self) -> RuleCategoryTable:
        return RuleCategoryTable(self)

    @cached_property
    def groups(self) -> GroupTable:
        return GroupTable(self)

    @cached_property
    def group_categories(self) -> GroupCategoryTable:
        return GroupCategoryTable(self)

    @cached_property
    def nodes(self) -> NodeTable:
        return NodeTable(self)

    @cached_property
    def memberships(self) -> MembershipTable:
        return MembershipTable(self)

    @cached_property
    def fleet(self) -> FleetReader:
        return FleetReader(self)

    @cached_property
    def policies(self) -> PolicyTable:
        return PolicyTable(self)

    @cached_property
    def generations(self) -> GenerationTable:
        return GenerationTable(self)

    @cached_property
    def activities(self) -> ActivityTable:
        return ActivityTable(self)

    @cached_property
    def executions(self) -> ExecutionTable:
        return ExecutionTable(self)

    @cached_property
    def host_keys(self) -> HostKeyTable:
        return HostKeyTable(self)

    @cached_property
    def jobs(self) -> JobTable:
        return JobTable(self)

    @cached_property
    def notifications(self) -> NotificationTable:
        return NotificationTable(self)

    @cached_property
    def projects(self) -> ProjectTable:
        return ProjectTable(self)

    @cached_property
    def relays(self) -> RelayTable:
        return RelayTable(self)

    @cached_property
    def resources(self) -> ResourceTable:
        return ResourceTable(self)

    @cached_property
    def secrets(self) -> SecretTable:
        return SecretTable(self)

    @cached_property
    def sessions(self) -> SessionTable:
        return SessionTable(self)

    @cached_property
    def technique_resources(self) -> TechniqueResourceTable:
        return TechniqueResourceTable(self)

    @cached_property
    def workers(self) -> WorkerTable:
        return WorkerTable(self)

    @cached_property
    def logs(self) -> LogTable:
        return LogTable(self)


@contextmanager
def translated() -> Iterator[None]:
    """Driver errors leave as ours."""
    try:
        yield
    except sqlalchemy.exc.IntegrityError as error:
        raise _integrity(error) from error
    except sqlalchemy.exc.DataError as error:
        raise driver.unfit(error.orig) from error
    except UnicodeError as error:
        raise driver.unfit(error) from error
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError) as error:
        if getattr(error.orig, "sqlstate", None) in ("40001", "40P01"):
            message = "Somebody else changed the same thing at the same time; please try again."
            raise Conflict(message, detail=str(error)) from error
        raise Unavailable("The database does not answer.", detail=str(error)) from error
    except sqlalchemy.exc.TimeoutError as error:
        raise Unavailable("All database connections are busy.", detail=str(error)) from error


def _integrity(error: sqlalchemy.exc.IntegrityError) -> AlreadyExists | Conflict:
    diagnostics = getattr(error.orig, "diag", None)
    detail = getattr(diagnostics, "message_detail", "") or ""
    if getattr(error.orig, "sqlstate", "") == "23505":
        table = getattr(diagnostics, "table_name", "") or "object"
        return AlreadyExists(f"One of these {table} exists already: {detail}", detail=str(error))
    return Conflict(f"Something else depends on it: {detail}", detail=str(error))


def _with_driver(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in ("postgres", "postgresql") else url
