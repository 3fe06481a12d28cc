"""The whole program: started, called over a socket, killed, started again, stopped."""

import json
import re
import signal
import socket
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

from rankproof.cli import app


class Program:
    """`rankproof serve` in a separate process."""

    def __init__(self, model, folder, *options):
        words = [
            sys.executable,
            "-m",
            "rankproof",
            "serve",
            "--model",
            model,
            "--folder",
            folder,
            "--port",
            "0",
        ]
        self.process = subprocess.Popen([*words, *options], stderr=subprocess.PIPE, text=True)
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line.strip())
            if found := re.match(r"serving at (http://\S+),", line):
                self.address = found[1]
                break

    def call(self, path, data=None, **headers):
        with urlopen(Request(self.address + path, data, headers), timeout=30) as answer:
            return json.load(answer)

    def end(self, how):
        self.process.send_signal(how)
        stderr = self.process.communicate(timeout=30)[1]
        return self.process.returncode, stderr


@pytest.fixture
def start(models, tmp_path):
    """Starts the program, with the cosine model."""
    started = []

    def new(*options):
        started.append(Program(models / "cosine", tmp_path / "service", *options))
        return started[-1]

    yield new
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate()


def test_the_program(start, files, local):
    image_file = files.png(local.dataset.images[0])
    png = {"Content-Type": "image/png"}
    first = start("--per-day", "5", "--visible", "3")
    assert first.lines[0].startswith("797 items; the embedded digits, test split")
    assert "first 3 results, 5 calls a day" in first.lines[1]
    assert first.address.startswith("http://127.0.0.1:")
    wanted = first.call("/search", image_file, **png)
    assert (wanted["visible"], wanted["ids"][0], len(wanted["ids"])) == (3, "0", 3)
    first.call("/search", image_file, **png)
    first.process.kill()  # without a warning
    second = start("--per-day", "5", "--visible", "3")
    for _ in range(3):
        assert second.call("/search", image_file, **png) == wanted
    with pytest.raises(HTTPError, match="429"):  # the quota outlives the process
        second.call("/search", image_file, **png)
    code, stderr = second.end(signal.SIGINT)
    assert code == 130
    assert stderr.startswith("stopped: items, keys and quotas are stored in")
    assert stderr.count("\n") == 1


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_keys_on_the_command_line(tmp_path):
    made = call("keys", "add", "alice", "--folder", tmp_path)
    assert made.exit_code == 0
    assert re.fullmatch(r"[\w-]{43}\n", made.stdout)
    assert call("keys", "add", "boss", "--admin", "--folder", tmp_path).exit_code == 0
    assert call("keys", "list", "--folder", tmp_path).stdout == "alice\nboss (admin)\n"
    again = call("keys", "add", "alice", "--folder", tmp_path)
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert call("keys", "remove", "alice", "--folder", tmp_path).exit_code == 0
    assert call("keys", "list", "--folder", tmp_path).stdout == "boss (admin)\n"
    assert call("keys", "forget", "--folder", tmp_path).exit_code == 2


def test_what_the_command_line_refuses(models, tmp_path):
    def refused(*options):
        made = call("serve", "--model", models / "cosine", "--folder", tmp_path, *options)
        assert (made.exit_code, made.stdout) == (2, "")
        return made.stderr.splitlines()[-1]

    assert "--visible must be between 1 and 50, got 51" in refused("--visible", 51)
    assert "--index 'x' is unknown" in refused("--index", "x")
    assert "there are no keys; create one first: rankproof keys add" in refused("--host", "0.0.0.0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "cannot listen on" in refused("--port", listener.getsockname()[1])
