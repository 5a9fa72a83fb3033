"""Which addresses a webhook may be sent to: those of the public internet, and no others.

An allow-list by range, because what `ipaddress` calls global varies with Python's patch version and lets in some that
lead inwards. An IPv6 address that carries an IPv4 one is judged by that.
Source: IANA's special-purpose address registries (RFC 6890); RFC 6052 for NAT64.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

CLOSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers, and cloud metadata (100.100.100.200)
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and cloud metadata (169.254.169.254)
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "168.63.129.16/32",  # Azure's host agent: public by number, inward by route
    )
)
PUBLIC_V6 = IPv6Network("2000::/3")
"""All global unicast that was ever given out."""
CLOSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, with Teredo's tunnels
        "2001:db8::/32",
        "2002::/16",  # 6to4 tunnels
        "3fff::/20",
    )
)
CARRIES_V4 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""IPv4-mapped, and NAT64's well-known prefix: the last 32 bits are where it leads."""


def is_public(address: str) -> bool:
    """Whether a connection to this numeric address leaves for the public internet."""
    match ip_address(address):
        case IPv4Address() as v4:
            return _is_public_v4(v4)
        case IPv6Address() as v6:
            if any(v6 in network for network in CARRIES_V4):
                return _is_public_v4(IPv4Address(int(v6) & 0xFFFF_FFFF))
            return v6 in PUBLIC_V6 and not any(v6 in network for network in CLOSED_V6)


def is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in CLOSED_V4)
