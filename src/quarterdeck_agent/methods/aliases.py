# SPDX-License-Identifier: Apache-2.0
"""Older names of methods: same parameters and behaviour, mostly with result conditions of their own."""

from __future__ import annotations

from typing import Dict, Tuple

from quarterdeck_agent.methods.registration import register_alias

#: Older name -> current name, and the older name's prefix where it is not that name itself.
ALIASES: Dict[str, Tuple[str, str]] = {
    "directory_create": ("directory_present", ""),
    "file_copy_from_local_source": ("file_from_local_source", ""),
    "file_copy_from_local_source_recursion": ("file_from_local_source_recursion", "file_copy_from_local_source"),
    "file_copy_from_local_source_with_check": ("file_from_local_source_with_check", ""),
    "file_copy_from_remote_source": ("file_from_remote_source", ""),
    "file_copy_from_remote_source_recursion": ("file_from_remote_source_recursion", "file_copy_from_remote_source"),
    "file_create": ("file_present", ""),
    "file_create_symlink": ("file_symlink_present", ""),
    "file_create_symlink_enforce": ("file_symlink_present_option", "file_create_symlink"),
    "file_create_symlink_force": ("file_symlink_present_force", "file_create_symlink"),
    "file_download": ("file_from_http_server", ""),
    "file_enforce_content": ("file_content", "file_ensure_lines_present"),
    "file_ensure_block_in_section": ("file_block_present_in_section", ""),
    "file_ensure_block_present": ("file_block_present", ""),
    "file_ensure_key_value": ("file_key_value_present", ""),
    "file_ensure_key_value_option": ("file_key_value_present_option", "file_ensure_key_value"),
    "file_ensure_key_value_parameter_in_list": ("file_key_value_parameter_present_in_list", ""),
    "file_ensure_key_value_parameter_not_in_list": ("file_key_value_parameter_absent_in_list", ""),
    "file_ensure_key_value_present_in_ini_section": ("file_key_value_present_in_ini_section", ""),
    "file_ensure_keys_values": ("file_keys_values_present", ""),
    "file_ensure_line_present_in_ini_section": ("file_line_present_in_ini_section", ""),
    "file_ensure_line_present_in_xml_tag": ("file_line_present_in_xml_tag", ""),
    "file_ensure_lines_absent": ("file_lines_absent", ""),
    "file_ensure_lines_present": ("file_lines_present", ""),
    "file_remove": ("file_absent", ""),
    "permissions_dirs_recurse": ("permissions_dirs_recursive", "permissions"),
    "permissions_recurse": ("permissions_recursive", "permissions"),
    "service_ensure_disabled_at_boot": ("service_disabled", ""),
    "service_ensure_running": ("service_started", ""),
    "service_ensure_running_path": ("service_started_path", "service_ensure_running"),
    "service_ensure_started_at_boot": ("service_enabled", ""),
    "service_ensure_stopped": ("service_stopped", ""),
}

for _alias, (_name, _prefix) in ALIASES.items():
    register_alias(_alias, _name, _prefix)
