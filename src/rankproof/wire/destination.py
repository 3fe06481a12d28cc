"""Addresses that images may be sent to: private networks, and others only with a stated authorisation."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from rankproof.errors import RankproofError

# Named one by one: what Python calls private holds the link-local addresses of cloud metadata too.
PRIVATE_NETWORKS: tuple[IPv4Network | IPv6Network, ...] = tuple(
    map(
        ip_network,
        ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    )
)
MAX_AUTHORISATION = 200  # characters of an authorisation
PORTS = {"http": 80, "https": 443}

Resolve = Callable[[str, int], list[Any]]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A service that may be queried.

    Args:
        url: as the user wrote it.
        host: its host name, which the service and its certificate know.
        address: the checked IP address of the host; connections go to no other address.
        authorised: who allowed the test and why, or None.
    """

    url: str
    host: str
    address: str
    authorised: str | None


def check_destination(url: str, authorised: str | None = None, resolve: Resolve | None = None) -> Destination:
    """Resolve a URL and check that images may be sent to its address.

    Args:
        url: http:// or https://.
        authorised: who allowed the test and why; required outside loopback and private networks.
        resolve: returns the addresses of a host and port in the form of `socket.getaddrinfo`.
    Raises:
        RankproofError: the URL is malformed, its host is unknown, or its address needs an authorisation.
    """
    parts, port = _split(url)
    host = str(parts.hostname)
    authorisation = _checked_authorisation(authorised)
    addresses = _addresses(host, port, resolve or socket.getaddrinfo)
    public = [address for address in addresses if not _is_private(address)]
    if public and authorisation is None:
        raise RankproofError(
            f"{host} leads to {public[0]}, which is no loopback or private address; test only what you may "
            f'test, and name who allowed it: --i-am-authorised "who and why"'
        )
    # IPv4 first: services on one machine often listen there only.
    chosen = min(addresses, key=lambda address: address.version)
    return Destination(url=url, host=host, address=str(chosen), authorised=authorisation)


def _split(url: str) -> tuple[SplitResult, int]:
    """The parts of a URL and its port."""
    try:
        parts = urlsplit(url)
        port = (parts.port or PORTS[parts.scheme]) if parts.scheme in PORTS else None
    except ValueError as error:
        raise RankproofError(f"{url!r} is no URL ({error})") from None
    unsafe = any(letter.isspace() or letter == "\\" or not letter.isprintable() for letter in url)
    if port is None or not parts.hostname or unsafe:
        raise RankproofError(f"{url!r} is no URL; write one such as http://127.0.0.1:8000/search")
    if parts.username is not None or parts.password is not None:
        raise RankproofError("the URL holds a name or password; put secrets into a header, by --key-env")
    return parts, port


def _checked_authorisation(authorised: str | None) -> str | None:
    """The authorisation on one line."""
    if authorised is None:
        return None
    text = " ".join(authorised.split())
    if not text or len(text) > MAX_AUTHORISATION or not text.isprintable():
        raise RankproofError(
            f"--i-am-authorised: say in 1 to {MAX_AUTHORISATION} characters who allowed the test and why; "
            "the report quotes it"
        )
    return text


def _addresses(host: str, port: int, resolve: Resolve) -> list[IPv4Address | IPv6Address]:
    """Every address of a host."""
    try:
        addresses = [ip_address(entry[4][0]) for entry in resolve(host, port)]
    except (OSError, UnicodeError, ValueError):
        raise RankproofError(f"{host}: no such host; check the URL") from None
    if not addresses:
        raise RankproofError(f"{host}: no such host; check the URL")
    if any(address.is_unspecified for address in addresses):
        raise RankproofError(f"{host} is an address to listen on, not one to send to; write 127.0.0.1")
    return addresses


def _is_private(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is loopback or private; an IPv4-mapped IPv6 address counts as the IPv4 address."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return _is_private(address.ipv4_mapped)
    return any(address.version == network.version and address in network for network in PRIVATE_NETWORKS)
