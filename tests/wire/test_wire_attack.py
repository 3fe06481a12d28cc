import json
import os
import random
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rankproof import AttackResult, LocalOracle, RankproofError, Reorder, ThompsonSampling, Threat, attack
from rankproof.cli import app
from rankproof.wire import CapReachedError, QuotaExhaustedError, RateLimit, UnreachableError
from rankproof.wire.attack import ServiceAttack, attack_service, find_images, pad_and_stack, read_image
from rankproof.wire.http_oracle import exact_png

SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"
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
        (folder / f"photo-{number}.png").write_bytes(exact_png((picture * 255).round() / 255))
    return folder


@pytest.fixture
def go(service, clock, photos):
    """Attacks the service."""
    said, told = [], []

    def run(**options):
        settings = {
            "url": "http://127.0.0.1:8000/search",
            "environment": {},
            "queries": [photos],
            "goal": GOAL,
            "method": ThompsonSampling(),
            "budget": BUDGET,
            "eps": EPS,
            "rate_limit": RateLimit(concurrency=2),
            "journal": Path("journal"),
        }
        request = ServiceAttack(**settings | options)
        return attack_service(
            request,
            said.append,
            lambda *done: told.append(done),
            transport=service.transport(),
            sleep=clock.sleep,
        )

    run.said, run.told = said, told
    return run


def distinct(service, checks):
    # Whether no image was answered twice, but for those that were asked again on purpose.
    return len(service.answered) == len(set(service.answered)) + checks


def test_the_report_is_that_of_the_local_attack_with_null_where_nothing_is_known(
    go, service, collection, pictures
):
    report = go()
    local = attack(
        LocalOracle(collection, 12), pictures[:COUNT].float(), GOAL, Threat(EPS, grid=True), budget=BUDGET
    )
    assert torch.equal(report.result.adversarial, local.adversarial)
    cell, expected = report.to_json(), local.summary.to_json()
    for key in ("tau_before", "tau", "after", "ci95", "curve", "queries_spent", "queries_max", "trials", "k"):
        assert cell[key] == expected[key]
    assert {*cell} - {*expected} == {"service", "attacks"}
    for key in ("mean_rank", "mean_rank_before", "rank_after", "gallery_size", "model", "model_seconds"):
        assert cell[key] is None
    assert cell["visible"] == 12  # as many as the first answer had
    assert cell["service"]["calls"] == cell["service"]["calls_today"] == len(service.sent)
    assert cell["service"]["authorised"] is None
    text = json.dumps(cell, allow_nan=False)
    documents = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    validator = jsonschema_rs.Draft202012Validator(
        documents["attack-service.json"], registry=jsonschema_rs.Registry(list(documents.items()))
    )
    assert not [error.message for error in validator.iter_errors(json.loads(text))]
    assert [*validator.iter_errors({**cell, "score": 1})]


def test_what_is_saved(go, service, collection):
    report = go()
    report.save(Path("out"))
    names = {path.name for path in Path("out").iterdir()}
    files = {f"photo-{number}-adversarial.png" for number in range(COUNT)}
    assert names == {"result.json", "strips.json", "attack.npz", *files}
    assert json.loads(Path("out/result.json").read_text()) == report.to_json()
    for number, strip in enumerate(json.loads(Path("out/strips.json").read_text())):
        sent = Path("out", strip["adversarial"]).read_bytes()
        assert sent in service.answered
        assert strip["after"] == service.ids(sent)
        assert {*strip["wanted"]} == {*strip["before"][:4]}
        pixels = torch.from_numpy(np.asarray(Image.open(BytesIO(sent))).copy()) / 255
        assert torch.equal(pixels, report.result.adversarial[number, 0])
    assert AttackResult.load("out").gallery_size == 0


def test_a_quota_on_the_third_of_five_attacks(go, service, pictures):
    five = [filled(Path("five"), pictures[:5])]
    uninterrupted = go(queries=five, journal=Path("other"))
    checks = uninterrupted.result.log.repeats.count.tolist()
    for_two = sum(uninterrupted.result.log.spent.tolist()[:2]) + sum(checks[:2])
    service.sent.clear()
    service.answered.clear()
    service.faults = [None] * (for_two + 4) + [USED_UP]
    with pytest.raises(QuotaExhaustedError) as caught:
        go(queries=five)
    text = str(caught.value)
    assert "the quota is used up" in text
    assert text.endswith("the search is kept in journal, the same command goes on tomorrow")
    assert len(list(Path("journal").glob("*/search-*.npz"))) == 3
    done = len(service.answered)
    report = go(queries=five)
    assert torch.equal(report.result.adversarial, uninterrupted.result.adversarial)
    assert torch.equal(report.result.log.spent, uninterrupted.result.log.spent)
    assert torch.equal(report.result.log.repeats.after, uninterrupted.result.log.repeats.after)
    assert distinct(service, sum(checks))
    assert for_two + 4 <= done < len(service.answered) <= (BUDGET + 2) * 5
    assert report.to_json()["service"]["calls"] == len(service.sent)


