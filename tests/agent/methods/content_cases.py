# SPDX-License-Identifier: Apache-2.0
"""Cases of the methods on copies, downloads, templates, kernel parameters, modules and environment."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from tests.agent.methods.casebook import COMPLIANT, DRIFT, ERROR, NOT_APPLICABLE, REPAIRED, Case, Scratch

F = "{work}/f"
#: A node may have it or not; without it the methods say so.
JINJA2 = importlib.util.find_spec("jinja2") is not None
COPY = {"source": "{work}/s", "path": F}


def files(**contents: str | bytes) -> Callable[[Scratch], object]:
    """Files below work; `__` in a name stands for a slash."""
    return lambda scratch: [scratch.file(name.replace("__", "/"), content) for name, content in contents.items()]


def source_tree(scratch: Scratch) -> None:
    files(s__a="1", s__d__b="2", f__a="0", f__other="x")(scratch)
    (scratch.work / "s/l").symlink_to("a")


COPIES = [
    Case("file_from_local_source", COPY, prepare=files(s=b"\0a\r\n"), files={"f": "\0a\r\n"}),
    Case("file_from_local_source", COPY, prepare=files(s="a", f="b"), files={"f": "a"}),
    Case("file_from_local_source", COPY, COMPLIANT, prepare=files(s="a", f="a")),
    Case("file_from_local_source", COPY, ERROR, says="does not exist"),
    Case("file_from_local_source", {**COPY, "path": "{work}/s/x"}, ERROR, prepare=source_tree, says="inside its own"),
    Case("file_from_local_source", COPY, ERROR, prepare=files(s="a", f__x="b"), says="not a regular file"),
    Case(
        "file_copy_from_local_source", {"source": "{work}/s", "destination": F}, prepare=files(s="a"), files={"f": "a"}
    ),
    Case(
        "file_from_local_source_recursion",
        {**COPY, "recursion": "inf"},
        prepare=source_tree,
        files={"f/a": "1", "f/d/b": "2", "f/l": "1", "f/other": "x"},
    ),
    Case(
        "file_from_local_source_recursion",
        {**COPY, "recursion": "1"},
        prepare=source_tree,
        files={"f/a": "1", "f/d/b": None},
    ),
    Case("file_from_local_source_recursion", {**COPY, "recursion": "deep"}, ERROR, prepare=source_tree),
    Case(
        "file_from_local_source_with_check",
        {**COPY, "check_command": "/bin/grep -q a"},
        prepare=files(s="a", f="b"),
        files={"f": "a"},
    ),
    Case(
        "file_from_local_source_with_check",
        {**COPY, "check_command": "/bin/grep -q c"},
        then=ERROR,
        prepare=files(s="a", f="b"),
        files={"f": "b"},
    ),
    Case(
        "file_from_local_source_with_check",
        {**COPY, "check_command": "/bin/grep -q c", "rc_ok": "0,1"},
        prepare=files(s="a", f="b"),
        files={"f": "a"},
    ),
]


class _Answers(BaseHTTPRequestHandler):
    """/code/NNN answers that status; everything else 200 with the request's method and body."""

    seen: ClassVar[list[str]] = []

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(int(self.path.rsplit("/", 1)[-1]) if self.path.startswith("/code/") else 200)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(f"{self.command} {self.headers.get('X-Word', '-')} ".encode() + body)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815  # names given by http.server

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # name given by http.server
        pass


