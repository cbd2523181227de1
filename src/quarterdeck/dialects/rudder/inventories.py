# SPDX-License-Identifier: Apache-2.0
"""Inventories chapter: upload of an inventory with its signature, and the watcher of the drop directory.

An uploaded inventory is read while the client waits, so that a refused one is an error and not a line in a log.
"""

from __future__ import annotations

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.dialects.rudder import envelope, parts
from quarterdeck.dialects.rudder.parts import Watcher
from quarterdeck.services import inventory_files
from quarterdeck.services.context import Context
from quarterdeck.web import forms
from quarterdeck.web.operation import Answer, Part, Reply, Request, Section

section = Section("Inventories", {"style": "old"})

#: What the peer says of a queue without bound.
_QUEUE_MAX_SIZE = 2**31 - 1


@section.operation("queueInformation", "GET", "/inventories/info", right="inventory.read", since=12)
def queue_information(ctx: Context, request: Request) -> Answer:
    """Tell whether inventories are accepted now; the peer answers this with status 429, whatever it says."""
    # Nothing queues here: who sends an inventory waits until it is read.
    details = {"queueMaxSize": _QUEUE_MAX_SIZE, "queueSaturated": False}
    return envelope.error(429, request, action="queueInformation", details=details)


@section.operation("uploadInventory", "POST", "/inventories/upload", right="inventory.write", since=12, long=True)
def upload_inventory(ctx: Context, request: Request) -> Reply:
    """Take an inventory and its signature, plain or compressed."""
    sent = {part.name: part for part in forms.parts(request)} if request.content_type == forms.MULTIPART else {}
    file, signature = _part(sent, "file"), _part(sent, "signature")
    inventory_files.receive(ctx, file.content, signature.content)
    return Reply(f"Inventory '{file.filename or 'inventory'}' added to processing queue.")


def _part(sent: dict[str, Part], name: str) -> Part:
    if name not in sent:
        raise Invalid("Unexpected: Missing uploaded file with parameter name 'file' or 'signature'")
    return sent[name]


@section.operation("fileWatcherStart", "POST", "/inventories/watcher/start", right="inventory.write", since=12)
def file_watcher_start(ctx: Context, request: Request) -> Reply:
    """Begin to read inventories from the drop directory."""
    _watcher(request).start()
    return Reply("Incoming inventory watcher started")


@section.operation("fileWatcherStop", "POST", "/inventories/watcher/stop", right="inventory.write", since=12)
def file_watcher_stop(ctx: Context, request: Request) -> Reply:
    """Leave the drop directory alone until it is started again."""
    _watcher(request).stop()
    return Reply("Incoming inventory watcher stopped")


@section.operation("fileWatcherRestart", "POST", "/inventories/watcher/restart", right="inventory.write", since=12)
def file_watcher_restart(ctx: Context, request: Request) -> Reply:
    """Stop the watcher and start it again."""
    watcher = _watcher(request)
    watcher.stop()
    watcher.start()
    # The peer's slip of the pen; clients may compare.
    return Reply("Incoming inventory watcher restarted", action="frileWatcherRestart")


def _watcher(request: Request) -> Watcher:
    watcher = parts.of(request).watcher
    if watcher is None:
        raise Unavailable("This server watches no directory for inventories.")
    return watcher
