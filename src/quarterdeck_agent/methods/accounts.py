# SPDX-License-Identifier: Apache-2.0
"""Methods on local accounts and groups. Where they are kept and who changes them: account_files.py."""

from __future__ import annotations

from typing import Callable, List

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import account_files, trees
from quarterdeck_agent.methods.account_files import User
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall


def _there(call: MethodCall) -> Finding:
    if account_files.user(call["login"]):
        return outcome.compliant(f"The account {call['login']} exists.")
    return outcome.drift(f"There is no local account {call['login']}.")


def _gone(call: MethodCall) -> Finding:
    if account_files.user(call["login"]):
        return outcome.drift(f"The account {call['login']} exists; it should not.")
    return outcome.compliant(f"There is no local account {call['login']}.")


def _add(call: MethodCall) -> Finding:
    account_files.act("useradd", "--no-create-home", "--no-log-init", "--", call["login"])
    return outcome.compliant(f"The account {call['login']} was created, without a home directory.")


def _add_complete(call: MethodCall) -> Finding:
    fields = ["--comment", call["description"], "--home-dir", call["home"]]
    fields += ["--gid", call["group"], "--shell", call["shell"]]
    account_files.act("useradd", "--create-home", "--no-log-init", *fields, "--", call["login"])
    if trees.flag("locked", call["locked"]):
        account_files.act("usermod", "--lock", "--", call["login"])
    return outcome.compliant(f"The account {call['login']} was created.")


def _delete(call: MethodCall) -> Finding:
    account_files.act("userdel", "--", call["login"])
    return outcome.compliant(f"The account {call['login']} was removed; its files were left.")


def _required(call: MethodCall) -> User:
    found = account_files.user(call["login"])
    if found is None:
        raise UnableError(f"There is no local account {call['login']}.")
    return found


def _register_field(name: str, parameter: str, option: str, get: Callable[[User], str], words: str) -> None:
    """Register a method that keeps one field of an account, changed by one option of usermod."""

    def audit(call: MethodCall) -> Finding:
        account, wanted = account_files.user(call["login"]), call[parameter]
        _checked_field(wanted)
        if account is None:
            return outcome.drift(f"There is no local account {call['login']}; its {words} should be {wanted}.")
        if get(account) == wanted:
            return outcome.compliant(f"The {words} of {account.name} is {wanted}.")
        return outcome.drift(f"The {words} of {account.name} is {get(account)}; {wanted} is expected.")

    def enforce(call: MethodCall) -> Finding:
        account_files.act("usermod", option, _checked_field(call[parameter]), "--", _required(call).name)
        return outcome.compliant(f"The {words} of {call['login']} was set to {call[parameter]}.")

    register(name, f"login {parameter}", audit, enforce)


def _checked_field(text: str) -> str:
    if ":" in text or "\n" in text:
        raise UnableError(f"{text!r} cannot be a field of an account.")
    return text


def _primary_group(call: MethodCall) -> Finding:
    account, wanted = account_files.user(call["login"]), call["primary_group"]
    if account is None:
        return outcome.drift(f"There is no local account {call['login']}; its primary group should be {wanted}.")
    names = [one.name for one in account_files.groups().values() if one.gid == account.gid]
    if wanted in (*names, str(account.gid)):
        return outcome.compliant(f"The primary group of {account.name} is {wanted}.")
    return outcome.drift(f"The primary group of {account.name} is {names or account.gid}; {wanted} is expected.")


def _set_primary_group(call: MethodCall) -> Finding:
    account_files.act("usermod", "--gid", account_files.checked(call["primary_group"]), "--", _required(call).name)
    return outcome.compliant(f"The primary group of {call['login']} was set to {call['primary_group']}.")


def _wanted_groups(call: MethodCall) -> List[str]:
    text = call["groups"] or call["group_name"]
    return [account_files.checked(name.strip()) for name in text.split(",") if name.strip()]


