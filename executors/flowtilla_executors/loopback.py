"""Whether only this machine can reach an address."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Returns whether a host, by name or IP address, is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
