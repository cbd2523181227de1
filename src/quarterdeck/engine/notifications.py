# SPDX-License-Identifier: Apache-2.0
"""Deliveries of notifications: one attempt a task, over HTTP or SMTP, with no transaction open meanwhile.

    prepare (unit of work) ─> post or mail ─> delivered | undelivered, and the next task (unit of work)

Webhooks are called at the address that was looked up and found allowed, so that a name cannot mean another one a
moment later; redirections are not followed, and proxies of the environment are not used, for the same reason.
"""

from __future__ import annotations

import asyncio
import logging
import smtplib
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

from quarterdeck.core import notifications as policy
from quarterdeck.core.notifications import Mail
from quarterdeck.formats import notifications as documents
from quarterdeck.services import notifications
from quarterdeck.services.context import Context
from quarterdeck.services.notifications import Outgoing

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)
# It tells the addresses of all requests, and those of webhooks often hold what lets one in.
logging.getLogger("httpx").setLevel(logging.WARNING)

#: How long a request, or one answer of a mail server, may take.
SECONDS = 15.0

UnitsOfWork = Callable[[], AbstractContextManager[Context]]


class Refused(Exception):
    """The delivery can never be made."""


class Undelivered(Exception):
    """The attempt failed; another one may go well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A webhook's request. `confined`: to addresses that need no leave only."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    confined: bool = True


#: Each returns what the other side said, and raises Refused or Undelivered.
Post = Callable[[Request], str]
Send = Callable[[Mail, EmailMessage], str]


def post(request: Request) -> str:
    """Make a webhook's request; any answer from 200 to 300 is fine. Raises Refused, Undelivered."""
    return asyncio.run(_post(request))


async def _post(request: Request) -> str:
    import httpx  # deferred, as below: most workers never call anybody

    try:
        # The client's own limits are for each wait; this one is for all together.
        async with asyncio.timeout(SECONDS):
            return await _answer(request)
    except TimeoutError:
        raise Undelivered(f"There was no answer within {SECONDS:.0f} seconds.") from None
    except (httpx.HTTPError, OSError) as error:
        raise Undelivered(f"{type(error).__name__}: {error}") from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Refused(f"The address is none: {error}") from error


async def _answer(request: Request) -> str:
    import httpx

    url = httpx.URL(request.url)
    # System certificates: an operator adds those of a private authority there.
    context = ssl.create_default_context()
    async with httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=SECONDS) as client:
        addresses = await _addresses(url, confined=request.confined)
        for last, address in enumerate(addresses, 1 - len(addresses)):
            asked = client.build_request(
                "POST",
                url.copy_with(host=address),
                headers={"User-Agent": "Quarterdeck", **request.headers, "Host": url.netloc.decode("ascii")},
                content=request.body,
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                answer = await client.send(asked, stream=True)  # nobody reads the answer's body
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if not last:
                    raise
                continue
            await answer.aclose()
            return _judged(answer)
    raise Undelivered(f"The host '{url.host}' has no address.")


def _judged(answer: httpx.Response) -> str:
    told = f"The answer was {answer.status_code} {answer.reason_phrase}".rstrip() + "."
    if not 200 <= answer.status_code <= 300:
        raise Undelivered(told)
    return told


async def _addresses(url: httpx.URL, *, confined: bool) -> list[str]:
    """The addresses of the URL's host, all of which may be called. Raises Refused."""
    port = url.port if url.port is not None else 443 if url.scheme == "https" else 80
    if url.scheme not in ("http", "https") or not url.host or not 0 < port < 65536:
        raise Refused("The address is no proper one of http or https.")
    found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=1)  # 1 is SOCK_STREAM
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    for address in addresses:
        if confined and not policy.is_public(address):
            raise Refused(
                f"The host '{url.host}' has the address {address}, which webhooks may call only when the setting "
                "webhooks.allowed says so."
            )
    return addresses


def send(mail: Mail, message: EmailMessage) -> str:
    """Hand a message to the mail server. Raises Undelivered."""
    try:
        with _connected(mail) as server:
            if mail.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if mail.user:
                server.login(mail.user, mail.password)
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise Undelivered(f"The mail server {mail.host}: {type(error).__name__}: {_told(error)}") from error
    return f"The mail server {mail.host} took it."


def _connected(mail: Mail) -> smtplib.SMTP:
    if mail.security == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(mail.host, mail.real_port, timeout=SECONDS, context=context)
    return smtplib.SMTP(mail.host, mail.real_port, timeout=SECONDS)


def _told(error: Exception) -> str:
    """What a mail server said, without the quotes of Python."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{code} {text.decode(errors='replace')}" for code, text in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        return f"{error.smtp_code} {said.decode(errors='replace') if isinstance(said, bytes) else said}"
    return str(error)


# -- the task ---------------------------------------------------------------------------------


def run(units: UnitsOfWork, payload: Any, *, post: Post = post, send: Send = send) -> None:
    """Make one attempt of a delivery."""
    delivery_id = payload["delivery"]
    with units() as ctx:
        outgoing = notifications.prepare(ctx, delivery_id)
        sent_at = ctx.now
    if outgoing is None:
        return
    try:
        if outgoing.delivery.kind == "email":
            message = documents.mail(outgoing.message, outgoing.target, outgoing.mail.sender, sent_at)
            told = send(outgoing.mail, message)
        else:
            told = post(_request(outgoing))
    except (Refused, Undelivered) as error:
        log.warning("delivery %d of execution %d: %s", delivery_id, outgoing.delivery.execution_id, error)
        with units() as ctx:
            notifications.undelivered(ctx, delivery_id, str(error), final=isinstance(error, Refused))
        return
    with units() as ctx:
        notifications.delivered(ctx, delivery_id, told)


def _request(outgoing: Outgoing) -> Request:
    return Request(
        url=outgoing.target,
        headers=documents.webhook_headers(outgoing.message),
        body=documents.webhook_body(outgoing.message),
        confined=outgoing.confined,
    )
