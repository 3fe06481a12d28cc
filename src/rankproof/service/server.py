"""Serve a search service over HTTP until it is interrupted."""

import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from rankproof.errors import RankproofError, import_extra
from rankproof.service.search_service import SearchService

MAX_CONNECTIONS = 100  # each may hold one upload in memory
SHUTDOWN_SECONDS = 10  # for requests in progress when the service is stopped
SWITCH_INTERVAL = 0.0005  # seconds a thread may hold the interpreter, which an encoder needs after each layer


def is_loopback(host: str) -> bool:
    """Whether a host name or address can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_lab(host: str, *, for_all: bool) -> None:
    """Check that the lab is opened to other machines only on purpose.

    Raises:
        RankproofError: other machines can reach the host, and `for_all` is false.
    """
    if not (for_all or is_loopback(host)):
        raise RankproofError(
            f"--lab at --host {host}: everybody with a key could search there without any quota; "
            "add --lab-for-all to allow it"
        )


def serve(
    service: SearchService,
    host: str,
    port: int,
    *,
    folder: Path,
    lab: bool = False,
    log: Callable[[str], None],
) -> None:
    """Answer requests until Ctrl-C.

    Args:
        service: it is closed at the end.
        host: the address to listen on.
        port: 0 for any free port.
        folder: where keys and items are stored; only printed.
        lab: whether to serve the lab, a page on which the service is attacked.
        log: prints a line.
    Raises:
        RankproofError: other machines can reach the host and there are no keys, or the port is in use.
    """
    uvicorn, app = (import_extra(module, "service") for module in ("uvicorn", "rankproof.service.app"))
    if not is_loopback(host) and not len(service.keys):
        raise RankproofError(
            f"--host {host}: other machines can reach it, and there are no keys; create one first: "
            f"rankproof keys add NAME --folder {folder}"
        )
    routers = [import_extra("rankproof.service.lab", "service").router] if lab else []
    config = uvicorn.Config(
        app.create_app(service, routers),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    sys.setswitchinterval(SWITCH_INTERVAL)
    with _listen(host, port) as listener:
        address = f"http://{host}:{listener.getsockname()[1]}"
        for line in _summary(service, address, folder):
            log(line)
        if lab:
            log(f"lab at {address}/lab.html; searches there are not counted by any quota")
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RankproofError(f"cannot listen on {host}:{port} ({reason}); choose another --port") from None


def _summary(service: SearchService, address: str, folder: Path) -> list[str]:
    """What is served, where, and under which limits."""
    limits, keys = service.limits, len(service.keys)
    access = f"{keys} keys in {folder}" if keys else "no keys yet: all callers share one quota"
    return [
        f"{len(service):,} items; {service.dataset.note}",
        f"first {limits.visible} results, {limits.per_day} calls a day and {limits.per_second} a second for "
        f"each key; {access}",
        f"serving at {address}, stop with Ctrl-C",
    ]
