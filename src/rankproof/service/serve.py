"""The service as a process: an address, a few lines that tell what is there, and a quiet end."""

import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from rankproof.errors import RankproofError
from rankproof.service.extras import extra
from rankproof.service.service import Service

CONNECTIONS = 100  # at once; each may hold one upload
GRACE = 10  # seconds for requests that are under way when the service is stopped
SWITCH = 0.0005  # seconds a thread may keep the interpreter: an encoder wants it back after each layer


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host name or address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_lab(host: str, *, for_all: bool) -> None:
    """Refuse to open the lab to other machines unless that is meant.

    Raises:
        RankproofError: others can reach the host.
    """
    if not (for_all or is_loopback(host)):
        raise RankproofError(
            f"--lab at --host {host}: whoever has a key could search there beside all quotas; "
            "if that is meant, add --lab-for-all"
        )


def serve(
    service: Service,
    host: str,
    port: int,
    *,
    folder: Path,
    lab: bool = False,
    say: Callable[[str], None],
) -> None:
    """Answer until Ctrl-C.

    Args:
        service: what answers; it is closed at the end.
        host: the address to listen at.
        port: 0 takes a free one.
        folder: where keys and items are kept, to be told.
        lab: whether the service can be attacked from a page of its own.
        say: prints a line.
    """
    uvicorn, app = (extra(module, "service") for module in ("uvicorn", "rankproof.service.app"))
    if not is_loopback(host) and not len(service.keys):
        raise RankproofError(
            f"--host {host}: others can reach it, and there are no keys; make one first: "
            f"rankproof keys add NAME --folder {folder}"
        )
    routers = [extra("rankproof.service.lab", "service").router] if lab else []
    config = uvicorn.Config(
        app.create_app(service, routers),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    sys.setswitchinterval(SWITCH)
    with _listening(host, port) as door:
        address = f"http://{host}:{door.getsockname()[1]}"
        for line in _told(service, address, folder):
            say(line)
        if lab:
            say(f"lab at {address}/lab.html; no quota counts what is searched there")
        uvicorn.Server(config).run(sockets=[door])


def _listening(host: str, port: int) -> socket.socket:
    """A socket at that address."""
    try:
        return socket.create_server((host, port), family=_family(host))
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error
        raise RankproofError(f"{host}:{port} cannot be listened at ({told}); choose another --port") from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _told(service: Service, address: str, folder: Path) -> list[str]:
    """What is served, where, and under which limits."""
    limits, keys = service.limits, len(service.keys)
    who = f"{keys} keys in {folder}" if keys else "no keys yet: whoever can reach it shares one quota"
    return [
        f"{len(service):,} items; {service.dataset.note}",
        f"first {limits.visible} results, {limits.per_day} calls a day and {limits.per_second} a second for "
        f"each key; {who}",
        f"serving at {address}, Ctrl-C ends it",
    ]
