# SPDX-License-Identifier: Apache-2.0
"""Cases of the methods on packages, services, accounts and groups.

Package and service managers are scripts that keep their state in files of the scratch machine;
accounts are changed by the real useradd, usermod ... with that machine's directory as prefix.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.agent.methods.casebook import COMPLIANT, ERROR, NOT_APPLICABLE, REPAIRED, Case, Scratch

DPKG_QUERY = """
while read -r name version architecture state; do
  printf '%s\\t%s\\t%s\\tinstall ok %s\\n' "$name" "$architecture" "$version" "$state"
done < {root}/packages
"""
APT_GET = """
echo "$DEBIAN_FRONTEND $*" >> {root}/apt.log
for word; do last=$word; done
name=${last%%[:=]*}; version=${last#*=}; [ "$version" = "$last" ] && version=2.0
case " $* " in
*" update "*) echo new > {root}/lists; exit 0;;
*" remove "*) grep -v "^$name " {root}/packages > {root}/p; mv {root}/p {root}/packages; exit 0;;
*" install "*) [ "$name" = fresh ] && [ ! -e {root}/lists ] && { echo 404 >&2; exit 100; }
  [ "$name" = none ] && { echo "E: Unable to locate package none" >&2; exit 100; }
  grep -v "^$name " {root}/packages > {root}/p; mv {root}/p {root}/packages
  echo "$name $version amd64 installed" >> {root}/packages;;
*) exit 100;;
esac
"""
APT_CACHE = """
case "$*" in *"Dir::Cache::pkgcache= "*) ;; *) echo cache > {root}/pkgcache.bin;; esac
for word; do last=$word; done
[ "$last" = none ] || printf '%s:\\n  Installed: 1.0\\n  Candidate: 2.0\\n' "$last"
"""


def apt(*rows: str) -> Callable[[Scratch], object]:
    """A machine with apt and packages, each `name version architecture state`."""

    def prepare(scratch: Scratch) -> None:
        scratch.file("/packages", "".join(f"{row}\n" for row in rows))
        scratch.tool("dpkg-query", DPKG_QUERY)
        scratch.tool("apt-get", APT_GET)
        scratch.tool("apt-cache", APT_CACHE)

    return prepare


RPM = """
while read -r epoch name version release architecture; do
  [ "$name" = "$3" ] && found=1 && printf '%s\\t%s\\t%s\\t%s\\n' "$epoch" "$version" "$release" "$architecture"