def test_a_quota_that_is_used_up_from_the_start(go, service):
    service.faults = [USED_UP]
    with pytest.raises(QuotaExhaustedError, match="goes on tomorrow"):
        go()
    assert len(service.sent) == 1


def test_the_cap_leaves_room_for_some_repetitions_only(go, service):
    service.faults = [(503, {}, "")] * 300
    for _ in range(4):
        with pytest.raises(UnreachableError, match=r"no answer after 12 tries.*goes on from there"):
            go()
    with pytest.raises(CapReachedError, match="cap of 50 calls is reached"):
        go()
    with pytest.raises(CapReachedError, match="cap of 9 calls is reached"):
        go(cap=9)
    assert len(service.sent) == 24 + 4 + 2 + 20


def test_a_search_without_its_answers_is_not_gone_on_with(go):
    go()
    Path("journal/answers.sqlite").unlink()
    with pytest.raises(RankproofError, match=r"journal: holds a search whose answers\.sqlite is gone"):
        go()


def test_the_folder_of_a_search_is_named_by_what_is_asked_for(go, service):
    for options in ({}, {"rate_limit": RateLimit(per_second=9.0), "cap": 999}, {"seed": 1}, {"eps": 0.2}):
        go(journal=None, **options)
    assert len(list(Path("runs/wire").iterdir())) == 3
    assert all(path.name.startswith("127.0.0.1-") for path in Path("runs/wire").iterdir())
    assert any("answers are kept in runs/wire/127.0.0.1-" in line for line in go.said)


def test_progress_counts_queries_of_all_attacks(go):
    go()
    done, totals = zip(*go.told, strict=True)
    assert list(done) == sorted(done)
    assert {*totals} == {BUDGET * COUNT}


def test_photographs_of_any_size_and_colour(go, service, collection, tmp_path):
    Image.new("RGB", (7, 5), (9, 200, 30)).save("colour.png")
    Image.new("L", (4, 4), 77).save("grey.png")
    service.ids = lambda file: [f"item-{number}" for number in range(6)]
    report = go(queries=[Path("colour.png"), Path("grey.png")])
    assert [Image.open(BytesIO(file)).mode for file in report.images.values()] == ["RGB", "L"]
    assert [Image.open(BytesIO(file)).size for file in report.images.values()] == [(7, 5), (4, 4)]
    assert tuple(report.result.original.shape) == (2, 3, 5, 7)


def test_pictures_of_several_sizes_are_filled_up_at_the_ends():
    one, two = torch.ones(1, 2, 3), torch.ones(3, 1, 5)
    both = pad_and_stack([one, two])
    assert torch.equal(both[0, :1, :2, :3], one)
    assert torch.equal(both[1, :, :1, :], two)
    assert float(both.sum()) == 6 + 15


def test_equal_names_of_pictures_stay_apart(go, photos):
    other = Path("photo-0.png")
    other.write_bytes((photos / "photo-1.png").read_bytes())
    files = go(queries=[photos / "photo-0.png", other]).images
    assert [*files] == ["photo-0-1-adversarial.png", "photo-0-2-adversarial.png"]


def test_an_empty_first_answer(go, service):
    service.ids = lambda file: []
    with pytest.raises(RankproofError, match="found nothing for the first image"):
        go()


def test_secrets_are_not_written(go, service):
    report = go(key="k-secret", environment={"KEY": "another", "TEAM": "red"})
    report.save(Path("out"))
    for path in [*Path("out").rglob("*"), *Path("journal").rglob("*")]:
        assert path.is_dir() or b"k-secret" not in path.read_bytes()


# -- a service that answers the same image differently


class Random:
    """Answers in a random order, always or now and then."""

    def __init__(self, share=1.0, seed=0):
        self.share, self.random = share, random.Random(seed)

    def __call__(self, ids):
        return self.random.sample(ids, len(ids)) if self.random.random() < self.share else ids


