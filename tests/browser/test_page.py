"""The page in a real browser: what a person sees, presses and takes home."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from serving import Served
from stand_in import photograph

from dreamtime.presets import DRAFT
from dreamtime.ui.text_layout import example_pictures

pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 90_000  # milliseconds; software rendering on a busy machine is slow
expect.set_options(timeout=PATIENCE)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(app: Served, browser: Browser) -> Iterator[Open]:
    """Opens the page at a path and size; at the end, no page may have asked any other machine for anything."""
    asked: list[str] = []
    contexts = []

    def open_page(path: str = "", width: int = 1440, height: int = 900) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(app.url + path)
        page.get_by_role("button", name="Generate", exact=True).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith((app.url, "data:", "blob:"))] == []


def open_advanced(page: Page) -> None:
    """Show the knobs. A few frames later Gradio (6.31) sets them all once more, to what they had before anybody typed."""
    page.get_by_role("button", name=re.compile("Advanced")).locator("visible=true").click()
    page.get_by_role("spinbutton", name=re.compile("^Steps")).locator("visible=true").wait_for()
    page.evaluate("async () => { for (let i = 0; i < 5; i++) await new Promise(requestAnimationFrame) }")


def start(page: Page, prompt: str, steps: int) -> None:
    """Type a prompt, choose the draft preset and that many steps, and press Generate."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("radio", name=re.compile("Draft")).check()
    open_advanced(page)
    number = page.get_by_role("spinbutton", name=re.compile("^Steps")).first
    expect(number).to_have_value(str(DRAFT.steps))
    number.fill(str(steps))
    page.get_by_role("button", name="Generate", exact=True).click()


def asked(page: Page) -> dict[str, str]:
    """What the controls of a page ask for."""
    steps = page.get_by_role("spinbutton", name=re.compile("^Steps")).first
    if not steps.is_visible():
        open_advanced(page)
    return {
        "prompt": page.get_by_label("Prompt", exact=True).first.input_value(),
        "quality": page.locator(".dt-presets input:checked").first.input_value(),
        "steps": steps.input_value(),
    }


def headline(page: Page) -> Locator:
    return page.locator(".dt-status b:visible")


def colors(element: Locator) -> int:
    """How many different colours a part of the page shows."""
    with Image.open(io.BytesIO(element.screenshot(timeout=PATIENCE))) as picture:
        return len(picture.convert("RGB").getcolors(maxcolors=10_000_000) or ())


def colorful_share(element: Locator, rows: slice) -> float:
    """The share of red, green and other pixels that are no shade of grey in those rows of a part of the page."""
    with Image.open(io.BytesIO(element.screenshot(timeout=PATIENCE))) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)[rows]
    return float((np.ptp(pixels, axis=-1) > 60).mean())


def wait_for_model(page: Page) -> None:
    """Until the viewer shows more colours than a blank one."""
    viewer = page.locator(".dt-model:visible")
    viewer.locator("canvas").wait_for()
    for _ in range(60):
        if colors(viewer) > 1000:
            return
        page.wait_for_timeout(1000)
    pytest.fail("the viewer stayed blank")


