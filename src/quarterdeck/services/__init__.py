# SPDX-License-Identifier: Apache-2.0
"""What people do: one function per verb. Knows no HTTP, no SQL, no process."""