def test_a_service_that_answers_at_random_is_named_with_the_figure_to_trust(go, service, pictures):
    plain, shuffled = service.ids, Random()
    service.ids = lambda file: shuffled(plain(file))
    one_by_one = RateLimit(concurrency=1)  # so that the random answers come in the same order
    report = go(queries=[filled(Path("eight"), pictures[:8])], budget=30, rate_limit=one_by_one)
    cell, repeats = report.to_json(), report.result.log.repeats
    assert distinct(service, cell["checks"])
    assert cell["checks"] > 12
    assert cell["tau"] > 0.4
    assert abs(cell["tau_again"]) < 0.4 < cell["tau"] - cell["tau_again"]
    assert cell["checks_differing"] >= 7
    assert [strip["tau_again"] for strip in cell["attacks"]] == repeats.after.tolist()
    (note,) = [note for note in cell["notes"] if "the same image" in note]
    assert f"differed in {cell['checks_differing']} of 8 attacks" in note
    assert f"told {cell['tau']:.2f}, have {cell['tau_again']:.2f} when asked again" in note


def test_a_stopped_search_asks_nothing_again_that_it_has_asked_again(go, service):
    plain, shuffled = service.ids, Random()
    service.ids = lambda file: shuffled(plain(file))
    first = go()
    sent = len(service.sent)
    again = go()
    assert len(service.sent) == sent
    assert distinct(service, first.to_json()["checks"])
    assert again.to_json()["notes"] == first.to_json()["notes"]
    assert torch.equal(again.result.log.repeats.after, first.result.log.repeats.after)


def test_a_cap_that_is_just_enough_for_the_budgets_is_kept_for_them(go, service):
    report = go(cap=BUDGET * COUNT + 3)
    assert distinct(service, 0)
    assert report.to_json()["checks"] is report.to_json()["tau_again"] is None
    assert any("--cap leaves no room for 2 calls an image" in note for note in report.result.notes)
    assert go(cap=BUDGET * COUNT + 4, journal=Path("other")).to_json()["checks"] is not None


# -- images


def test_an_image_of_any_size_goes_there_and_back(tmp_path):
    for channels, height, width in ((1, 3, 500), (3, 641, 7)):
        picture = torch.randint(256, (channels, height, width)) / 255
        (tmp_path / "photo.png").write_bytes(exact_png(picture))
        assert torch.equal(read_image(tmp_path / "photo.png"), picture)


def test_transparent_images_are_refused(tmp_path):
    Image.new("RGBA", (4, 4), (1, 2, 3, 100)).save(tmp_path / "clear.png")
    with pytest.raises(RankproofError, match="without an alpha channel"):
        read_image(tmp_path / "clear.png")


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"hello")
    with pytest.raises(RankproofError, match="not an image"):
        read_image(tmp_path / "photo.png")


