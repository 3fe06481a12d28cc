"""What is printed: encodings, closed pipes, full disks, narrow terminals. Nothing of that ends a command."""

import errno
import json
import os
import subprocess
import sys
from io import BufferedWriter, RawIOBase, TextIOWrapper
from types import SimpleNamespace

import pytest
import typer
from rich.table import Table

from rankproof import RankproofError
from rankproof.cli import main
from rankproof.cli.output import complain, echo, in_ascii, print_table, readable
from rankproof.cli.train import _print_epoch
from rankproof.models import new_encoder, save_checkpoint

EVALUATE = ("evaluate", "--no-robustness")
ATTACK = ("attack", "--goal", "oa", "--k", 3, "--eps", "8/255", "--trials", 3, "--steps", 2)


class Sink(RawIOBase):
    """Where a stream writes to; `error` is what it fails with."""

    def __init__(self, error=None):
        self.error, self.content = error, b""

    def writable(self):
        return True

    def write(self, content):
        if self.error is not None:
            raise self.error
        self.content += bytes(content)
        return len(content)


def full():
    return Sink(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def closed():
    return Sink(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("printed")
    save_checkpoint(folder, new_encoder("digits", 3), {"arch": "digits", "distance": "cosine"})
    return folder


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the program with its own streams; gives the exit code, stdout and stderr."""
    monkeypatch.delenv("RANKPROOF_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    sinks = []

    def program(*words, encoding="utf-8", stdout=None, stderr=None):
        sinks[:] = [stdout or Sink(), stderr or Sink()]
        with monkeypatch.context() as patch:
            for name, sink in zip(("stdout", "stderr"), sinks, strict=True):
                patch.setattr(sys, name, TextIOWrapper(BufferedWriter(sink), encoding=encoding))
            patch.setattr(sys, "argv", ["rankproof", *map(str, words)])
            with pytest.raises(SystemExit) as end:
                main()
        texts = [sink.content.decode(encoding) for sink in sinks]
        for sink in sinks:
            sink.error = None  # what is left in the streams goes nowhere
        return end.value.code, *texts

    return program


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize("words", [EVALUATE, ATTACK], ids=["evaluate", "attack"])
def test_figures_are_printed_whatever_the_encoding(run, model, words, encoding):
    expected = run(*words, "--model", model)
    found = run(*words, "--model", model, encoding=encoding)
    assert found[0] == expected[0] == 0, found

    def plain(text):
        # The words of the output without the frames of its tables, whose lines differ.
        lines = (line for line in in_ascii(text).splitlines() if " MB" not in line)
        return [word for line in lines for word in line.split() if set(word) - set("+-|=")]

    assert plain(found[1]) == plain(expected[1])


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_is_whole_in_any_encoding(run, model, encoding):
    code, text, _ = run(*ATTACK, "--model", model, "--json", encoding=encoding)
    assert code == 0
    assert json.loads(text)["goal"] == "oa"


@pytest.mark.parametrize("command", ["train", "attack", "attack-service", "audit", "evaluate", "reproduce"])
@pytest.mark.parametrize("columns", ["0", "1", "10", "200"])
def test_help_is_printed_in_ascii_and_at_any_width(run, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    code, text, _ = run(command, "--help", encoding="ascii")
    assert code == 0
    assert text


def test_a_c_locale_without_utf_8_prints_errors_and_help():
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii:strict",
    }
    words = ("evaluate", "--model", "m\u2192", "--no-robustness", "--eps", "1")
    program = [sys.executable, "-m", "rankproof", *words]
    done = subprocess.run(program, env=environment, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["caf\udce9", "two\nlines", "clear\x1b[2J", "arrow \u2192", "\x00"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_of_any_characters_is_one_line(run, name, encoding):
    code, text, complaint = run("evaluate", "--model", name, encoding=encoding)
    assert (code, text) == (2, "")
    assert complaint.count("\n") == 1
    assert complaint.startswith("error: ")
    assert complaint.rstrip("\n").isprintable()


# -- where nothing can be written


def test_a_full_disk_behind_stdout_is_one_line_and_what_was_saved_is_kept(run, model):
    code, text, complaint = run(*EVALUATE, "--model", model, "--out", "deep/figures.json", stdout=full())
    assert (code, text) == (2, "")
    (line,) = [line for line in complaint.splitlines() if line.startswith("error")]
    assert line == ("error: the output cannot be written (No space left on device); what was saved is kept")
    with open("deep/figures.json") as stored:
        assert 0 < json.load(stored)["recall_at_1"] <= 100
    assert run(*ATTACK, "--model", model, "--save", "attacked", stdout=full())[0] == 2
    assert os.path.exists("attacked/attack.npz")


def test_a_closed_pipe_ends_quietly_after_the_work(run, model):
    code, _, complaint = run(*ATTACK, "--model", model, "--save", "attacked", stdout=closed())
    assert code == 1
    assert "error" not in complaint
    assert os.path.exists("attacked/result.json")


@pytest.mark.parametrize(("sink", "code"), [(full, 2), (closed, 1)])
def test_help_where_it_cannot_be_written(run, sink, code):
    found, _, complaint = run("evaluate", "--help", stdout=sink())
    assert found == code
    assert ("cannot be written" in complaint) == (sink is full)


def test_stderr_that_nobody_reads_ends_nothing(run, model):
    for sink in (full(), closed()):
        assert run(*ATTACK, "--model", model, stderr=sink)[0] == 0
    assert run("evaluate", "--model", "nowhere", stderr=full())[0] == 2


def test_a_program_started_without_stdout(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "argv", ["rankproof", "evaluate", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)


def test_a_pipe_that_closes_does_not_end_a_training(monkeypatch):
    monkeypatch.setattr(typer, "echo", lambda *_, **__: (_ for _ in ()).throw(BrokenPipeError()))
    epoch = SimpleNamespace(number=3, loss=0.1, recall_at_1=50.0, seconds=1.0)
    assert _print_epoch(epoch, 5) == 3


def test_printing_fails_with_an_error_of_our_own(monkeypatch):
    for error, kind in ((OSError(errno.EIO, "broken"), RankproofError), (BrokenPipeError(), typer.Exit)):
        monkeypatch.setattr(typer, "echo", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        with pytest.raises(kind):
            echo("text")
        complain("text")


# -- texts


def test_signs_in_ascii():
    assert in_ascii("−0.16 ± 0.02 → 1\N{NO-BREAK SPACE}% ∞ ξ = 2 – é\udce9") == (
        "-0.16 +- 0.02 -> 1 % inf xi = 2 - \\xe9\\udce9"
    )
    assert in_ascii("┏━┓│╇") == "+-+|+"


def test_control_characters_are_shown():
    assert readable("a\x1b[2J\r\x7f\udce9\tb\nc±") == "a\\x1b[2J\\r\\x7f\\udce9\tb\nc±"


@pytest.mark.parametrize("columns", ["0", "1", "10", "80"])
def test_a_narrow_terminal_cuts_no_figure_off(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    table = Table()
    for column in ("figure", "after"):
        table.add_column(column, no_wrap=True)
    table.add_row("mean normalised rank", "[12,345.67, 12,346.89]")
    print_table(table)
    assert "[12,345.67, 12,346.89]" in capsys.readouterr().out


# -- `evaluate --out`


def test_evaluate_writes_the_object_that_it_prints(run, model):
    code, text, _ = run(*EVALUATE, "--model", model, "--out", "figures.json", "--json")
    assert code == 0
    with open("figures.json") as stored:
        assert json.load(stored) == json.loads(text)
    assert "written to figures.json" in run(*EVALUATE, "--model", model, "--out", "figures.json")[1]


@pytest.mark.parametrize(
    ("out", "message"), [(".", "--out .: is a folder; name a file"), ("file/x.json", "file is a file")]
)
def test_evaluate_names_an_out_that_cannot_be_written_before_the_work(run, model, out, message):
    with open("file", "w"):
        pass
    code, text, complaint = run(*EVALUATE, "--model", model, "--out", out)
    assert (code, text) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1