done < {root}/packages
[ "$found" ] || { echo "package $3 is not installed"; exit 1; }
"""
#: dnf, yum and zypper alike: an operation and a package among options.
RPM_FRONT = """
echo "$0 $*" >> {root}/front.log
for word; do case $word in install|remove) verb=$word;; -*) ;; *) name=$word;; esac; done
case $verb in
install) case $name in *=*) version=${name#*=};; *-1-1) version=1-1;; *) version=2-1;; esac
  echo "(none) ${name%%[-=.]*} ${version%-*} ${version#*-} noarch" >> {root}/packages;;
remove) grep -v " $name " {root}/packages > {root}/p; mv {root}/p {root}/packages;;
*) exit 1;;
esac
"""


def rpm(front: str, *rows: str) -> Callable[[Scratch], object]:
    """A machine with rpm and one front end, and packages, each `epoch name version release architecture`."""

    def prepare(scratch: Scratch) -> None:
        scratch.file("/packages", "".join(f"{row}\n" for row in rows))
        scratch.tool("rpm", RPM)
        scratch.tool(front, RPM_FRONT)

    return prepare


APK = """
database={root}/lib/apk/db/installed
case $1 in
add) printf 'P:%s\\nV:%s\\nA:x86_64\\n\\n' "${2%%=*}" "${2#*=}" >> $database;;
del) : > $database;;
esac
"""


def apk(*names: str) -> Callable[[Scratch], object]:
    def prepare(scratch: Scratch) -> None:
        blocks = "".join(f"C:Q1x=\nP:{name}\nV:1.0-r0\nA:x86_64\nT:text: more\n\n" for name in names)
        scratch.file("/lib/apk/db/installed", blocks)
        scratch.tool("apk", APK)

    return prepare


def package(name: str = "htop", **more: str) -> dict[str, str]:
    return {"name": name, **more}


HTOP = "htop 1.0 amd64 installed"
GONE = "htop 1.0 amd64 config-files"

PACKAGES = [
    Case("package_present", package(), prepare=apt(), files={"/packages": "htop 2.0 amd64 installed\n"}),
    Case("package_present", package(), COMPLIANT, prepare=apt(HTOP), says="htop 1.0 is installed"),
    Case("package_present", package(version="any"), COMPLIANT, prepare=apt(HTOP)),
    Case("package_present", package(), prepare=apt(GONE)),
    Case(
        "package_present", package(version="3.0"), prepare=apt(HTOP), files={"/packages": "htop 3.0 amd64 installed\n"}
    ),
    Case("package_present", package(version="latest"), prepare=apt(HTOP), says="the latest, 2.0, is expected"),
    Case("package_present", package(architecture="amd64"), COMPLIANT, prepare=apt(HTOP)),
    Case("package_present", package("fresh"), prepare=apt(), files={"/lists": "new\n"}),
    Case("package_present", package("none"), then=ERROR, prepare=apt()),
    Case("package_present", package("--purge"), ERROR, prepare=apt(), says="not a package name"),
    Case("package_present", package("ht*"), ERROR, prepare=apt(), says="not a package name"),
    Case("package_present", package(provider="pkg"), ERROR, prepare=apt(), says="not supported"),
    Case("package_present", package(), ERROR, says="no package manager"),
    Case("package_present", package(), prepare=rpm("dnf")),
    Case("package_present", package(version="1-1"), prepare=rpm("yum")),
    Case("package_present", package(version="1"), COMPLIANT, prepare=rpm("dnf", "(none) htop 1 7 x86_64")),
    Case("package_present", package(version="2:1-7"), COMPLIANT, prepare=rpm("dnf", "2 htop 1 7 x86_64")),
    Case(
        "package_present",
        package(version="1-7", architecture="x86_64"),
        COMPLIANT,
        prepare=rpm("dnf", "0 htop 1 7 x86_64"),
    ),
    Case("package_present", package(version="latest"), NOT_APPLICABLE, prepare=rpm("dnf", "0 htop 1 7 x86_64")),
    Case("package_present", package(version="3-1", provider="zypper"), prepare=rpm("zypper")),
    Case("package_present", package(version="1.0-r0"), prepare=apk("vim")),
    Case("package_present", package(), COMPLIANT, prepare=apk("vim", "htop")),
    Case("package_absent", package(), prepare=apt(HTOP), files={"/packages": ""}),
    Case("package_absent", package(), COMPLIANT, prepare=apt()),
    Case("package_absent", package(), COMPLIANT, prepare=apt(GONE)),
    Case("package_absent", package(version="3.0"), COMPLIANT, prepare=apt(HTOP)),
    Case("package_absent", package(), prepare=rpm("zypper", "(none) htop 1 7 x86_64")),
    Case("package_absent", package(), prepare=apk("htop")),
    Case("package_absent", {"package_name": "htop"}, prepare=apt(HTOP)),
    Case("package_state", package(state="absent"), prepare=apt(HTOP)),
    Case("package_state", package(), prepare=apt()),
    Case("package_state", package(state="purged"), ERROR, prepare=apt(), says="present or absent"),
    Case(
        "package_state_options",
        package(options="--no-install-recommends -o 'A::B=c d'"),
        prepare=apt(),
        files={
            "/apt.log": "noninteractive -y -q -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
            " --no-install-recommends -o A::B=c d --allow-downgrades install htop\n"
        },
    ),
    Case("package_state_options", package(options="'"), ERROR, prepare=apt(), says="cannot be read"),
    Case("package_check_installed", package(), COMPLIANT, prepare=apt(HTOP)),
    Case("package_check_installed", package(), prepare=apt()),
    Case("package_install", package(), prepare=apt()),
    Case("package_install_version", package(package_version="3.0"), prepare=apt(HTOP)),
    Case("package_install_version", package(version="1.0"), COMPLIANT, prepare=apt(HTOP)),
    Case("package_remove", package(), prepare=apt(HTOP)),
    Case("package_verify", package(), prepare=apt()),
    Case("package_verify_version", package(version="1.0"), COMPLIANT, prepare=apt(HTOP)),
    Case("package_verify_version", package(version="2.0"), prepare=apt(HTOP), says="version 2.0 is expected"),
]

#: One file per unit: its active state, then its enabled state.
SYSTEMCTL = """
for word; do unit=$word; done
state={root}/units/$unit
[ "$1" = --no-ask-password ] && { shift; echo "$*" >> {root}/systemctl.log; }
[ -e "$state" ] && read -r active enabled < "$state"
case $1 in
show) [ "$active" ] && load=loaded || load=not-found
  case $2 in --property=LoadState) echo "LoadState=$load";; --property=ActiveState) echo "ActiveState=${active:-inactive}";; esac;;
