# SPDX-License-Identifier: Apache-2.0
"""XML that comes from outside, read safely, and XML text that is written.

A DOCTYPE is accepted and never fetched; entities of the document's own are refused, as they can grow without bound.
"""

from __future__ import annotations

import re

from lxml import etree

from quarterdeck.core.errors import Invalid, TooLarge

MAX_BYTES = 16 * 1024 * 1024
#: What XML 1.0 cannot hold, not even escaped.
_IMPOSSIBLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse(data: bytes) -> etree._Element:
    """The root of a document without its comments. Raises Invalid, whose message says the line; TooLarge."""
    if len(data) > MAX_BYTES:
        raise TooLarge(f"A document has at most {MAX_BYTES} bytes.")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise Invalid(error.msg or str(error)) from error
    except ValueError as error:
        raise Invalid(str(error)) from error
    if root is None:
        raise Invalid("The document is empty.")
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and declared.entities():  # type: ignore[union-attr]  # the stubs lack it
        raise Invalid("A document may not declare entities.")
    for problem in parser.error_log:
        # Behind a DOCTYPE it is a warning only, and the entity would be left out silently.
        if "ENTITY" in problem.type_name:
            raise Invalid(f"line {problem.line}: {problem.message}")
    return root


def possible(text: str) -> str:
    """The text with what XML cannot hold replaced by U+FFFD."""
    return _IMPOSSIBLE.sub("\ufffd", text)


def written(root: etree._Element) -> bytes:
    """The document in UTF-8 with an XML declaration, indented by two blanks."""
    etree.indent(root, space="  ")
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True, pretty_print=True)