@pytest.fixture(scope="module")
def finished(app: Served, browser: Browser) -> Iterator[dict[str, Any]]:
    """One short run in one page, with what was seen on the way; meanwhile no other machine may be asked for anything."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    page, asked = context.new_page(), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(app.url)
    start(page, "a red cube", 48)
    live = page.locator(".dt-picture img").first
    live.wait_for()
    frames, marks = set(), set()
    while headline(page).inner_text() in ("Preparing", "Optimising"):
        frames.add(live.get_attribute("src"))
        marks.update(dot.get_attribute("style") for dot in page.locator(".dt-dot").element_handles())
        page.wait_for_timeout(150)
    expect(headline(page)).to_have_text("Finished", timeout=PATIENCE)
    yield {"page": page, "frames": frames, "marks": marks}
    context.close()
    assert [url for url in asked if not url.startswith((app.url, "data:", "blob:"))] == []


def test_the_object_takes_shape_before_the_eyes(finished: dict[str, Any]) -> None:
    assert len(finished["frames"]) >= 3
    assert len(finished["marks"]) >= 3, "the marker moves along the schedule"


def test_the_viewer_shows_the_model(finished: dict[str, Any]) -> None:
    wait_for_model(finished["page"])


def test_the_result_can_be_taken_home(finished: dict[str, Any]) -> None:
    page: Page = finished["page"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download GLB").click()
    assert download.value.suggested_filename == "a-red-cube.glb"
    assert download.value.path().read_bytes()[:4] == b"glTF"
    expect(page.locator("video")).to_have_count(2)
    expect(page.locator(".dt-result")).to_contain_text("watertight")


def test_the_seed_that_was_drawn_is_written_back(finished: dict[str, Any]) -> None:
    page: Page = finished["page"]
    seed = page.get_by_label("Seed", exact=True).first.input_value()
    assert seed != "0"
    expect(page.locator(".dt-result")).to_contain_text(seed)


def test_a_link_shows_a_finished_run_and_the_browser_remembers_it(finished: dict[str, Any], open_page: Open) -> None:
    link = finished["page"].get_by_role("link", name="Link to this result").get_attribute("href")
    page = open_page(link)
    expect(headline(page)).to_have_text("Finished")
    wait_for_model(page)
    assert asked(page) == asked(finished["page"]) == {"prompt": "a red cube", "quality": "draft", "steps": "48"}
    seed = finished["page"].get_by_label("Seed", exact=True).first.input_value()
    expect(page.get_by_label("Seed", exact=True).first).to_have_value(seed)
    expect(page.get_by_role("checkbox", name="New seed each time").first).not_to_be_checked()
    expect(page.locator(".dt-dot").first).to_have_attribute("style", re.compile("left:100"))
    finished["page"].reload()
    finished["page"].get_by_role("button", name=re.compile("show an earlier run")).click()
    expect(finished["page"].get_by_label("Run id")).to_have_value(link.removeprefix("?run="))


def test_before_the_first_run_there_are_results_and_pressing_one_asks_for_the_same(open_page: Open) -> None:
    page = open_page()
    expect(page.locator(".dt-tile img")).to_have_count(len(example_pictures()))
    tile = page.locator(".dt-tile").nth(1)
    prompt = tile.inner_text().strip()
    tile.click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(prompt)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".dt-showcase")).to_have_count(0)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(headline(page)).to_have_text("Stopped", timeout=PATIENCE)
    expect(page.locator(".dt-result h3")).to_contain_text(prompt)


def test_unknown_words_are_told_and_run_all_the_same(open_page: Open) -> None:
    page = open_page()
    start(page, "a blue dragon", 1)
    expect(page.get_by_text('has never seen "dragon"').first).to_be_visible()
    expect(headline(page)).to_have_text("Finished", timeout=PATIENCE)
    expect(page.locator(".dt-result li").first).to_contain_text("dragon")


def test_stop_keeps_what_is_there(open_page: Open) -> None:
    page = open_page()
    start(page, "a blue sphere", 400)
    page.locator(".dt-picture img").first.wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(headline(page)).to_have_text("Stopped", timeout=PATIENCE)
    expect(page.locator(".dt-status")).to_contain_text("of 400; Resume goes on")
    expect(page.get_by_role("button", name="Download GLB")).to_be_visible()
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()


def test_a_wrong_prompt_is_told_as_text(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_text("The prompt is empty")).to_be_visible()
    page.goto(page.url + "?run=%3Cimg%20src%3Dx%3E")
    expect(page.get_by_text("A run id is 32 hexadecimal digits")).to_be_visible()
    assert page.locator("img[src=x]").count() == 0


def test_the_schedule_follows_its_settings_before_anything_runs(open_page: Open) -> None:
    page = open_page()
    curve = page.locator(".dt-schedule path.dt-t").first
    open_advanced(page)
    for knob, value in (("m", "300"), ("t min", "900")):
        before = curve.get_attribute("d")
        page.get_by_label(knob, exact=knob == "m").first.fill(value)
        expect(curve).not_to_have_attribute("d", before or "")
    page.get_by_label("t max").first.fill("100")
    expect(page.get_by_text("The timestep range needs")).to_be_visible()


def test_schedules_are_compared_and_saved(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="Schedules").click()
    expect(page.locator(".dt-comparison path.dt-c1")).to_have_count(2)
    page.get_by_role("checkbox", name="sigmoid").check()
    expect(page.locator(".dt-comparison path.dt-c5")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the table as CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == "step,time-prioritized,uniform low,uniform high,linear,hifa,sigmoid"
    assert len(lines) == 601


def test_a_phone_shows_everything_in_one_column(open_page: Open) -> None:
    page = open_page(width=390, height=844)
    for tab in ("From text", "From a picture", "Schedules"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shown = "[...document.querySelectorAll('footer:not(.dt-footer) > *')].filter(part => part.checkVisibility())"
    assert page.evaluate(f"{shown}.map(part => part.innerText.trim())") == ["Settings"], "and no dot beside it"


def give_picture(page: Page, file: Path) -> None:
    """Choose a file in the picture's tab, as soon as a person could: a box that has only just come does not listen yet."""
    page.get_by_role("tab", name="From a picture").click()
    expect(page.locator(".dt-input").get_by_text("click to choose")).to_be_visible()
    page.wait_for_timeout(1500)
    page.locator(".dt-input input[type=file]").first.set_input_files(file)


