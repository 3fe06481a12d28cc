import json
import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rankproof import AttackResult, LocalOracle, RankproofError, Reorder, Thompson, Threat, attack
from rankproof.cli import app
from rankproof.wire import CapReachedError, Pace, QuotaExhaustedError, UnreachableError
from rankproof.wire.picture import png
from rankproof.wire.report import stacked
from rankproof.wire.run import Visit, visit

GOAL, BUDGET, COUNT, EPS = Reorder(k=4), 12, 2, 0.1
USED_UP = (429, {"Retry-After": "30000"}, '{"reason": "quota"}')


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(pictures, tmp_path):
    """A folder of two pictures."""
    folder = tmp_path / "photos"
    return filled(folder, pictures[:COUNT])


def filled(folder, pictures):
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        (folder / f"photo-{number}.png").write_bytes(png((picture * 255).round() / 255))
    return folder


@pytest.fixture
def go(shop, clock, photos):
    """Attacks the shop."""
    said, told = [], []

    def run(**options):
        settings = {
            "url": "http://127.0.0.1:8000/search",
            "environment": {},
            "places": [photos],
            "goal": GOAL,
            "method": Thompson(),
            "budget": BUDGET,
            "eps": EPS,
            "pace": Pace(concurrency=2),
            "journal": Path("journal"),
        }
        plan = Visit(**settings | options)
        return visit(
            plan, said.append, lambda *done: told.append(done), transport=shop.transport(), sleep=clock.sleep
        )

    run.said, run.told = said, told
    return run


def distinct(shop):
    return len(shop.answered) == len(set(shop.answered))


def test_the_report_is_that_of_the_local_attack_with_null_where_nothing_is_known(
    go, shop, collection, pictures
):
    visited = go()
    local = attack(
        LocalOracle(collection, 12), pictures[:COUNT].float(), GOAL, Threat(EPS, grid=True), budget=BUDGET
    )
    assert torch.equal(visited.result.adversarial, local.adversarial)
    cell, expected = visited.cell, local.cell()
    for key in ("tau_before", "tau", "after", "ci95", "curve", "queries_spent", "queries_max", "trials", "k"):
        assert cell[key] == expected[key]
    assert {*cell} - {*expected} == {"service", "attacks"}
    for key in ("mean_rank", "mean_rank_before", "rank_after", "gallery_size", "model", "model_seconds"):
        assert cell[key] is None
    assert cell["visible"] == 12  # as many as the first answer had
    assert cell["service"]["calls"] == cell["service"]["calls_today"] == len(shop.sent)
    assert cell["service"]["authorised"] is None
    json.dumps(cell, allow_nan=False)


def test_what_is_saved(go, shop, collection):
    visited = go()
    visited.save(Path("out"))
    names = {path.name for path in Path("out").iterdir()}
    files = {f"photo-{number}-adversarial.png" for number in range(COUNT)}
    assert names == {"result.json", "strips.json", "attack.npz", *files}
    assert json.loads(Path("out/result.json").read_text()) == visited.cell
    for number, strip in enumerate(json.loads(Path("out/strips.json").read_text())):
        sent = Path("out", strip["adversarial"]).read_bytes()
        assert sent in shop.answered
        assert strip["after"] == shop.ids(sent)
        assert {*strip["wanted"]} == {*strip["before"][:4]}
        pixels = torch.from_numpy(np.asarray(Image.open(BytesIO(sent))).copy()) / 255
        assert torch.equal(pixels, visited.result.adversarial[number, 0])
    assert AttackResult.load("out").gallery_size == 0


def test_a_quota_on_the_third_of_five_attacks(go, shop, pictures):
    five = [filled(Path("five"), pictures[:5])]
    uninterrupted = go(places=five, journal=Path("other"))
    for_two = sum(uninterrupted.result.queries.tolist()[:2])
    shop.sent.clear()
    shop.answered.clear()
    shop.faults = [None] * (for_two + 4) + [USED_UP]
    with pytest.raises(QuotaExhaustedError) as caught:
        go(places=five)
    text = str(caught.value)
    assert "the quota is used up" in text
    assert text.endswith("the search is kept in journal, the same command goes on tomorrow")
    assert len(list(Path("journal").glob("*/search-*.npz"))) == 3
    done = len(shop.answered)
    visited = go(places=five)
    assert torch.equal(visited.result.adversarial, uninterrupted.result.adversarial)
    assert torch.equal(visited.result.queries, uninterrupted.result.queries)
    assert distinct(shop)
    assert for_two + 4 <= done < len(shop.answered) <= BUDGET * 5
    assert visited.cell["service"]["calls"] == len(shop.sent)


