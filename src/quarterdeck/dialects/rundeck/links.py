# SPDX-License-Identifier: Apache-2.0
"""The address under which a client reached this server: what it is told to go to must stand below it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from quarterdeck.core.sites import Site
from quarterdeck.web.operation import Request

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def base(request: Request, site: Site) -> str:
    """The public address, or the one in the request where that is another; no slash at its end."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host) or host.lower() == urlsplit(site.base_url).netloc.lower():
        return site.base_url.rstrip("/")
    return f"{request.scheme}://{host}"
