"""Both pages in a real browser: by mouse, by keyboard, on a phone."""

import asyncio
import json
import re
import shutil
import socket
import threading
from io import BytesIO
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from rankproof.ranking.metrics import short_range_tau
from rankproof.service.app import create_app
from rankproof.service.lab import router
from rankproof.service.limits import Limits
from rankproof.service.opening import open_service
from rankproof.system import load_task

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")

LIMITS = Limits(per_day=1000, per_second=1000, window=0.0)
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
HAND_OVER = """([kind, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  document.querySelector("#drop").dispatchEvent(kind === "paste"
    ? new ClipboardEvent(kind, { ...options, clipboardData: transfer })
    : new DragEvent(kind, { ...options, dataTransfer: transfer }));
}"""


@pytest.fixture(scope="module")
def served(models, tmp_path_factory):
    """The service behind the pages, and where they are."""
    subject = load_task(str(models / "cosine"), None)
    service = open_service(subject, tmp_path_factory.mktemp("page"), limits=LIMITS)
    server = uvicorn.Server(uvicorn.Config(create_app(service, [router]), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        yield service, f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(served, chromium):
    """Opens a page; at the end its console must hold no errors but the announced ones."""
    contexts, errors, urls = [], [], set()

    def new(path="/", announced="nothing", **options):
        context = chromium.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.add(request.url))
        page.goto(served[1] + path)
        playwright.expect(page.locator("#gallery .tile")).not_to_have_count(0)
        new.announced = announced
        return page

    yield new
    for context in contexts:
        context.close()
    assert [line for line in errors if not re.search(new.announced, line)] == []
    assert {urlsplit(url).netloc for url in urls if url.startswith("http")} == {urlsplit(served[1]).netloc}


@pytest.fixture
def mine(local, files, tmp_path):
    """The file of item 7."""
    path = tmp_path / "mine.png"
    path.write_bytes(files.png(local.dataset.images[7]))
    return path


def expect(page, selector):
    return playwright.expect(page.locator(selector))


def results(page, count=50):
    """The ids of the results in their order."""
    expect(page, "#results:not([aria-busy]) .tile").to_have_count(count)
    labels = page.locator("#results .tile").evaluate_all("all => all.map(one => one.ariaLabel)")
    found = [re.match(r"Rank (\d+), item (\w+)", label) for label in labels]
    assert [int(one[1]) for one in found] == list(range(1, count + 1))
    return [one[2] for one in found]


def focused(page):
    return page.evaluate("document.activeElement.ariaLabel")


def ranking(service, image):
    return service.search(image[None])[0]


# -- the page


def test_a_chosen_file_is_searched_and_a_result_searches_on(served, visit, mine, local):
    service, _ = served
    page = visit()
    expect(page, "#items").to_have_text("797 items")
    left = page.inner_text("#calls")
    page.set_input_files("#file", mine)
    ids = results(page)
    assert ids == ranking(service, local.dataset.images[7])
    expect(page, "#name").to_have_text("mine.png")
    expect(page, "#calls").not_to_have_text(left)
    assert page.inner_text("#calls") == f"{1000 - service.quota.spent('anonymous')} of 1,000 calls left today"
    page.click(f"#results .tile >> nth={3}")
    expect(page, "#name").to_have_text(f"Item {ids[3]}")
    expect(page, "#results .tile >> nth=0").to_have_attribute(
        "aria-label", re.compile(f"item {ranking(service, local.dataset.images[int(ids[3])])[0]}:")
    )
    page.reload()  # the address knows the item
    assert results(page) == ranking(service, local.dataset.images[int(ids[3])])
    assert page.locator("#results img").evaluate_all("all => all.every(one => one.draggable === false)")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted(visit, served, mine, local, kind):
    page = visit()
    page.evaluate(HAND_OVER, [kind, list(mine.read_bytes())])
    assert results(page) == ranking(served[0], local.dataset.images[7])


def test_by_keyboard_alone(visit):
    page = visit()
    page.focus("#others")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    second = page.locator("#gallery .tile").nth(1).get_attribute("aria-label")
    assert focused(page) == second
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # it can be seen where one is
    page.keyboard.press("Enter")
    ids = results(page)
    expect(page, "#name").to_have_text(re.match(r"Item \w+", second)[0])
    page.focus("#results .tile")
    page.keyboard.press("ArrowDown")
    tops = page.locator("#results .tile").evaluate_all("all => all.map(one => one.offsetTop)")
    columns = tops.index(next(top for top in tops if top > tops[0]))
    assert focused(page).startswith(f"Rank {columns + 1}, item {ids[columns]}")
    page.keyboard.press("End")
    assert focused(page).startswith("Rank 50,")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")  # there is nothing above
    assert focused(page).startswith("Rank 1,")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page, "#name").to_have_text(f"Item {ids[1]}")
    results(page)
    assert focused(page).startswith("Rank 1,")  # of the new results


def test_refusals_are_shown_in_the_words_of_the_service(visit, tmp_path, served, mine, local):
    page = visit(announced="415")
    (tmp_path / "notes.txt").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.txt")
    expect(page, "#error").to_contain_text("Send the image as image/png")
    expect(page, "#empty").to_be_visible()
    page.set_input_files("#file", mine)
    results(page)
    expect(page, "#error").to_be_hidden()


def test_a_key_is_asked_for_where_there_are_keys(visit, served, mine):
    service, _ = served
    key = service.keys.add("alice")
    try:
        page = visit(announced="401")
        expect(page, "#error").to_contain_text("key is needed")
        page.set_input_files("#file", mine)
        page.fill("#key-field", key)
        page.keyboard.press("Enter")
        results(page)
        expect(page, "#key").to_be_hidden()
        page.reload()  # the tab remembers the key
        page.set_input_files("#file", mine)
        results(page)
        expect(page, "#calls").to_have_text("998 of 1,000 calls left today")
    finally:
        service.keys.remove("alice")


