# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck`: the operator's command line, an HTTP client and nothing else."""