is-enabled) echo "${enabled:-not-found}"; [ "$enabled" = enabled ] || [ "$enabled" = static ];;
*) [ "$active" ] || { echo "Unit $unit not found." >&2; exit 5; }
  case $1 in start|restart) active=active;; stop) active=inactive;; enable|disable) [ $enabled = static ] || enabled=${1}d;; esac
  echo "$active $enabled" > "$state";;
esac
"""


def systemd(state: str = "", unit: str = "x") -> Callable[[Scratch], object]:
    def prepare(scratch: Scratch) -> None:
        (scratch.root / "run/systemd/system").mkdir(parents=True)
        scratch.file("/units/other", "active enabled\n")
        if state:
            scratch.file(f"/units/{unit}", f"{state}\n")
        scratch.tool("systemctl", SYSTEMCTL)

    return prepare


#: A script of /etc/init.d, called through `service` or `rc-service`.
SCRIPT = """
case $2 in
status) [ -e {root}/running ] || exit 3;;
start) : > {root}/running;;
stop) rm {root}/running;;
esac
"""
UPDATE_RC = """
case $2 in
enable) mkdir -p {root}/etc/rc3.d; ln -sf ../init.d/$1 {root}/etc/rc3.d/S01$1;;
disable) rm -f {root}/etc/rc3.d/S??$1; ln -sf ../init.d/$1 {root}/etc/rc3.d/K01$1;;
esac
"""
RC_UPDATE = """
case $1 in
add) ln -s /etc/init.d/$2 {root}/etc/runlevels/$3/$2;;
--all) rm {root}/etc/runlevels/*/$3;;
esac
"""


def system_v(*, running: bool = False, enabled: bool = False) -> Callable[[Scratch], object]:
    def prepare(scratch: Scratch) -> None:
        scratch.file("/etc/init.d/x", "")
        scratch.tool("service", SCRIPT)
        scratch.tool("update-rc.d", UPDATE_RC)
        for there, name in ((running, "/running"), (enabled, "/etc/rc3.d/S01x")):
            if there:
                scratch.file(name)

    return prepare


def openrc(*, running: bool = False, enabled: bool = False) -> Callable[[Scratch], object]:
    def prepare(scratch: Scratch) -> None:
        scratch.file("/etc/init.d/x", "")
        scratch.file("/etc/runlevels/default/other", "")
        scratch.tool("rc-service", SCRIPT)
        scratch.tool("rc-update", RC_UPDATE)
        for there, name in ((running, "/running"), (enabled, "/etc/runlevels/default/x")):
            if there:
                scratch.file(name)

    return prepare


def process(*words: str, pid: int = 99999999) -> Callable[[Scratch], object]:
    """A process that runs, on a machine with a stopped service x (pids beyond any real one)."""

    def prepare(scratch: Scratch) -> None:
        systemd("inactive disabled")(scratch)
        scratch.file(f"/proc/{pid}/cmdline", "\0".join([*words, ""]))
        starting = "mkdir -p {root}/proc/88888888; printf '/opt/x\\0-d\\0' > {root}/proc/88888888/cmdline"
        scratch.tool("systemctl", f"case $2 in start) {starting};; show) echo LoadState=loaded;; esac")

    return prepare


X = {"name": "x"}
PATH_OF_X = {"name": "x", "path": "/opt/x"}

SERVICES = [
    Case("service_started", X, prepare=systemd("inactive enabled"), files={"/units/x": "active enabled\n"}),
    Case("service_started", X, COMPLIANT, prepare=systemd("active disabled")),
    Case("service_started", X, then=ERROR, prepare=systemd(), says="systemd knows no such service"),
    Case("service_started", {"name": "x; reboot"}, ERROR, prepare=systemd(), says="not the name of a service"),
    Case("service_started", {"name": "--all"}, ERROR, prepare=systemd()),
    Case("service_started", {"name": "x@1.service"}, prepare=systemd("inactive disabled", "x@1.service")),
    Case("service_started", X, ERROR, says="not run by a service manager"),
    Case("service_started", X, prepare=system_v()),
    Case("service_started", X, COMPLIANT, prepare=system_v(running=True)),
    Case("service_started", X, prepare=openrc()),
    Case("service_stopped", X, prepare=systemd("active enabled"), files={"/units/x": "inactive enabled\n"}),
    Case("service_stopped", X, COMPLIANT, prepare=systemd()),
    Case("service_stopped", X, prepare=system_v(running=True)),
    Case("service_stopped", X, prepare=openrc(running=True)),
    Case("service_enabled", X, prepare=systemd("active disabled"), files={"/units/x": "active enabled\n"}),
    Case("service_enabled", X, COMPLIANT, prepare=systemd("inactive static")),
    Case("service_enabled", X, prepare=system_v()),
    Case("service_enabled", X, prepare=openrc()),
    Case("service_disabled", X, prepare=systemd("active enabled"), files={"/units/x": "active disabled\n"}),
    Case("service_disabled", X, COMPLIANT, prepare=systemd("active static")),
    Case("service_disabled", X, COMPLIANT, prepare=systemd()),
    Case("service_disabled", X, prepare=system_v(enabled=True)),
    Case("service_disabled", X, prepare=openrc(enabled=True)),
    Case("service_check_running", X, COMPLIANT, prepare=systemd("active enabled")),
    Case("service_check_running", X, prepare=systemd("failed enabled")),
    Case("service_check_started_at_boot", X, COMPLIANT, prepare=systemd("inactive enabled")),
    Case("service_check_started_at_boot", X, prepare=openrc()),
    Case("service_check_disabled_at_boot", X, COMPLIANT, prepare=system_v()),
    Case("service_check_disabled_at_boot", X, prepare=systemd("active enabled")),
    Case("service_check_running_ps", {"name": r"/opt/x -[d]"}, COMPLIANT, prepare=process("/opt/x", "-d")),
    Case("service_check_running_ps", {"name": r"/opt/y"}, prepare=process("/opt/x", "-d")),
    Case("service_started_path", PATH_OF_X, COMPLIANT, prepare=process("/opt/x", "-d")),
    Case("service_started_path", PATH_OF_X, prepare=process("/opt/xy")),
    Case("service_action", {**X, "action": "try-restart"}, then=REPAIRED, prepare=systemd("active enabled")),
    Case("service_action", {**X, "action": "stop; reboot"}, then=ERROR, prepare=systemd("active enabled")),
    Case(
        "service_restart",
        X,
        then=REPAIRED,
        prepare=systemd("failed enabled"),
        files={"/units/x": "active enabled\n", "/systemctl.log": "restart -- x\n"},
    ),
    Case("service_restart", X, then=ERROR, prepare=systemd()),
    Case("service_reload", X, then=REPAIRED, prepare=systemd("active enabled")),
    Case("service_start", X, then=REPAIRED, prepare=system_v(), files={"/running": ""}),
    Case("service_stop", X, then=REPAIRED, prepare=openrc(running=True), files={"/running": None}),
    Case("service_restart_if", {**X, "expression": "any"}, then=REPAIRED, prepare=systemd("failed enabled")),
    Case("service_restart_if", {**X, "expression": "no_such"}, then=COMPLIANT, prepare=systemd("failed enabled")),
]

TOOLS = ("useradd", "userdel", "usermod", "groupadd", "groupdel")


def accounts(scratch: Scratch) -> None:
    scratch.file("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nann:x:2000:2000:Ann:/home/ann:/bin/sh\n")
    scratch.file("/etc/shadow", "root:*:19000:0:99999:7:::\nann:$6$old:19000:0:99999:7:::\n", 0o640)
    scratch.file("/etc/group", "root:x:0:\nann:x:2000:\nweb:x:2001:ann\nops:x:2002:\n")
    scratch.file("/etc/gshadow", "root:*::\nann:!::\nweb:!::ann\nops:!::\n", 0o640)
    scratch.file("/etc/login.defs", "UID_MIN 1000\nGID_MIN 1000\nUSERGROUPS_ENAB yes\n")
    scratch.real_tool(*(f"/usr/sbin/{name}" for name in TOOLS))


def locked(scratch: Scratch) -> None:
    accounts(scratch)
    scratch.file("/etc/shadow", "root:*:19000:0:99999:7:::\nann:!$6$old:19000:0:99999:7:::\n", 0o640)


def ann(**more: str) -> dict[str, str]:
    return {"login": "ann", **more}


def bob(**more: str) -> dict[str, str]:
    return {"login": "bob", **more}


COMPLETE = bob(description="Bob B", home="/home/bob", group="ops", shell="/bin/bash", locked="true")

ACCOUNTS = [
    Case("user_present", bob(), prepare=accounts, says="no local account bob"),
    Case("user_present", ann(), COMPLIANT, prepare=accounts),
    Case("user_present", {"login": "-x"}, ERROR, prepare=accounts, says="not the name"),
    Case("user_present", bob(), ERROR, says="/etc/passwd does not exist"),
    Case("user_create", COMPLETE, prepare=accounts),
    Case("user_absent", ann(), prepare=accounts),
    Case("user_absent", bob(), COMPLIANT, prepare=accounts),
    Case("user_fullname", ann(fullname="Ann B. C"), prepare=accounts),
    Case("user_fullname", ann(fullname="Ann"), COMPLIANT, prepare=accounts),
    Case("user_fullname", ann(fullname="a:b"), ERROR, prepare=accounts),
    Case("user_home", ann(home="/srv/ann"), prepare=accounts, says="is /home/ann; /srv/ann is expected"),
    Case("user_home", bob(home="/srv/bob"), then=ERROR, prepare=accounts),
    Case("user_shell", ann(shell="/bin/bash"), prepare=accounts),
    Case("user_uid", ann(uid="2100"), prepare=accounts),
    Case("user_uid", ann(uid="0"), then=ERROR, prepare=accounts),
    # Some versions of usermod look this one option's group up outside the prefix: every Linux has root.
    Case("user_primary_group", ann(primary_group="root"), prepare=accounts),
    Case("user_primary_group", ann(primary_group="2000"), COMPLIANT, prepare=accounts),
    Case("user_group", ann(group_name="ops"), prepare=accounts),
    Case("user_group", ann(group_name="none"), then=ERROR, prepare=accounts),
    Case("user_secondary_groups", ann(groups="ops, web"), prepare=accounts, says="not in ops"),
    Case("user_secondary_groups", ann(groups="ops", force="true"), prepare=accounts),
    Case("user_secondary_groups", ann(groups="ann"), COMPLIANT, prepare=accounts),
    Case("user_secondary_groups", ann(groups="web", force="true"), COMPLIANT, prepare=accounts),
    Case("user_locked", ann(), prepare=accounts),
    Case("user_locked", ann(), COMPLIANT, prepare=locked),
    Case("user_password_hash", ann(password="$6$new"), prepare=accounts),
    Case("user_password_hash", ann(password="$6$old"), COMPLIANT, prepare=accounts),
    Case("user_password_hash", bob(password="$6$old"), then=ERROR, prepare=accounts),
    Case("user_password_hash", ann(password="a:b"), ERROR, prepare=accounts),
    Case("group_present", {"name": "dev"}, prepare=accounts),
    Case("group_present", {"group": "ops"}, COMPLIANT, prepare=accounts),
    Case("group_absent", {"name": "ops"}, prepare=accounts),
    Case("group_absent", {"name": "ann"}, then=ERROR, prepare=accounts),
]

CASES = [*PACKAGES, *SERVICES, *ACCOUNTS]
