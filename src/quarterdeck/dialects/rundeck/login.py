# SPDX-License-Identifier: Apache-2.0
"""Login with name and password, as servlets have it: a form, a cookie, and absolute redirects.

These pages stand beside the API. Every one that needs a login is reached again after it; the pages answer GET and
POST, because clients follow the redirect behind a POST with another POST.
"""

from __future__ import annotations

import html

from quarterdeck import __version__
from quarterdeck.core.errors import Forbidden
from quarterdeck.dialects.rundeck import body, links, parts
from quarterdeck.services import accounts, sessions
from quarterdeck.services.context import Context
from quarterdeck.web import sessions as cookies
from quarterdeck.web.operation import Answer, Request, Section
from quarterdeck.web.sessions import Before

section = Section("Login pages: below /, of no version")

_WRONG = "Invalid username and password."
#: Longer names are nobody's, and are kept in memory for a while.
_LONGEST_NAME = 255
#: Whoever logs in is still a stranger.
_MOST_BYTES = 64 * 1024
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
_HEADERS = (
    ("Content-Type", "text/html;charset=UTF-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
)
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Quarterdeck</title>
<style>body {{ font: 1em/1.5 sans-serif; max-width: 24em; margin: 4em auto }} label {{ display: block }}</style>
</head><body><h1>Quarterdeck</h1>{content}</body></html>
"""
_FORM = """{flash}<form action="/j_security_check" method="post">
<label>Username <input name="j_username" autocomplete="username" autofocus></label>
<label>Password <input name="j_password" type="password" autocomplete="current-password"></label>
<button>Log in</button></form>"""
_WELCOME = """<p>You are logged in as {name}.</p>
<p>This is Quarterdeck {version}; the API stands below <code>/api/1</code>.</p>
<form action="/user/logout" method="post"><button>Log out</button></form>"""


@section.operation("loginForm", "GET", "/user/login", right=None, since=1)
def login_form(ctx: Context, request: Request) -> Answer:
    """Show the form, or the start page to who is logged in."""
    if cookies.account(ctx, request) is not None:
        return redirect(ctx, request, "/menu/index")
    flash = f"<p><strong>{_WRONG}</strong></p>" if cookies.before(request).failed else ""
    return _page(_FORM.format(flash=flash))


@section.operation("login", "POST", "/j_security_check", right=None, since=1, long="login", max_body=_MOST_BYTES)
def login(ctx: Context, request: Request) -> Answer:
    """Begin a session and go where the client wanted to, or to the page for what went wrong."""
    _refuse_foreign(request)
    name = body.text(request, "j_username")[:_LONGEST_NAME]
    throttle = parts.of(request).throttle
    if (wait := throttle.wait(name, request.client)) > 0:
        return _too_many(wait)
    account = accounts.check_password(ctx, name, body.text(request, "j_password"))
    if account is None:
        throttle.failed(name, request.client)
        return redirect(ctx, request, "/user/error")
    throttle.succeeded(name, request.client)
    sessions.close_session(ctx, cookies.secret(request))
    secret = sessions.open_session(ctx, account)
    return redirect(ctx, request, cookies.before(request).path or "/", cookies.header(request, secret))


@section.operation("loginError", "GET", "/user/error", right=None, since=1)
def login_error(ctx: Context, request: Request) -> Answer:
    """End the session after a login that failed, and go back to the form."""
    _refuse_foreign(request)
    sessions.close_session(ctx, cookies.secret(request))
    failed = Before(cookies.before(request).path, failed=True)
    return redirect(ctx, request, "/menu/index", cookies.header(request, failed.value))


@section.operation("logout", "GET", "/user/logout", right=None, since=1, documented=False)
def logout(ctx: Context, request: Request) -> Answer:
    """End the session."""
    _refuse_foreign(request)
    sessions.close_session(ctx, cookies.secret(request))
    return redirect(ctx, request, "/menu/index", cookies.header(request, Before().value))


@section.operation("start", "GET", "/", right=None, since=1, documented=False)
def start(ctx: Context, request: Request) -> Answer:
    """Go to the start page."""
    if cookies.account(ctx, request) is None:
        return to_login(ctx, request)
    return redirect(ctx, request, "/menu/index")


@section.operation("startPage", "GET", "/menu/index", right=None, since=1, documented=False)
def start_page(ctx: Context, request: Request) -> Answer:
    """Say who is logged in."""
    account = cookies.account(ctx, request)
    if account is None:
        return to_login(ctx, request)
    return _page(_WELCOME.format(name=html.escape(account.name), version=__version__))


def to_login(ctx: Context, request: Request) -> Answer:
    """To the form, and back here afterwards."""
    known = cookies.before(request)
    # A login that failed comes by the start page; what was wanted before it stays.
    wanted = known.path if known.failed and known.path else request.target
    remembered = Before(wanted, known.failed)
    return redirect(ctx, request, "/user/login", cookies.header(request, remembered.value))


def redirect(ctx: Context, request: Request, path: str, *headers: tuple[str, str]) -> Answer:
    """302 to a local path, said with its whole address: clients of this API need that."""
    location = ("Location", links.base(request, ctx.site) + path)
    return Answer(status=302, headers=(location, ("Cache-Control", "no-store"), *headers))


def refusal(status: int, message: str) -> Answer:
    """What is said where no page can be shown."""
    return Answer(status=status, headers=_HEADERS, body=_html(f"<p>{html.escape(message)}</p>"))


def _refuse_foreign(request: Request) -> None:
    if cookies.is_foreign(request):
        raise Forbidden("A page of another site may not do this.")


def _too_many(wait: float) -> Answer:
    seconds = int(wait) + 1
    answer = refusal(429, f"Too many logins failed. Please try again in {seconds} seconds.")
    return Answer(status=429, headers=(*answer.headers, ("Retry-After", str(seconds))), body=answer.body)


def _page(content: str) -> Answer:
    return Answer(headers=_HEADERS, body=_html(content))


def _html(content: str) -> bytes:
    return _PAGE.format(content=content).encode()
