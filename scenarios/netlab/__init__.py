"""A laboratory of hosts, routers with NAT and cuttable links in network namespaces of this machine, and stories told in it.

`python -m scenarios.netlab COMMAND` runs a command where a lab can be opened; docs/how-to/network-lab.md is the manual.
"""
