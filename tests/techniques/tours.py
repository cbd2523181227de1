# SPDX-License-Identifier: Apache-2.0
"""What each shipped technique is asked to do on a scratch machine, and what must have come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.agent.methods.casebook import Scratch
from tests.agent.methods.system_cases import accounts, apt, systemd

Values = Mapping[str, tuple[str, ...]]


@dataclass
class Tour:
    """Parameters of a directive, a machine that differs from them, and the machine that follows."""

    technique: str
    #: {work} and {root} stand for directories of the scratch machine.
    values: Values
    prepare: Callable[[Scratch], object]
    #: Files afterwards, as in `Scratch.read`; None: absent.
    files: dict[str, str | None] = field(default_factory=dict)
    #: Modes afterwards.
    modes: dict[str, int] = field(default_factory=dict)
    #: Components that the first enforcement repairs.
    repaired: tuple[str, ...] = ()
    #: True: it only looks, so that enforcement finds what the audit found.
    only_looks: bool = False


def files(**contents: str) -> Callable[[Scratch], object]:
    """A machine with these files below its work directory; `__` in a name is a dot."""

    def prepare(scratch: Scratch) -> None:
        for name, content in contents.items():
            scratch.file(name.replace("__", "."), content)

    return prepare


def everything(*parts: Callable[[Scratch], object]) -> Callable[[Scratch], object]:
    """One machine prepared by all of these."""

    def prepare(scratch: Scratch) -> None:
        for part in parts:
            part(scratch)

    return prepare


def swappiness(scratch: Scratch) -> None:
    scratch.file("/proc/sys/vm/swappiness", "60\n")
    scratch.file("/proc/sys/net/core/somaxconn", "4096\n")


def sshd(scratch: Scratch) -> None:
    scratch.file("sshd_config", "#Port 22\nPermitRootLogin yes\nUsePAM yes\n")
    systemd("active enabled", "ssh")(scratch)


TOURS = [
    Tour(
        "packageManagement",
        {
            "PACKAGE_LIST": ("htop", "telnet", "nginx", "vim"),
            "PACKAGE_STATE": ("present", "absent", "present", "present"),
            "PACKAGE_VERSION": ("any", "any", "specific", "latest"),
            "PACKAGE_VERSION_SPECIFIC": ("", "", "1.5", ""),
            "PACKAGE_POST_HOOK_COMMAND": ("echo installed > {work}/hook",),
        },
        everything(apt("telnet 0.1 amd64 installed", "nginx 1.0 amd64 installed", "vim 1.0 amd64 installed")),
        files={
            "/packages": "htop 2.0 amd64 installed\nnginx 1.5 amd64 installed\nvim 2.0 amd64 installed\n",
            "hook": "installed\n",
        },
        repaired=("Package", "Package", "Package", "Package", "Command after a change"),
    ),
    Tour(
        "servicesManagement",
        {
            "SERVICE_NAME": ("x", "other"),
            "SERVICE_RUNNING": ("started", "stopped"),
            "SERVICE_BOOT": ("enabled", "disabled"),
        },
        systemd("inactive disabled"),
        files={"/units/x": "active enabled\n", "/units/other": "inactive disabled\n"},
        repaired=("Starts at boot", "Running", "Does not start at boot", "Stopped"),
    ),
    Tour(
        "checkGenericFileContent",
        {
            "GENERIC_FILE_CONTENT_PATH": ("{work}/app.conf",),
            "GENERIC_FILE_CONTENT_PAYLOAD": ("a=1\nb=2",),
            "GENERIC_FILE_CONTENT_PERMISSIONS": ("600",),
            "GENERIC_FILE_CONTENT_POST_HOOK_COMMAND": ("echo reloaded > {work}/hook",),
        },
        files(app__conf="a=0\n"),
        files={"app.conf": "a=1\nb=2\n", "hook": "reloaded\n"},
        modes={"app.conf": 0o600},
        repaired=("Content", "Permissions", "Command after a change"),
    ),
    Tour(
        "checkGenericFileContent",
        {
            "GENERIC_FILE_CONTENT_PATH": ("{work}/hosts",),
            "GENERIC_FILE_CONTENT_PART": ("lines",),
            "GENERIC_FILE_CONTENT_PAYLOAD": ("10.0.0.1 db",),
        },
        files(hosts="127.0.0.1 localhost\n"),
        files={"hosts": "127.0.0.1 localhost\n10.0.0.1 db\n"},
        repaired=("Lines",),
    ),
    Tour(
        "checkGenericFileContent",
        {
            "GENERIC_FILE_CONTENT_PATH": ("{work}/rc",),
            "GENERIC_FILE_CONTENT_PART": ("section",),
            "GENERIC_FILE_CONTENT_PAYLOAD": ("new",),
            "GENERIC_FILE_CONTENT_SECTION_START": ("# begin",),
            "GENERIC_FILE_CONTENT_SECTION_END": ("# end",),
            "GENERIC_FILE_CONTENT_POST_HOOK_COMMAND": ("echo section > {work}/hook",),
        },
        files(rc="before\n# begin\nold\n# end\nafter\n"),
        files={"rc": "before\n# begin\nnew\n# end\nafter\n", "hook": "section\n"},
        repaired=("Section", "Command after a change"),
    ),
    Tour(
        "copyLocalFile",
        {
            "COPYFILE_SOURCE": ("{work}/original", "{work}/tree"),
            "COPYFILE_DESTINATION": ("{work}/copy", "{work}/tree2"),
            "COPYFILE_PERM": ("640", ""),
            "COPYFILE_POST_HOOK_COMMAND": ("", "echo copied > {work}/hook"),
        },
        everything(files(original="text\n"), lambda scratch: scratch.file("tree/deep/leaf", "leaf\n")),
        files={"copy": "text\n", "tree2/deep/leaf": "leaf\n", "hook": "copied\n"},
        modes={"copy": 0o640},
        repaired=("Content", "Permissions", "Content", "Command after a change"),
    ),
    Tour(
        "filesPermissions",
        {
            "FILEPERMISSIONS_PATH": ("{work}/one", "{work}/tree"),
            "FILEPERMISSIONS_OWNER": ("root", "root"),
            "FILEPERMISSIONS_MODE": ("600", "755"),
            "FILEPERMISSIONS_RECURSIVE": ("false", "true"),
        },
        everything(files(one=""), lambda scratch: scratch.file("tree/leaf", "")),
        modes={"one": 0o600, "tree": 0o755, "tree/leaf": 0o755},
        repaired=("Permissions", "Permissions, recursively"),
    ),
    Tour(
        "userManagement",
        {
            "USERGROUP_USER_LOGIN": ("bob", "ann", "gone"),
            "USERGROUP_USER_ACTION": ("add", "lock", "remove"),
            "USERGROUP_USER_NAME": ("Bob B", "", ""),
            "USERGROUP_USER_UID": ("2100", "", ""),
            "USERGROUP_USER_SECONDARY_GROUPS": ("web, ops", "", ""),
            "USERGROUP_USER_SHELL": ("/usr/sbin/nologin", "", ""),
            "USERGROUP_USER_HOME": ("{work}/home", "", ""),
            "USERGROUP_USER_HOME_CREATE": ("false",),
            "USERGROUP_USER_PASSWORD": ("sha512-crypt:$6$salt$hash", "", ""),
        },
        accounts,
        repaired=("Account", "Numeric id", "Full name", "Further groups", "Shell", "Home", "Password", "Locked"),
    ),
    Tour(
        "groupManagement",
        {
            "USERGROUP_GROUP_NAME": ("dev", "ops"),
            "USERGROUP_GROUP_ACTION": ("add", "remove"),
            "USERGROUP_MEMBER_LOGIN": ("ann",),
            "USERGROUP_MEMBER_GROUP": ("dev",),
        },
        accounts,
        repaired=("Group", "Group absent", "Membership"),
    ),
    Tour(
        "sshConfiguration",
        {
            "SSH_CONFIGURATION_PATH": ("{work}/sshd_config",),
            "SSH_PORT": ("2222",),
            "SSH_PERMIT_ROOT_LOGIN": ("no",),
            "SSH_PASSWORD_AUTHENTICATION": ("no",),
            "SSH_CHECK_COMMAND": ("grep -q '^Port 2222$' {work}/sshd_config",),
            "SSH_OPTION_KEYWORD": ("ClientAliveInterval", "MaxSessions"),
            "SSH_OPTION_VALUE": ("300", "4"),
        },
        sshd,
        files={
            "sshd_config": "#Port 22\nPermitRootLogin no\nUsePAM yes\nPort 2222\nPasswordAuthentication no\n"
            "ClientAliveInterval 300\nMaxSessions 4\n",
            "/systemctl.log": "reload -- ssh\n",
        },
        repaired=("Port", "Login as root", "Login with a password", "Setting", "Setting", "Reload of the server"),
    ),
    Tour(
        "sudoParameters",
        {
            "SUDO_PATH": ("{work}/sudoers",),
            "SUDO_CHECK_COMMAND": ("grep -q ALL",),
            "SUDO_NAME": ("ann", "ops"),
            "SUDO_TYPE": ("user", "group"),
            "SUDO_NOPASSWD": ("true", "false"),
            "SUDO_COMMANDS": ("/usr/bin/id, /usr/bin/true", "ALL"),
        },
        files(sudoers="# kept\n"),
        files={
            "sudoers": "# kept\nann ALL=(root) NOPASSWD: /usr/bin/id, /usr/bin/true\n%ops ALL=(root) ALL\n",
        },
        modes={"sudoers": 0o440},
        repaired=("Right", "Right", "Permissions"),
    ),
    Tour(
        "timeSynchronization",
        {
            "NTP_CONFIGURATION_PATH": ("{work}/timesyncd.conf",),
            "NTP_SERVERS": ("ntp1.example.com ntp2.example.com",),
            "NTP_FALLBACK_SERVERS": ("pool.ntp.org",),
            "NTP_SERVICE": ("x",),
            "NTP_TIMEZONE": ("Europe/Paris",),
            "NTP_LOCALTIME_PATH": ("{work}/localtime",),
        },
        everything(systemd("inactive disabled"), files(timesyncd__conf="[Time]\n#NTP=\n")),
        files={
            "timesyncd.conf": "[Time]\n#NTP=\nNTP=ntp1.example.com ntp2.example.com\nFallbackNTP=pool.ntp.org\n",
            "/units/x": "active enabled\n",
        },
        repaired=(
            "Time servers",
            "Further time servers",
            "Service starts at boot",
            "Service runs",
            "Restart after a change",
            "Time zone",
        ),
    ),
    Tour(
        "cronManagement",
        {
            "CRON_DIRECTORY": ("{work}/cron.d",),
            "CRON_NAME": ("nightly", "old"),
            "CRON_ACTION": ("add", "remove"),
            "CRON_SCHEDULE": ("17 3 * * *", "@daily"),
            "CRON_COMMAND": ("/usr/bin/true", ""),
        },
        everything(
            lambda scratch: scratch.file("cron.d/old", "@daily root x\n"),
            lambda scratch: scratch.file("cron.d/nightly", "1 1 * * * root x\n", 0o600),
        ),
        files={"cron.d/nightly": "17 3 * * * root /usr/bin/true\n", "cron.d/old": None},
        modes={"cron.d/nightly": 0o644},
        repaired=("Job", "Permissions", "Job absent"),
    ),
    Tour(
        "sysctlManagement",
        {
            "SYSCTL_FILE": ("50-test",),
            "SYSCTL_KEY": ("vm.swappiness", "net.core.somaxconn"),
            "SYSCTL_VALUE": ("10", "1024"),
            "SYSCTL_BOUND": ("default", "min"),
        },
        swappiness,
        files={
            "/proc/sys/vm/swappiness": "10\n",
            "/proc/sys/net/core/somaxconn": "4096\n",
            "/etc/sysctl.d/50-test.conf": "vm.swappiness = 10\nnet.core.somaxconn = 4096\n",
        },
        repaired=("Kernel parameter", "Kernel parameter"),
    ),
    Tour(
        "motdConfiguration",
        {
            "MOTD_TEXT": ("Welcome\nto ${rudder.node.hostname}",),
            "MOTD_PATH": ("{work}/motd",),
            "MOTD_ISSUE_NET_TEXT": ("Authorised use only",),
            "MOTD_ISSUE_NET_PATH": ("{work}/issue.net",),
        },
        files(motd="hello\n"),
        files={"motd": "Welcome\nto scratch.example.com\n", "issue.net": "Authorised use only\n"},
        repaired=("Message after the login", "Message before a login over the network"),
    ),
    Tour(
        "auditFromCommand",
        {
            "AUDIT_NAME": ("Fine", "Different", "Wrong"),
            "AUDIT_COMMAND": ("true", "exit 3", "test -e {work}/absent"),
            "AUDIT_COMPLIANT_CODES": ("0", "2, 3", "0"),
        },
        files(),
        only_looks=True,
    ),
    Tour(
        "fileManagement",
        {
            "FILE_MANAGEMENT_PATH": ("{work}/f", "{work}/d", "{work}/l", "{work}/gone", "{work}/tree"),
            "FILE_MANAGEMENT_TYPE": ("file", "directory", "symlink", "file", "directory"),
            "FILE_MANAGEMENT_ACTION": ("present", "present", "present", "absent", "absent"),
            "FILE_MANAGEMENT_TARGET": ("", "", "{work}/f", "", ""),
            "FILE_MANAGEMENT_WITH_CONTENT": ("false", "false", "false", "false", "true"),
            "FILE_MANAGEMENT_MODE": ("640", "750", "", "", ""),
        },
        everything(files(gone="x"), lambda scratch: scratch.file("tree/leaf", "")),
        files={"f": "", "l": "", "gone": None, "tree": None},
        modes={"f": 0o640, "d": 0o750},
        repaired=(
            "File",
            "Permissions",
            "Directory",
            "Permissions",
            "Symbolic link",
            "File absent",
            "Directory absent",
        ),
    ),
    Tour(
        "manageKeyValueFile",
        {
            "KEY_VALUE_PATH": ("{work}/app.ini",),
            "KEY_VALUE_KEY": ("a", "b"),
            "KEY_VALUE_VALUE": ("1", "2"),
            "KEY_VALUE_POST_HOOK_COMMAND": ("echo changed > {work}/hook",),
        },
        files(app__ini="a=0\nc=3\n"),
        files={"app.ini": "a=1\nc=3\nb=2\n", "hook": "changed\n"},
        repaired=("Key", "Key", "Command after a change"),
    ),
]