def test_a_quota_that_is_used_up_from_the_start(go, shop):
    shop.faults = [USED_UP]
    with pytest.raises(QuotaExhaustedError, match="goes on tomorrow"):
        go()
    assert len(shop.sent) == 1


def test_the_cap_leaves_room_for_some_repetitions_only(go, shop):
    shop.faults = [(503, {}, "")] * 300
    for _ in range(3):
        with pytest.raises(UnreachableError, match=r"no answer after 12 tries.*goes on from there"):
            go()
    with pytest.raises(CapReachedError, match="cap of 46 calls is reached"):
        go()
    with pytest.raises(CapReachedError, match="cap of 9 calls is reached"):
        go(cap=9)
    assert len(shop.sent) == 24 + 2 + 20


def test_a_search_without_its_answers_is_not_gone_on_with(go):
    go()
    Path("journal/answers.sqlite").unlink()
    with pytest.raises(RankproofError, match=r"journal: holds a search whose answers\.sqlite is gone"):
        go()


def test_the_folder_of_a_search_is_named_by_what_is_asked_for(go, shop):
    for options in ({}, {"pace": Pace(per_second=9.0), "cap": 999}, {"seed": 1}, {"eps": 0.2}):
        go(journal=None, **options)
    assert len(list(Path("runs/wire").iterdir())) == 3
    assert all(path.name.startswith("127.0.0.1-") for path in Path("runs/wire").iterdir())
    assert any("answers are kept in runs/wire/127.0.0.1-" in line for line in go.said)


def test_progress_counts_queries_of_all_attacks(go):
    go()
    done, totals = zip(*go.told, strict=True)
    assert list(done) == sorted(done)
    assert {*totals} == {BUDGET * COUNT}


def test_photographs_of_any_size_and_colour(go, shop, collection, tmp_path):
    Image.new("RGB", (7, 5), (9, 200, 30)).save("colour.png")
    Image.new("L", (4, 4), 77).save("grey.png")
    shop.ids = lambda file: [f"item-{number}" for number in range(6)]
    visited = go(places=[Path("colour.png"), Path("grey.png")])
    assert [Image.open(BytesIO(file)).mode for file in visited.pictures.values()] == ["RGB", "L"]
    assert [Image.open(BytesIO(file)).size for file in visited.pictures.values()] == [(7, 5), (4, 4)]
    assert tuple(visited.result.original.shape) == (2, 3, 5, 7)


def test_pictures_of_several_sizes_are_filled_up_at_the_ends():
    one, two = torch.ones(1, 2, 3), torch.ones(3, 1, 5)
    both = stacked([one, two])
    assert torch.equal(both[0, :1, :2, :3], one)
    assert torch.equal(both[1, :, :1, :], two)
    assert float(both.sum()) == 6 + 15


def test_equal_names_of_pictures_stay_apart(go, photos):
    other = Path("photo-0.png")
    other.write_bytes((photos / "photo-1.png").read_bytes())
    files = go(places=[photos / "photo-0.png", other]).pictures
    assert [*files] == ["photo-0-1-adversarial.png", "photo-0-2-adversarial.png"]


def test_an_empty_first_answer(go, shop):
    shop.ids = lambda file: []
    with pytest.raises(RankproofError, match="found nothing for the first picture"):
        go()


def test_secrets_are_not_written(go, shop):
    visited = go(key="k-secret", environment={"KEY": "another", "TEAM": "red"})
    visited.save(Path("out"))
    for path in [*Path("out").rglob("*"), *Path("journal").rglob("*")]:
        assert path.is_dir() or b"k-secret" not in path.read_bytes()


# -- the command


def call(*words, **options):
    return CliRunner().invoke(app, ["attack", *map(str, words)], **options)


def live(port, photos, *words):
    where = ("--target", f"http://127.0.0.1:{port}/search", "--query", photos)
    return ("--goal", "oa", "--k", 4, "--eps", EPS, "--budget", BUDGET, *where, *words)


def test_the_command(serve, shop, photos):
    port, _ = serve(shop)
    done = call(*live(port, photos, "--json", "--save", "out", "--i-am-authorised", "Ann, my own test"))
    assert done.exit_code == 0, done.stderr
    cell = json.loads(done.stdout)
    assert (cell["trials"], cell["budget"], cell["visible"], cell["method"]) == (COUNT, BUDGET, 12, "auto")
    assert "authorised: Ann, my own test" in cell["notes"]
    assert len(list(Path("out").glob("*-adversarial.png"))) == COUNT
    again = call(*live(port, photos))
    assert again.exit_code == 0
    assert "tau_S of what is seen" in again.stdout
    assert distinct(shop)