def test_folders_are_read_in_the_order_of_names(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    single = tmp_path / "b.png"
    assert [path.name for path in find_images([single, tmp_path])] == ["b.png", "a.JPG", "b.png"]


def test_places_without_images_are_named(tmp_path):
    for places, message in (
        ([], "--query"),
        ([tmp_path], "no image there"),
        ([tmp_path / "x"], "no image"),
    ):
        with pytest.raises(RankproofError, match=message):
            find_images(places)


# -- the command


def call(*words, command="attack-service"):
    return CliRunner().invoke(app, [command, *map(str, words)])


def live(port, photos, *words):
    where = ("--target", f"http://127.0.0.1:{port}/search", "--query", photos)
    return ("--goal", "oa", "--k", 4, "--eps", EPS, "--budget", BUDGET, *where, *words)


def test_the_command(serve, service, photos):
    port, _ = serve(service)
    done = call(*live(port, photos, "--json", "--save", "out", "--i-am-authorised", "Ann, my own test"))
    assert done.exit_code == 0, done.stderr
    cell = json.loads(done.stdout)
    assert (cell["trials"], cell["budget"], cell["visible"], cell["method"]) == (
        COUNT,
        BUDGET,
        12,
        "thompson",
    )
    assert "authorised: Ann, my own test" in cell["notes"]
    assert len(list(Path("out").glob("*-adversarial.png"))) == COUNT
    again = call(*live(port, photos))
    assert again.exit_code == 0
    assert "tau_S of what is seen" in again.stdout
    assert f"{cell['checks']} queries asked an image again; the answer differed in 0 of 2" in again.stdout
    assert distinct(service, cell["checks"])


def test_the_wanted_order_and_the_key(serve, service, photos, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "k1")
    Path("key").write_text("k1\n")
    port, _ = serve(service)
    words = live(port, photos / "photo-0.png", "--order", "3,1,0,2", "--json")
    cells = [
        json.loads(call(*words, *key).stdout) for key in (("--key-env", "SHOP_KEY"), ("--key-file", "key"))
    ]
    (strip,) = cells[0]["attacks"]
    assert strip["wanted"] == [strip["before"][place] for place in (3, 1, 0, 2)]
    assert cells[0]["attacks"] == cells[1]["attacks"]


def test_an_adapter_may_name_the_place(serve, service, photos):
    port, _ = serve(service)
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
        (("--model", "runs/x"), "--model: a model is attacked by `rankproof attack --model NAME ...`"),
        (("--trials", "3"), "--trials: a model is attacked by `rankproof attack"),
        (("--grid",), "--grid: a model is attacked by `rankproof attack"),
        (("--steps=9",), "--steps: a model is attacked by `rankproof attack"),
        (("--method", "pgd"), "--method 'pgd' needs gradients; known: auto, "),
        (
            ("--method", "best"),
            "--method 'best' is unknown; known: auto, thompson, rand, beta, pso, nes, spsa",
        ),
        (("--visible", "inf"), "--visible inf: a running service shows no whole ranking"),
        (("--concurrency", "0"), "--concurrency must be at least 1"),
        (("--per-second", "0"), "per_second must be above 0"),
        (("--cap", "0"), "--cap must be at least 1"),
        (("--key-env", "NOT_THERE"), "--key-env NOT_THERE: there is no such variable"),
        (("--key-file", "nowhere"), "nowhere: No such file or directory"),
        (("--key-env", "A", "--key-file", "b"), "--key-env and --key-file both name a key"),
        (("--adapter", "nowhere.toml"), "nowhere.toml: No such file or directory"),
        (("--query", "nowhere.png"), "nowhere.png: no image there"),
        (("--k", "13"), "k = 13 results cannot be ordered where only N = 12 are visible"),
    ],
)
def test_bad_options(serve, service, photos, words, fragment):
    port, _ = serve(service)
    done = call(*live(port, photos), *words)
    assert done.exit_code == 2, done.output
    assert fragment in done.stderr
    assert done.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (
            ("--goal", "qa+", "--target", "http://127.0.0.1:9/"),
            "--goal qa+ needs more than the order of results, which is all that a service shows; "
            "choose --goal oa",
        ),
        (("--goal", "oa", "--target", "http://127.0.0.1:9/"), "--query: name the image to attack"),
        (("--goal", "oa", "--target", "http://8.8.8.8/", "--query", "photos"), "--i-am-authorised"),
        (("--goal", "oa", "--query", "photos"), "error: name the service by --target URL"),
    ],
)
def test_what_does_not_go_together(photos, words, fragment):
    done = call("--eps", EPS, *words)
    assert done.exit_code == 2, done.output
    assert fragment in done.stderr
    assert done.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--goal", "oa", "--eps", EPS, "--target", "http://127.0.0.1:9/", "--k", "5"), "--target"),
        (("--target=http://127.0.0.1:9/",), "--target"),
        (("--goal", "oa", "--query", "photos"), "--query"),
        (("--goal", "oa", "--model", "x", "--cap", "3"), "--cap"),
        (("--adapter", "shop.toml", "--target", "http://127.0.0.1:9/"), "--adapter"),
    ],
)
def test_attack_answers_in_one_line_which_command_attacks_a_service(words, option):
    done = call(*words, command="attack")
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    line = f"error: {option}: a running service is attacked by `rankproof attack-service --target URL ...`\n"
    assert done.stderr == line


def test_a_killed_attack_goes_on(serve, service, photos, tmp_path):
    port, _ = serve(service)
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
                [sys.executable, "-m", "rankproof", "attack-service", *words],
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        ]
        return attacker[0].communicate()

    service.faults = [*[None] * 17, kill]
    folder = tmp_path / "killed"
    run(folder)
    assert attacker[0].returncode == -signal.SIGKILL
    sent = len(service.sent)
    os.rename(folder / "runs", tmp_path / "runs")
    done = call(*words)
    assert done.exit_code == 0, done.stderr
    cell = json.loads(done.stdout)
    # At most the two calls that were under way when it died were made again.
    assert len(service.sent) - len(set(service.sent)) <= 2 + cell["checks"]
    assert sent < len(service.sent) == cell["service"]["calls"]
    assert cell["attacks"] == json.loads(call(*words, "--journal", "afresh").stdout)["attacks"]