def test_a_picture_shows_its_object_first_and_becomes_a_model(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    give_picture(page, photograph(tmp_path / "ball.png"))
    expect(page.get_by_alt_text("The object alone, as the model is shown it")).to_be_visible()
    expect(page.locator(".dt-notes")).to_have_text("background removed by its colours at the border")
    page.get_by_role("radio", name=re.compile("Draft")).locator("visible=true").check()
    open_advanced(page)
    steps = page.get_by_role("spinbutton", name=re.compile("^Steps")).locator("visible=true")
    expect(steps).to_have_value(str(DRAFT.steps))
    steps.fill("8")
    page.get_by_role("button", name="Generate", exact=True).locator("visible=true").click()
    expect(headline(page)).to_have_text("Finished", timeout=PATIENCE)
    wait_for_model(page)
    expect(page.locator(".dt-result:visible h3")).to_have_text("The object in the picture")
    link = page.get_by_role("link", name="Link to this result").locator("visible=true").get_attribute("href")
    page.goto(page.url + link)
    expect(page.get_by_role("tab", name="From a picture")).to_have_attribute("aria-selected", "true")
    expect(headline(page)).to_have_text("Finished")
    wait_for_model(page)
    expect(page.get_by_alt_text("The object alone, as the model is shown it")).to_be_visible()
    expect(page.locator(".dt-notes")).to_have_text("object taken from the picture's alpha")
    expect(page.get_by_role("radio", name=re.compile("Draft")).locator("visible=true")).to_be_checked()
    page.get_by_role("button", name="Generate", exact=True).locator("visible=true").click()
    again = page.get_by_role("link", name="Link to this result").locator("visible=true")
    expect(again).not_to_have_attribute("href", link, timeout=PATIENCE)
    expect(headline(page)).to_have_text("Finished", timeout=PATIENCE)
    expect(page.locator(".dt-status:visible")).to_contain_text("8 steps")


def test_an_example_shows_at_once_what_was_made_of_it(open_page: Open) -> None:
    """All of it: a rocket is the tallest, and the viewer of its own accord would cut it off."""
    page = open_page()
    page.get_by_role("tab", name="From a picture").click()
    page.get_by_role("button", name="rocket", exact=True).click()
    expect(headline(page)).to_have_text("An example")
    wait_for_model(page)
    assert colorful_share(page.locator(".dt-model:visible canvas"), slice(None)) > 0.05
    for edge in (slice(0, 4), slice(-4, None)):
        assert colorful_share(page.locator(".dt-model:visible canvas"), edge) == 0
    expect(page.get_by_alt_text("The object alone, as the model is shown it")).to_be_visible()
    expect(page.get_by_role("button", name="Generate", exact=True).locator("visible=true")).to_be_enabled()


def test_what_is_no_picture_is_told_in_place_of_its_object(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    (tmp_path / "text.png").write_text("not a picture")
    give_picture(page, tmp_path / "text.png")
    expect(page.locator(".dt-hint:visible")).to_contain_text("text.png holds text, whatever its name says")
    page.get_by_role("button", name="Generate", exact=True).locator("visible=true").click()
    expect(page.get_by_text("holds text, whatever its name says").nth(1)).to_be_visible()
    expect(headline(page)).to_have_text("Ready")


@pytest.mark.parametrize("tab", ["From text", "From a picture"])
def test_everything_that_can_be_set_has_a_name(open_page: Open, tab: str) -> None:
    page = open_page()
    page.get_by_role("tab", name=tab).click()
    open_advanced(page)
    page.wait_for_timeout(2000)  # until the examples have got their names
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, select, button")].filter(element =>
            element.checkVisibility() && !element.closest("label") && !element.labels?.length
            && !(element.ariaLabel || element.title || element.innerText || element.placeholder)).map(e => e.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("img:not([alt])").count() == 0