def _groups(call: MethodCall) -> Finding:
    account, wanted, force = account_files.user(call["login"]), _wanted_groups(call), trees.flag("force", call["force"])
    if account is None:
        return outcome.drift(f"There is no local account {call['login']}; it should be in {', '.join(wanted)}.")
    found = account_files.groups_of(account)
    missing = [name for name in wanted if name not in found]
    if missing:
        return outcome.drift(f"{account.name} is not in {', '.join(missing)}.")
    primary = {one.name for one in account_files.groups().values() if one.gid == account.gid}
    extra = sorted(found - set(wanted) - primary) if force else []
    if extra:
        return outcome.drift(f"{account.name} is also in {', '.join(extra)}; it should not.")
    return outcome.compliant(f"{account.name} is in {', '.join(wanted)}.")


def _set_groups(call: MethodCall) -> Finding:
    append = [] if trees.flag("force", call["force"]) else ["--append"]
    names = ",".join(_wanted_groups(call))
    account_files.act("usermod", *append, "--groups", names, "--", _required(call).name)
    return outcome.compliant(f"{call['login']} was put into {names}.")


def _locked(call: MethodCall) -> Finding:
    if account_files.user(call["login"]) is None:
        return outcome.drift(f"There is no local account {call['login']}; it should be locked.")
    if account_files.password_hash(call["login"]).startswith("!"):
        return outcome.compliant(f"The account {call['login']} is locked.")
    return outcome.drift(f"The account {call['login']} is not locked.")


def _lock(call: MethodCall) -> Finding:
    account_files.act("usermod", "--lock", "--", _required(call).name)
    return outcome.compliant(f"The account {call['login']} was locked.")


def _has_password(call: MethodCall) -> Finding:
    _checked_hash(call)
    if account_files.user(call["login"]) is None:
        return outcome.drift(f"There is no local account {call['login']}; it should have a password.")
    if account_files.password_hash(call["login"]) == call["password"]:
        return outcome.compliant(f"The password hash of {call['login']} is as expected.")
    return outcome.drift(f"The password hash of {call['login']} is not as expected.")


def _checked_hash(call: MethodCall) -> str:
    if ":" in call["password"] or "\n" in call["password"]:
        raise UnableError("The parameter password is not a password hash.")
    return call["password"]


def _set_password(call: MethodCall) -> Finding:
    account_files.set_password_hash(_required(call).name, _checked_hash(call))
    return outcome.compliant(f"The password hash of {call['login']} was set.")


def _group_there(call: MethodCall) -> Finding:
    if account_files.checked(call["name"]) in account_files.groups():
        return outcome.compliant(f"The group {call['name']} exists.")
    return outcome.drift(f"There is no local group {call['name']}.")


def _group_gone(call: MethodCall) -> Finding:
    if account_files.checked(call["name"]) in account_files.groups():
        return outcome.drift(f"The group {call['name']} exists; it should not.")
    return outcome.compliant(f"There is no local group {call['name']}.")


def _add_group(call: MethodCall) -> Finding:
    account_files.act("groupadd", "--", call["name"])
    return outcome.compliant(f"The group {call['name']} was created.")


def _delete_group(call: MethodCall) -> Finding:
    account_files.act("groupdel", "--", call["name"])
    return outcome.compliant(f"The group {call['name']} was removed.")


register("user_present", "login", _there, _add)
register("user_create", "login description home group shell locked", _there, _add_complete)
register("user_absent", "login", _gone, _delete)
_register_field("user_fullname", "fullname", "--comment", lambda user: user.comment, "full name")
_register_field("user_home", "home", "--home", lambda user: user.home, "home directory")
_register_field("user_shell", "shell", "--shell", lambda user: user.shell, "shell")
_register_field("user_uid", "uid", "--uid", lambda user: str(user.uid), "user id")
register("user_primary_group", "login primary_group", _primary_group, _set_primary_group)
register("user_group", "login group_name", _groups, _set_groups)
register("user_secondary_groups", "login groups force?", _groups, _set_groups)
register("user_locked", "login", _locked, _lock)
register("user_password_hash", "login password", _has_password, _set_password)
register("group_present", "name", _group_there, _add_group)
register("group_absent", "name", _group_gone, _delete_group)