def web(scratch: Scratch) -> None:
    """A web server on loopback; {url} is its root."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    scratch.closing.callback(server.server_close)
    scratch.closing.callback(thread.join)
    scratch.closing.callback(server.shutdown)
    scratch.words["url"] = f"http://127.0.0.1:{server.server_port}"


def status(method: str, code: str, headers: str = "") -> dict[str, str]:
    return {"method": method, "url": "{url}/code/404", "expected_status": code, "headers": headers}


def request(url: str, headers: str = "") -> dict[str, str]:
    return {"method": "POST", "url": url, "content": "x=1", "headers": headers}


HTTP = [
    Case("http_request_check_status_headers", status("GET", "404"), COMPLIANT, prepare=web),
    Case("http_request_check_status_headers", status("head", "200"), prepare=web, says="answered 404"),
    Case("http_request_check_status_headers", status("POST", "200"), NOT_APPLICABLE, prepare=web),
    Case("http_request_check_status_headers", status("GET", "200", "nonsense"), ERROR, prepare=web),
    Case(
        "http_request_check_status_headers",
        {"method": "GET", "url": "file:///etc/passwd", "expected_status": "200"},
        ERROR,
    ),
    Case("http_request_content_headers", request("{url}/", "X-Word: yes"), then=REPAIRED, prepare=web),
    Case("http_request_content_headers", request("{url}/code/500"), then=ERROR, prepare=web),
    Case("file_from_http_server", {"source": "{url}/x", "path": F}, prepare=web, files={"f": "GET - "}),
    Case("file_from_http_server", {"source": "{url}/code/404", "path": F}, then=ERROR, prepare=web, files={"f": None}),
    Case("file_from_http_server", {"source": "{url}/x", "path": F}, COMPLIANT, prepare=files(f="mine")),
]


def templated(template: str, **variables: object) -> Callable[[Scratch], object]:
    def prepare(scratch: Scratch) -> None:
        scratch.file("t", template)
        scratch.facts.variables.update({f"p.{name}": value for name, value in variables.items()})
        scratch.facts.conditions.add("debian")

    return prepare


TEMPLATE = {"source_template": "{work}/t", "path": F}
TEXT = "{{#classes.debian}}\nA {{{vars.p.x}}}\n{{/classes.debian}}\n{{#vars.p.l}}{{.}},{{/vars.p.l}}\n"

TEMPLATES = [
    Case(
        "file_from_template_mustache",
        TEMPLATE,
        prepare=templated(TEXT, x="<1>", l=[1, 2]),
        files={"f": "A <1>\n1,2,\n"},
    ),
    Case("file_from_template_mustache", TEMPLATE, ERROR, says="does not exist"),
    Case("file_from_template_mustache", TEMPLATE, ERROR, prepare=templated("{{#a}}"), says="never closed"),
    Case(
        "file_from_string_mustache",
        {"template": "x={{vars.p.x}}", "path": F},
        prepare=templated("", x="&"),
        files={"f": "x=&amp;"},
    ),
    Case(
        "file_from_template_type",
        {**TEMPLATE, "template_type": "mustache"},
        prepare=templated("{{^classes.suse}}no{{/classes.suse}}"),
        files={"f": "no"},
    ),
    Case(
        "file_from_template_jinja2",
        TEMPLATE,
        DRIFT if JINJA2 else ERROR,
        prepare=templated("{{ vars.p.x }}{% if classmatch('deb.*') %}!{% endif %}\n", x="<1>"),
        files={"f": "<1>!\n" if JINJA2 else None},
        says="" if JINJA2 else "no jinja2 module",
    ),
    Case(
        "file_from_template_jinja2",
        TEMPLATE,
        ERROR,
        prepare=templated("{{ vars.p.none }}"),
        says="has no attribute" if JINJA2 else "jinja2",
    ),
    Case("file_from_template_type", {**TEMPLATE, "template_type": "perl"}, ERROR, prepare=templated("")),
]


def sysctl(live: str, kept: str | None = None) -> Callable[[Scratch], object]:
    def prepare(scratch: Scratch) -> None:
        scratch.file("/proc/sys/net/ipv4/ip_forward", live)
        if kept is not None:
            scratch.file("/etc/sysctl.d/q.conf", kept)

    return prepare


def forward(value: str, option: str = "") -> dict[str, str]:
    return {"key": "net.ipv4.ip_forward", "value": value, "filename": "q", "option": option}


LIVE, KEPT = "/proc/sys/net/ipv4/ip_forward", "/etc/sysctl.d/q.conf"

SYSCTL = [
    Case("sysctl_value", forward("1"), prepare=sysctl("0\n"), files={LIVE: "1\n", KEPT: "net.ipv4.ip_forward = 1\n"}),
    Case("sysctl_value", forward("1"), COMPLIANT, prepare=sysctl("1\n", "net.ipv4.ip_forward=1\n")),
    Case("sysctl_value", forward("1"), prepare=sysctl("1\n", "a = 1\n"), says="does not keep it"),
    Case("sysctl_value", forward("1 2"), COMPLIANT, prepare=sysctl("1\t2\n", "net.ipv4.ip_forward = 1 2\n")),
    Case("sysctl_value", forward("5", "min"), prepare=sysctl("7\n"), files={LIVE: "7\n"}, says="does not keep it"),
    Case("sysctl_value", forward("5", "max"), prepare=sysctl("7\n"), files={LIVE: "5\n"}),
    Case("sysctl_value", forward("many", "max"), ERROR, prepare=sysctl("7\n"), says="needs numbers"),
    Case("sysctl_value", forward("1"), ERROR, says="No such file"),
    Case("sysctl_value", {**forward("1"), "key": "a/../../../etc/passwd"}, ERROR, says="not the name"),
    Case("sysctl_value", {**forward("1"), "filename": "../q"}, ERROR, prepare=sysctl("1\n"), says="without a path"),
]

MODPROBE = """
if [ "$1" = --remove ]; then grep -v "^$3 " {root}/proc/modules > {root}/m; mv {root}/m {root}/proc/modules
elif [ "$2" = bad ]; then echo "Module bad not found" >&2; exit 1
else echo "$2 1 0" | tr - _ >> {root}/proc/modules; fi
"""


def modules(listed: str) -> Callable[[Scratch], object]:
    def prepare(scratch: Scratch) -> None:
        scratch.file("/proc/modules", listed)
        scratch.tool("modprobe", MODPROBE)

    return prepare


def environment(content: str) -> Callable[[Scratch], object]:
    return lambda scratch: scratch.file("/etc/environment", content)


def setting(value: str) -> dict[str, str]:
    return {"name": "A", "value": value}


AT_BOOT, CONFIGURED = "/etc/modules-load.d/nf-x.conf", "/etc/modprobe.d/nf-x.conf"

KERNEL = [
    Case(
        "kernel_module_loaded",
        {"name": "nf-x"},
        prepare=modules("a 1 0\n"),
        files={"/proc/modules": "a 1 0\nnf_x 1 0\n"},
    ),
    Case("kernel_module_loaded", {"name": "nf-x"}, COMPLIANT, prepare=modules("nf_x 1 0\n")),
    Case("kernel_module_loaded", {"name": "bad"}, then=ERROR, prepare=modules("")),
    Case("kernel_module_loaded", {"name": "--all"}, then=ERROR, prepare=lambda scratch: scratch.file("/proc/modules")),
    Case(
        "kernel_module_not_loaded", {"name": "a"}, prepare=modules("a 1 0\nb 1 0\n"), files={"/proc/modules": "b 1 0\n"}
    ),
    Case("kernel_module_loaded", {"name": "a"}, ERROR, says="no loadable modules"),
    Case(
        "kernel_module_loaded", {"name": "a"}, COMPLIANT, prepare=lambda scratch: scratch.file("/sys/module/a/refcnt")
    ),
    Case("kernel_module_not_loaded", {"name": "a"}, COMPLIANT, prepare=modules("ab 1 0\n")),
    Case("kernel_module_enabled_at_boot", {"name": "nf-x"}, files={AT_BOOT: "nf-x\n"}),
    Case("kernel_module_enabled_at_boot", {"name": "../x"}, ERROR, says="not the name"),
    Case(
        "kernel_module_configuration",
        {"name": "nf-x", "configuration": "options nf-x  a=1"},
        files={CONFIGURED: "options nf-x a=1\n"},
    ),
    Case("kernel_module_configuration", {"name": "x", "configuration": "rm -rf"}, ERROR, says="must begin"),
    Case("environment_variable_present", setting("b"), files={"/etc/environment": "A=b\n"}),
    Case("environment_variable_present", setting("b"), COMPLIANT, prepare=environment('A="b"\n')),
    Case(
        "environment_variable_present",
        setting("b c"),
        prepare=environment("AA=1\nA=x\nexport A=y"),
        files={"/etc/environment": 'AA=1\nA="b c"\n'},
    ),
    Case("environment_variable_present", {"name": "A B", "value": "1"}, ERROR, says="not the name"),
]

#: Keeps its tree in a file of `path = value` lines; reads its arguments as one line, like the real one.
AUGTOOL = r"""
tree={root}/tree
[ $# -gt 2 ] || { sed -n 's/^set //p' >> $tree; echo "Saved 1 file(s)"; exit; }
while :; do case $1 in --root|--transform|--load-file) shift 2;; --*) shift;; *) break;; esac; done
eval "set -- $*"
case $1 in
get) grep "^$2 = " $tree || { grep -qx "$2" $tree && echo "$2 (none)" || echo "$2 (o)"; };;
set) grep -v "^$2" $tree > $tree.new; printf '%s = %s\n' "$2" "$3" >> $tree.new; mv $tree.new $tree;;
esac
"""


def augeas(tree: str) -> Callable[[Scratch], object]:
    def prepare(scratch: Scratch) -> None:
        scratch.file("/tree", tree)
        scratch.file("/etc/hosts")
        scratch.tool("augtool", AUGTOOL)

    return prepare


NODE = "/files/etc/hosts/1/canonical"
VARIABLE = {"prefix": "p", "name": "x", "path": NODE}
COMMANDS = {"variable_prefix": "p", "variable_name": "x", "commands": f"set {NODE} = a\nsave"}

AUGEAS = [
    Case(
        "file_augeas_set",
        {"path": NODE, "value": 'a "b\\', "lens": "Hosts.lns", "file": "/etc/hosts"},
        prepare=augeas(f"{NODE} = x\n"),
        files={"/tree": f'{NODE} = a "b\\\n'},
    ),
    Case("file_augeas_set", {"path": NODE, "value": "a"}, prepare=augeas(""), says="does not exist; a is expected"),
    Case("file_augeas_set", {"path": NODE, "value": "a"}, COMPLIANT, prepare=augeas(f"{NODE} = a\n")),
    Case("file_augeas_set", {"path": NODE, "value": "a\nb"}, then=ERROR, prepare=augeas("")),
    Case("file_augeas_set", {"path": NODE, "value": "a", "lens": "Hosts"}, ERROR, prepare=augeas("")),
    Case("file_augeas_set", {"path": NODE, "value": "a"}, ERROR, says="no augtool program"),
    Case("file_augeas_commands", COMMANDS, then=REPAIRED, prepare=augeas(""), files={"/tree": f"{NODE} = a\n"}),
    Case("variable_string_from_augeas", VARIABLE, COMPLIANT, prepare=augeas(f"{NODE} = a\n"), variables={"p.x": "a"}),
    Case("variable_string_from_augeas", VARIABLE, COMPLIANT, prepare=augeas(f"{NODE}\n"), variables={"p.x": ""}),
    Case("variable_string_from_augeas", VARIABLE, ERROR, prepare=augeas(""), says="does not exist"),
]

CASES = [*AUGEAS, *COPIES, *HTTP, *TEMPLATES, *SYSCTL, *KERNEL]
