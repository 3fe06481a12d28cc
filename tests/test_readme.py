import importlib.util
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import typer
from PIL import Image

from rankproof.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(rankproof [^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)")
COMMANDS = typer.main.get_command(app).commands


def blocks(page, language):
    return [(found.start(2), found[2]) for found in BLOCK.finditer(page.read_text()) if found[1] == language]


def prose(page):
    return BLOCK.sub("", page.read_text())


def named(pages):
    return pytest.mark.parametrize("page", pages, ids=[page.name for page in pages])


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder to work in, with a folder of photos as the README has it."""
    random = np.random.default_rng(0)
    for name in ("boots", "cups", "lamps"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            rough = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(rough).resize((72, 60 + number)).save(
                tmp_path / "photos" / name / f"{number}.jpg"
            )
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- code ------------------------------------------------------------------------------------------


def run(page):
    """Execute the blocks of a page in order, in one namespace; a traceback names the line of the page."""
    space = {"__name__": page.stem}
    for start, code in blocks(page, "python"):
        if "onnx" in code and importlib.util.find_spec("onnx2torch") is None:
            continue  # no other package of the tests can be had without torchvision
        above = page.read_text()[:start].count("\n")
        exec(compile("\n" * above + code, page, "exec"), space)


@pytest.mark.usefixtures("few_queries")
def test_the_code_of_the_readme_leaves_a_report(workplace):
    run(ROOT / "README.md")
    assert {file.name for file in (workplace / "runs" / "mine").iterdir()} >= {"report.html", "report.json"}


@named([page for page in PAGES[1:] if blocks(page, "python")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's exporter that needs no other package
def test_the_code_of_a_page_runs(page, workplace):
    run(page)


@pytest.mark.usefixtures("few_queries")
def test_the_example_leaves_a_report(workplace, monkeypatch, capsys):
    place = importlib.util.spec_from_file_location("example", ROOT / "examples" / "audit_my_photos.py")
    example = importlib.util.module_from_spec(place)
    place.loader.exec_module(example)
    monkeypatch.setattr(example, "SECONDS", 5.0)
    example.main()
    assert (workplace / "runs" / "mine" / "report.html").is_file()
    assert "report: runs/mine/report.html" in capsys.readouterr().out


# -- commands --------------------------------------------------------------------------------------


def shell_lines(page):
    text = "\n".join(code for _, code in blocks(page, "bash")).replace("\\\n", " ")
    return [part.strip() for line in text.splitlines() for part in re.split(r"&&|;", line.split(" #")[0])]


@named(PAGES)
def test_commands_in_blocks_parse(page):
    for line in shell_lines(page):
        match shlex.split(line):
            case ["rankproof", command, *words]:
                assert command in COMMANDS, line
                try:
                    COMMANDS[command].make_context(command, words)
                except (click.ClickException, typer.Exit) as error:
                    pytest.fail(f"{line}: {error}")
            case ["make", *targets]:
                makefile = (ROOT / "Makefile").read_text()
                assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), line


@named(PAGES)
def test_commands_in_prose_exist(page):
    for line in INLINE.findall(prose(page)):
        _, command, *words = shlex.split(line)
        assert command in COMMANDS, line
        known = {name for option in COMMANDS[command].params for name in option.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= known, line


def test_these_tests_would_see_an_unknown_option():
    with pytest.raises(Exception, match="--no-such"):
        COMMANDS["attack"].make_context("attack", ["--no-such", "1"])


# -- links -----------------------------------------------------------------------------------------


@named([*PAGES, ROOT / "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_the_readme_has_a_place_for_the_headline_figures():
    text = (ROOT / "README.md").read_text()
    assert 0 < text.index("<!-- results:headline -->") < text.index("<!-- /results -->")