# -- the lab


def order(page):
    return page.locator("#order li").evaluate_all("all => all.map(one => one.dataset.id)")


def drag(page, place, to):
    """By mouse, in steps, as a hand does."""
    start, end = (page.locator("#order li").nth(number).bounding_box() for number in (place, to))
    page.mouse.move(start["x"] + 20, start["y"] + 20)
    page.mouse.down()
    page.mouse.move(end["x"] + 25, end["y"] + 15, steps=5)
    page.mouse.up()


def swipe(page, place, to):
    """The same by finger."""
    page.locator("#order").scroll_into_view_if_needed()
    boxes = (page.locator("#order li").nth(number).bounding_box() for number in (place, to))
    (x, y), (right, below) = ((box["x"] + 20, box["y"] + 20) for box in boxes)
    touch = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [(x, y)]),
        ("touchMove", [(x + 9, y + 9)]),
        ("touchMove", [(right, below)]),
        ("touchEnd", []),
    ):
        points = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_results_are_dragged_into_an_order_and_attacked(served, visit, mine, local, tmp_path):
    service, _ = served
    spent = service.quota.spent("anonymous")
    page = visit("/lab.html")
    page.set_input_files("#file", mine)
    ids = results(page)
    expect(page, "#run").to_be_disabled()
    for place in (2, 0, 4, 6):
        page.click(f"#results .tile >> nth={place}")
    page.click("#results .tile >> nth=6")  # picked by mistake
    assert order(page) == [ids[2], ids[0], ids[4]]
    drag(page, 0, 2)
    assert order(page) == [ids[0], ids[4], ids[2]]
    drag(page, 1, 0)
    drag(page, 2, 1)
    wanted = [ids[4], ids[2], ids[0]]
    assert order(page) == wanted
    expect(page, "#results .tile >> nth=4 >> .mark").to_have_text("A")
    page.fill("#eps", "24")
    expect(page, "#eps-value").to_have_text("24/255")
    page.fill("#budget", "60")
    page.fill("#seed", "1")
    page.click("#run")
    expect(page, "#status").to_have_text("finished", timeout=60_000)
    with page.expect_download() as got:
        page.click("#get-result")
    result = json.loads(got.value.path().read_text())
    assert (got.value.suggested_filename, result["wanted"], result["budget"]) == ("result.json", wanted, 60)
    assert result["tau"] == max(result["scores"]) > result["tau_before"]
    assert page.inner_text("#tau") == f"{result['tau']:.2f}".replace("-", "−")
    assert page.inner_text("#spent").startswith(f"{result['queries_spent']} of 60 queries")
    expect(page, "#ranking .tile").to_have_count(50)
    shown = page.locator("#ranking .mark").all_inner_texts()
    assert [shown.index(mark) for mark in "ABC" if mark in shown] == [
        result["after"].index(name) for name in wanted if name in result["after"]
    ]
    with page.expect_download() as got:
        page.click("#get-image")
    sent = Image.open(got.value.path())
    change = np.asarray(sent).astype(int) - local.dataset.images[7, 0].numpy().astype(int)
    assert 0 < abs(change).max() <= 24
    drawn = page.evaluate("(({ width, height }) => [width, height])(document.querySelector('#change'))")
    assert drawn == [8, 8]
    found = ranking(service, torch.from_numpy(np.asarray(sent).copy())[None])
    places = torch.tensor([found.index(name) if name in found else 50 for name in wanted])
    assert float(short_range_tau(places, 50)) == result["tau"]
    with page.expect_download() as got:
        page.click("#get-report")
    assert Image.open(BytesIO(got.value.path().read_bytes())).format == "PNG"
    assert service.quota.spent("anonymous") == spent  # nothing of all that counts


def test_the_order_by_keyboard(visit):
    page = visit("/lab.html#7")
    ids = results(page)
    page.click("#five")
    page.focus("#order button")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page, "#moved").to_contain_text("lifted")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page, "#moved").to_have_text("D, place 4")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")  # moves on, not the item
    assert order(page) == [ids[0], ids[2], ids[3], ids[1], ids[4]]
    assert focused(page) == f"C: item {ids[3]}, place 3 of 5"
    page.keyboard.press("Delete")
    assert order(page) == [ids[0], ids[2], ids[1], ids[4]]
    assert focused(page) == f"C: item {ids[1]}, place 3 of 4"
    page.click("#reverse")
    assert order(page) == [ids[4], ids[1], ids[2], ids[0]]
    page.click("#clear")
    assert order(page) == []


def test_an_attack_is_stopped(visit):
    page = visit("/lab.html#7")
    results(page)
    page.click("#five")
    page.click("#reverse")
    page.fill("#eps", "1")
    page.fill("#budget", "10000")
    page.click("#run")
    expect(page, "#spent").to_contain_text("of 10000 queries")
    page.click("#stop")
    expect(page, "#status").to_have_text("stopped")
    expect(page, "#run").to_be_visible()


def test_on_a_phone(visit, served):
    page = visit("/#7", **PHONE)
    results(page)
    assert not page.evaluate(WIDE)
    page = visit("/lab.html#7", **PHONE)
    ids = results(page)
    page.tap("#five")
    swipe(page, 0, 4)
    assert order(page) == [*ids[1:5], ids[0]]
    page.fill("#budget", "10")
    page.click("#run")
    expect(page, "#status").to_have_text("finished", timeout=60_000)
    expect(page, "#ranking .tile").to_have_count(50)
    assert not page.evaluate(WIDE)
