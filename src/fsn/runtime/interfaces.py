"""The addresses of this machine: what psutil says of its network interfaces."""

import socket

import psutil

__all__ = ["interface_addresses"]


def interface_addresses() -> frozenset[str]:
    """The IP addresses (text, without zones) of all interfaces, loopback among them; about 50 us."""
    return frozenset(
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    )
