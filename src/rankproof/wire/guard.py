"""Where pictures may be sent: to the user's own network, and elsewhere only with somebody's word for it."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from rankproof.errors import RankproofError

# Named one by one: what Python calls private holds the link-local addresses of cloud metadata too.
OWN_NETWORKS: tuple[IPv4Network | IPv6Network, ...] = tuple(
    map(
        ip_network,
        ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    )
)
LETTERS = 200  # of a permission: who gave it and why fits into so many

Resolve = Callable[[str, int], list[Any]]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A place that may be asked.

    Args:
        url: as the user wrote it.
        host: the name in it, which the service and its certificate know.
        address: the address behind the name that was checked; no other one is ever connected to.
        authorised: who allowed the test and why, or None.
    """

    url: str
    host: str
    address: str
    authorised: str | None


def allowed(url: str, authorised: str | None = None, resolve: Resolve | None = None) -> Destination:
    """The place a URL leads to, if pictures may be sent there.

    Args:
        url: http:// or https://.
        authorised: who allowed the test and why; needed for any address outside the user's own network.
        resolve: the addresses of a host and port, as `socket.getaddrinfo` tells them.
    Raises:
        RankproofError: the URL is none, leads nowhere, or to an address that nobody allowed.
    """
    parts, port = _split(url)
    host = str(parts.hostname)
    word = _checked_word(authorised)
    addresses = _addresses(host, port, resolve or socket.getaddrinfo)
    strangers = [address for address in addresses if not _is_own(address)]
    if strangers and word is None:
        raise RankproofError(
            f"{host} leads to {strangers[0]}, which is no loopback or private address; test what you may "
            f'test, and name who allowed it: --i-am-authorised "who and why"'
        )
    # The old protocol first: services on one machine often listen there only.
    chosen = min(addresses, key=lambda address: address.version)
    return Destination(url=url, host=host, address=str(chosen), authorised=word)


def _split(url: str) -> tuple[SplitResult, int]:
    """The parts of a URL and its port."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise RankproofError(f"{url!r} is no URL ({error})") from None
    odd = any(letter.isspace() or letter == "\\" or not letter.isprintable() for letter in url)
    if port is None or not parts.hostname or odd:
        raise RankproofError(f"{url!r} is no URL; write one such as http://127.0.0.1:8000/search")
    if parts.username is not None or parts.password is not None:
        raise RankproofError("the URL holds a name or password; put secrets into a header, by --key-env")
    return parts, port


def _checked_word(authorised: str | None) -> str | None:
    if authorised is None:
        return None
    word = " ".join(authorised.split())
    if not word or len(word) > LETTERS or not word.isprintable():
        raise RankproofError(
            f"--i-am-authorised: say in 1 to {LETTERS} letters who allowed the test and why; it is reported"
        )
    return word


def _addresses(host: str, port: int, resolve: Resolve) -> list[IPv4Address | IPv6Address]:
    """Every address behind a host."""
    try:
        found = resolve(host, port)
        addresses = [ip_address(entry[4][0]) for entry in found]
    except (OSError, UnicodeError, ValueError):
        raise RankproofError(f"{host}: no such host; check the URL") from None
    if not addresses:
        raise RankproofError(f"{host}: no such host; check the URL")
    if any(address.is_unspecified for address in addresses):
        raise RankproofError(f"{host} is an address to listen on, not one to send to; write 127.0.0.1")
    return addresses


def _is_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address lies in the user's own network; one that wraps an older address counts as that."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return _is_own(address.ipv4_mapped)
    return any(address.version == network.version and address in network for network in OWN_NETWORKS)
