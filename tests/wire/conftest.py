import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Lock, Thread

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from rankproof import Gallery
from rankproof.wire import RANKPROOF_SERVICE, Client, RateLimit, ResponseCache, check_destination

SHOWN = 12
URL = "http://127.0.0.1:8000/search"


@dataclass
class FakeService:
    """A search service in a few lines: PNG in, ids out. `faults` answers some requests in its place."""

    gallery: Gallery
    faults: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    answered: list = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def respond(self, body):
        """Status, headers and text for the body of a request."""
        png = body[body.index(b"\x89PNG") : body.index(b"IEND") + 8]
        with self.lock:
            self.sent.append(png)
            fault = self.faults.pop(0) if self.faults else None
            if fault is None:
                self.answered.append(png)
        if fault is not None:
            return fault() if callable(fault) else fault
        return 200, {}, json.dumps({"ids": self.ids(png), "visible": SHOWN})

    def ids(self, png):
        pixels = np.asarray(Image.open(BytesIO(png)))
        picture = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).copy()).permute(2, 0, 1) / 255
        return [f"item-{number}" for number in self.gallery.search(self.embed(picture), SHOWN)[0].tolist()]

    def embed(self, picture):
        ranker = self.gallery.ranker
        return ranker.embed_all(ranker.as_input(picture[None]))

    def transport(self):
        def handle(request):
            status, headers, text = self.respond(request.read())
            return httpx.Response(status, headers=headers, text=text)

        return httpx.MockTransport(handle)


class Clock:
    """Time that only goes on when somebody sleeps."""

    def __init__(self):
        self.now, self.slept, self.lock = 0.0, [], Lock()

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        with self.lock:
            self.slept.append(seconds)
            self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="session")
def collection(make, pictures):
    return Gallery.build(make.ranker(), (pictures * 255).round() / 255)


@pytest.fixture
def service(collection):
    return FakeService(collection)


@pytest.fixture
def client(service, clock):
    """Makes clients of the service."""
    made = []

    def make_client(adapter=RANKPROOF_SERVICE, url=URL, transport="service", secrets=None, **limits):
        made.append(
            Client(
                check_destination(url),
                adapter,
                secrets=secrets,
                rate_limit=RateLimit(**{"concurrency": 1} | limits),
                transport=service.transport() if transport == "service" else transport,
                sleep=clock.sleep,
                clock=clock,
            )
        )
        return made[-1]

    yield make_client
    for each in made:
        each.close()


@pytest.fixture
def cache(tmp_path):
    """Makes caches in files; one of the same name goes on after the last."""
    made = {}

    def make_cache(name="answers", service="a shop", **options):
        if name in made:
            made[name].close()
        made[name] = ResponseCache(tmp_path / f"{name}.sqlite", service, **options)
        return made[name]

    yield make_cache
    for each in made.values():
        each.close()


@pytest.fixture
def serve():
    """Puts a service behind a real socket; gives its URL and a call that ends it."""
    running = []

    def start(service, port=0):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                status, headers, text = service.respond(self.rfile.read(int(self.headers["Content-Length"])))
                if status is None:  # gone without an answer
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request, address):  # a client that was killed
                pass

        server = Server(("127.0.0.1", port), Handler)
        thread = Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()

        def stop():
            server.shutdown()
            server.server_close()
            thread.join()

        running.append(stop)
        return server.server_address[1], stop

    yield start
    for stop in running:
        stop()