def test_the_wanted_order_and_the_key(serve, shop, photos, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "k1")
    Path("key").write_text("k1\n")
    port, _ = serve(shop)
    words = live(port, photos / "photo-0.png", "--order", "3,1,0,2", "--json")
    cells = [
        json.loads(call(*words, *key).stdout) for key in (("--key-env", "SHOP_KEY"), ("--key-file", "key"))
    ]
    (strip,) = cells[0]["attacks"]
    assert strip["wanted"] == [strip["before"][place] for place in (3, 1, 0, 2)]
    assert cells[0]["attacks"] == cells[1]["attacks"]


def test_an_adapter_may_name_the_place(serve, shop, photos):
    port, _ = serve(shop)
    Path("shop.toml").write_text(f'url = "http://127.0.0.1:{port}/"\nids = "ids[*]"\nsend = {{as = "raw"}}\n')
    words = ("--goal", "oa", "--eps", EPS, "--budget", 5, "--query", photos / "photo-0.png", "--json")
    assert call(*words, "--adapter", "shop.toml").exit_code == 0
    Path("shop.toml").write_text("")
    done = call(*words, "--adapter", "shop.toml")
    assert done.exit_code == 2
    assert "shop.toml: has no url; name the service by --target URL" in done.stderr


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("--model", "runs/x"), "--model is about a model, and --target is a running service; leave it out"),
        (("--trials", "3"), "--trials is about a model"),
        (("--grid",), "--grid is about a model"),
        (("--method", "pgd"), "--budget is for black-box attacks and pgd needs gradients"),
        (("--visible", "inf"), "--visible inf: a running service shows no whole ranking"),
        (("--concurrency", "0"), "--concurrency must be at least 1"),
        (("--per-second", "0"), "calls per second must be above 0"),
        (("--cap", "0"), "--cap must be at least 1"),
        (("--key-env", "NOT_THERE"), "--key-env NOT_THERE: there is no such variable"),
        (("--key-file", "nowhere"), "nowhere: No such file or directory"),
        (("--key-env", "A", "--key-file", "b"), "--key-env and --key-file both name a key"),
        (("--adapter", "nowhere.toml"), "nowhere.toml: No such file or directory"),
        (("--query", "nowhere.png"), "nowhere.png: no picture there"),
        (("--k", "13"), "k = 13 results cannot be ordered where only N = 12 are visible"),
    ],
)
def test_bad_options(serve, shop, photos, words, fragment):
    port, _ = serve(shop)
    done = call(*live(port, photos), *words)
    assert done.exit_code == 2, done.output
    assert fragment in done.stderr
    assert done.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (
            ("--goal", "qa+", "--target", "http://127.0.0.1:9/"),
            "makes a black-box attack, which there is for oa",
        ),
        (("--goal", "oa", "--target", "http://127.0.0.1:9/"), "--query: name the picture to attack"),
        (("--goal", "oa", "--target", "http://8.8.8.8/", "--query", "photos"), "--i-am-authorised"),
        (("--goal", "oa", "--query", "photos"), "--query is about a running service, which --target names"),
        (("--goal", "oa", "--model", "x", "--cap", "3"), "--cap is about a running service"),
        (("--goal", "oa"), "--model: name what is attacked, or a running service by --target"),
    ],
)
def test_what_does_not_go_together(photos, words, fragment):
    done = call("--eps", EPS, *words)
    assert done.exit_code == 2, done.output
    assert fragment in done.stderr


def test_a_killed_attack_goes_on(serve, shop, photos, tmp_path):
    port, _ = serve(shop)
    words = [str(word) for word in live(port, photos, "--json", "--concurrency", 2)]
    attacker = []

    def kill():
        os.kill(attacker[0].pid, signal.SIGKILL)
        attacker[0].wait()
        return None, {}, ""

    def run(folder):
        folder.mkdir()
        attacker[:] = [
            subprocess.Popen(
                [sys.executable, "-m", "rankproof", "attack", *words],
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        ]
        return attacker[0].communicate()

    shop.faults = [*[None] * 17, kill]
    folder = tmp_path / "killed"
    run(folder)
    assert attacker[0].returncode == -signal.SIGKILL
    sent = len(shop.sent)
    os.rename(folder / "runs", tmp_path / "runs")
    done = call(*words)
    assert done.exit_code == 0, done.stderr
    cell = json.loads(done.stdout)
    # At most the two calls that were under way when it died were made again.
    assert len(shop.sent) - len(set(shop.sent)) <= 2
    assert sent < len(shop.sent) == cell["service"]["calls"]
    assert cell["attacks"] == json.loads(call(*words, "--journal", "afresh").stdout)["attacks"]
