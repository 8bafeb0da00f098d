"""The page's own HTML: well formed, and nobody's text becomes markup."""

import base64
import errno
import io
import math
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from dreamtime import beforehand, image_to_3d, presets
from dreamtime.preprocess import Reference
from dreamtime.runs import Frame, Result, Run
from dreamtime.timesteps import fixed_table
from dreamtime.ui import panels
from dreamtime.ui.errors import one_sentence

ATTACK = '<img src=x onerror=alert(1)> & "a cube"'
STATISTICS = {"vertices": 1234, "faces": 4000, "components": 1, "watertight": True, "area": 2.0, "volume": 0.125}
STATISTICS |= {"optimisation_seconds": 8.0, "extraction_seconds": 2.0, "glb_bytes": 345_678}


def test_a_prompt_is_shown_as_text_everywhere() -> None:
    run = Run(Path("/nowhere") / ("0" * 32), presets.preset("draft", prompt=ATTACK))
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    result = panels.result(run, Result(120, {}, STATISTICS, (f"A note on {ATTACK}",)))
    for html in (panels.picture(ATTACK), panels.picture(ATTACK, image, "live"), panels.hint(ATTACK), result):
        assert "<img src=x" not in html
        assert ATTACK in unescape(html)
    ElementTree.fromstring(result)


def test_the_result_says_what_a_person_wants_to_know() -> None:
    run = Run(Path("/nowhere") / ("0" * 32), presets.preset("draft", prompt="a red cube", seed=1_000_000))
    result = panels.result(run, Result(120, {}, STATISTICS, ()))
    for told in ("1,234", "346 kB", "yes", "1000000", "time-prioritized", f"?run={run.id}"):
        assert told in result


def test_the_result_says_which_words_were_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Path("/nowhere") / ("0" * 32), presets.preset("draft", prompt="a red <dragon>"))
    monkeypatch.setattr(beforehand, "unknown_words", lambda prompt: ["<dragon>"])
    assert "never seen &quot;&lt;dragon&gt;&quot;" in panels.result(run, Result(120, {}, STATISTICS, ()))


def test_a_picture_travels_inside_the_page(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    for html in (
        panels.picture("red", torch.zeros(8, 8, 3, dtype=torch.uint8), "live"),
        panels.picture_file("red", tmp_path / "red.png", "the result"),
    ):
        assert 'src="data:image/webp;base64,' in html
        assert 'alt="red"' in html


def test_the_processed_view_shows_what_is_see_through_and_what_was_done() -> None:
    mask = torch.zeros(32, 32, 1)
    mask[8:24, 8:24] = 1
    html = panels.processed(Reference(1 - mask.expand(-1, -1, 3) * 0.5, mask, ("turned as its EXIF tag says", ATTACK)))
    assert "<img src=x" not in html
    assert "turned as its EXIF tag says; &lt;img" in html
    encoded = html.split("base64,")[1].split('"')[0]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as shown:
        tiles = {round(value / 10) for value in np.asarray(shown.convert("L"))[:8].flatten().tolist()}
        assert len(tiles) >= 2, "a checkerboard lies behind it"
        assert shown.convert("RGB").getpixel((16, 16)) == pytest.approx((128, 128, 128), abs=4)


def test_a_run_from_a_picture_needs_no_words() -> None:
    run = Run(Path("/nowhere") / ("0" * 32), image_to_3d.image_preset("draft", "cpu", elevation=12.5))
    result = panels.result(run, Result(120, {}, STATISTICS, ()))
    assert "The object in the picture" in result
    assert "12.5" in result
    said = image_to_3d.image_preset("draft", "cpu", prompt="a <mug>", text_prior="toybox")
    assert panels.title_of(said) == "“a <mug>”"


def test_the_showcase_offers_each_prompt_beside_its_picture(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), "red").save(tmp_path / "red.webp")
    html = panels.showcase({"a red cube": tmp_path / "red.webp", ATTACK: tmp_path / "red.webp"})
    tiles = ElementTree.fromstring(html).findall(".//button")
    assert ["".join(tile.itertext()) for tile in tiles] == ["a red cube", ATTACK]
    assert all(tile.find("img").get("src").startswith("data:image/webp;base64,") for tile in tiles)


def test_the_progress_bar_shows_how_long_each_stage_lasts() -> None:
    table = fixed_table(torch.tensor([900, 600, 500, 400, 100]))
    stops = "var(--dt-coarse) 0.0% 20.0%, var(--dt-content) 20.0% 80.0%, var(--dt-detail) 80.0% 100.0%"
    assert panels.stage_gradient(table, 500.0, 125.0) == f"linear-gradient(90deg, {stops})"


def test_the_status_counts_and_estimates() -> None:
    html = panels.optimising(Frame(30, 120, 612, 1.0, 15.0, 45.0, None, None), "content", "red", stopping=False)
    ElementTree.fromstring(html)
    for told in ("step 30 of 120", "t = 612", "content", "0:15 · about 0:45 left, then the mesh", 'aria-valuenow="25"'):
        assert told in html


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (8.4, "8 s"), (52.0, "50 s"), (170.0, "3 min"), (6000.0, "1.7 h")])
def test_estimates_are_said_roughly(seconds: float, said: str) -> None:
    assert panels.spoken(seconds) == said


def test_header_and_footer_are_well_formed_and_fetch_nothing() -> None:
    for html in (panels.header("toybox", "cpu"), panels.footer(24.0)):
        ElementTree.fromstring(html)
        assert "src=" not in html
        assert "url(http" not in html
    assert "<b>" not in unescape(panels.header("toybox", "cpu", "&lt;b>")).split("dt-why")[0].split("<h1>")[0]
    assert "until nobody has touched them for 24 hours, then they are deleted." in panels.footer(24.0)
    assert "under an unguessable id. Your browser" in panels.footer(math.inf)
    assert "deleted" not in panels.footer(math.inf)


def test_errors_become_one_sentence_and_details_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error) as told, one_sentence():
        raise ValueError("The prompt is <empty>.")
    assert (told.value.message, told.value.print_exception) == ("The prompt is <empty>.", False)
    with pytest.raises(gr.Error) as escaped, one_sentence(lambda text: text.replace("<", "&lt;")):
        raise ValueError("<b>")
    assert escaped.value.message == "&lt;b>"
    with pytest.raises(gr.Error) as unforeseen, one_sentence():
        raise KeyError("/secret/path")
    assert "/secret/path" not in unforeseen.value.message
    assert "/secret/path" in caplog.text
    with pytest.raises(gr.Error, match="server's disk is full"), one_sentence():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(gr.Error, match="as it was"), one_sentence():
        raise gr.Error("as it was")
