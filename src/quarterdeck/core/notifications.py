# SPDX-License-Identifier: Apache-2.0
"""Notifications: who hears of an execution's end, in which way, and how the delivery stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Trigger = Literal["success", "failure"]
NotificationState = Literal["waiting", "delivered", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one target: an email address or a webhook's URL. `message` is what the last attempt met."""

    id: int
    execution_id: int
    trigger: Trigger
    kind: Literal["email", "webhook"]
    target: str
    state: NotificationState
    attempts: int
    message: str
    updated: datetime
