"""A link to a run: the page stands as it stood when the run was asked for."""

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr
import pytest
import trimesh
from PIL import Image
from stand_in import photograph
from starlette.requests import Request
from tiny_models import tiny_pipeline

from dreamtime import presets, runs
from dreamtime.image_to_3d import EMBEDDED, image_preset
from dreamtime.methods import METHODS
from dreamtime.preprocess import load_reference, process
from dreamtime.presets import Settings
from dreamtime.runs import Result, Run
from dreamtime.ui import app, picture_layout, picture_tab, stage, watching
from dreamtime.ui.pictures import (
    PICTURE_KNOBS,
    PICTURE_PRIOR_NAMES,
    Words,
    picture_settings,
    picture_start_of,
    ratio_of,
    reference_of,
)
from dreamtime.ui.server import Pace, Server, disc
from dreamtime.ui.widgets import EXACT, KNOBS, PRESET_NAMES, settings_of, start_of, values_of

TURNED: list[dict[str, Any]] = [
    {"steps": 500},
    {"schedule": "custom", "table": (900, 300), "steps": 33},
    {"schedule": "fixed", "steps": 20, "fixed_t": 0, "t_min": 30, "t_max": 900, "m": 300.0, "s": 50.5},
    {"views": 2, "steps": 20, "albedo_share": 0.5, "textureless_share": 0.25, "light_spread": 0.1, "background": "white"},
    {"steps": 20, "objective": "csd", "guidance": "classifier-free", "guidance_scale": 3.0, "negative_prompt": "blue"},
    {"steps": 20, "representation": "mlp", "memory": "low", "attention": "sliced", "precision": "bf16"},
    {"schedule": "custom", "table": (300, 900), "steps": 33},
]


@pytest.mark.parametrize("turned", TURNED, ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prior", ["toybox", "stable-diffusion-1.5", "deepfloyd-if-l"])
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_what_the_widgets_show_makes_the_run_again(preset: str, prior: str, method: str, turned: dict[str, Any]) -> None:
    run = presets.preset(preset, prior=prior, method=method, prompt="a red cube", seed=7, **turned)
    found, start = start_of(run)
    shown = {**values_of(run, KNOBS), "method": start}
    assert settings_of("a red cube", found, prior, 7, shown) == run


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_what_nobody_turned_is_found_as_it_was_started(preset: str, method: str) -> None:
    for changes in ({}, {"steps": 77}, {"schedule": "sigmoid"}):
        run = presets.preset(preset, "cpu", prompt="a cat", seed=7, method=method, **changes)
        assert start_of(run)[0] == preset
        assert changes or start_of(run)[1] == method


@pytest.mark.parametrize(
    "turned",
    [
        {},
        {"guidance_scale": 2.0, "schedule": "fixed"},
        {"steps": 33, "rgb": 7.0, "mask": 0.0, "views": 3, "objective": "ism", "t_min": 30},
        {"resolution": 128, "doublings": 1, "opacity": 2.0, "entropy": 0.5, "normal_smoothness_3d": 4.0},
    ],
)
@pytest.mark.parametrize("prior", PICTURE_PRIOR_NAMES)
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_so_it_is_with_a_picture(preset: str, prior: str, turned: dict[str, Any]) -> None:
    words = {"prompt": "a red cube", "text_prior": "toybox", "text_weight": 0.5}
    run = image_preset(preset, prior=prior, seed=7, elevation=12.5, **words, **turned)
    start = picture_start_of(run)
    assert start == preset or "steps" in turned
    shown = values_of(run, PICTURE_KNOBS)
    assert picture_settings(start, prior, 7, 12.5, Words(*words.values()), shown) == run


def test_settings_that_no_start_makes_have_the_nearest_one() -> None:
    odd = presets.preset("high", "cpu", prompt="a cat", method="hifa", resolution=32, faces=100)
    assert start_of(odd) == ("high", "hifa")
    elsewhere = replace(presets.preset("draft", "cpu", prompt="a cat"), device="cuda")
    assert start_of(elsewhere) == ("draft", "dreamtime")
    assert start_of(presets.preset("draft", "cpu", "/some/folder", prompt="a cat"))[0] == "draft"


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75, 0.85, 1.0])
def test_an_object_comes_back_as_large_as_it_was(ratio: float, tmp_path: Path) -> None:
    kept = process(photograph(tmp_path / "ball.png"), 256, ratio)
    runs.save_reference(tmp_path / "reference.png", kept)
    assert ratio_of(kept) == pytest.approx(ratio, abs=0.011)
    again = reference_of(str(tmp_path / "reference.png"), ratio_of(kept), "auto")
    assert (again.mask - kept.mask).abs().mean() < 0.01
    assert (again.image - kept.image).abs().mean() < 0.01


# -- the page as it opens


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[gr.Blocks, Server]:
    """The page, and the server behind it; nobody serves it."""
    server = Server(tmp_path_factory.mktemp("runs"), 24.0, Pace())

    async def built() -> gr.Blocks:
        return app.build(server)

    # Where no event loop runs, Gradio makes some and closes none.
    return asyncio.run(built()), server


@pytest.fixture
def delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run has a result, of which only what a page needs is there."""
    statistics = {"vertices": 4, "faces": 4, "components": 1, "watertight": True, "area": 1.0, "volume": 1.0}
    statistics |= {"optimisation_seconds": 1.0, "extraction_seconds": 1.0, "glb_bytes": 100}
    kinds = ("glb", "zip", "ply", "stl", "turntable", "normals")

    def made(run: Run) -> Result:
        files = {kind: run.folder / f"model.{kind}" for kind in kinds} | {"picture": Path("examples/a-red-cube.webp")}
        trimesh.creation.box((1.0, 1.0, 1.0)).export(files["glb"])
        return Result(run.settings.steps, files, statistics, ())

    monkeypatch.setattr(watching.runs, "delivered", made)


def opened(page: tuple[gr.Blocks, Server], run_id: str) -> dict[str, Any]:
    """What opening the link writes, by the label of the component."""
    (function,) = [event for event in page[0].fns.values() if event.name == "opened"]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": urlencode({"run": run_id}).encode()}
    said = function.fn("", "", gr.Request(Request(scope)))
    assert set(said) <= set(function.outputs), "Gradio takes no others"
    return {str(getattr(component, "label", None)): value for component, value in said.items()}


def created(page: tuple[gr.Blocks, Server], settings: Settings) -> Run:
    return runs.create_run(page[1].root, settings, disc() if settings.task == "image" else None)


@pytest.mark.usefixtures("delivered")
def test_a_link_restores_what_was_asked_from_text(page: tuple[gr.Blocks, Server]) -> None:
    changes = {"steps": 33, "t_min": 30, "negative_prompt": "blue"}
    run = created(page, presets.preset("high", "cpu", prompt="a red cube", seed=7, method="hifa", **changes))
    said = opened(page, run.id)
    assert (said["Prompt"], said["Quality"], said["Seed"], said["Prior"]) == ("a red cube", "high", 7, "toybox")
    assert (said["Method"], said["Schedule"], said["Steps"], said["t min"]) == ("hifa", "hifa", 33, 30)
    assert (said["Negative prompt"], said["Views"], said["t max"]) == ("blue", run.settings.views, None)
    assert said["New seed each time"] is False


@pytest.mark.usefixtures("delivered")
def test_a_link_restores_what_was_asked_from_a_picture(page: tuple[gr.Blocks, Server]) -> None:
    words = {"prompt": "a red ball", "text_prior": "toybox", "text_weight": 0.5}
    run = created(page, image_preset("draft", "cpu", seed=7, elevation=12.5, rgb=7.0, **words))
    said = opened(page, run.id)
    assert (said["Quality"], said["Seed"], said["Elevation"], said["Colours"]) == ("draft", 7, 12.5, 7)
    assert (said["Prompt"], said["Text prior"], said["Text weight"]) == ("a red ball", "toybox", 0.5)
    assert (said["Prior"], said["Automatic"], said["New seed each time"]) == (EMBEDDED, False, False)
    assert said["Picture"] == str(run.reference)
    assert said["Foreground ratio"] == ratio_of(load_reference(run.reference))


@pytest.mark.usefixtures("delivered")
def test_a_model_that_is_not_in_the_menu_stays_untold(page: tuple[gr.Blocks, Server], tmp_path: Path) -> None:
    tiny_pipeline("epsilon").save_pretrained(tmp_path)
    run = created(page, presets.preset("draft", "cpu", str(tmp_path), prompt="a red cube", steps=3))
    said = opened(page, run.id)
    assert said["Prompt"] == "a red cube"
    assert "Prior" not in said
    resume = next(event.fn for event in page[0].fns.values() if event.name == "resume_pressed")
    (banner,) = next(resume(run.id)).values()
    assert f"<b>{tmp_path.name}</b>" in banner


@pytest.mark.usefixtures("delivered")
def test_a_finished_run_outlives_its_prior(page: tuple[gr.Blocks, Server], tmp_path: Path) -> None:
    tiny_pipeline("epsilon").save_pretrained(tmp_path / "model")
    run = created(page, presets.preset("draft", "cpu", str(tmp_path / "model"), prompt="a red cube", steps=3))
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    assert opened(page, run.id)["Prompt"] == "a red cube"
    changed = next(event for event in page[0].fns.values() if event.name == "schedule_changed").fn
    knobs = values_of(run.settings, KNOBS)
    values = [knobs[name] for name in ("schedule", "steps", "m", "s", "t_min", "t_max", "fixed_t", "table")]
    assert changed(run.id, "toybox", *values) == changed("", "toybox", *values), "its chart cannot be drawn any more"


@pytest.mark.usefixtures("delivered")
def test_a_mesh_is_made_without_the_prior(page: tuple[gr.Blocks, Server], tmp_path: Path, monkeypatch) -> None:
    """Resume has nothing else to do for a run that has all its steps."""
    tiny_pipeline("epsilon").save_pretrained(tmp_path / "model")
    run = created(page, presets.preset("draft", "cpu", str(tmp_path / "model"), prompt="a red cube", steps=3))
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(runs, "steps_done", lambda run: 3)
    monkeypatch.setattr(runs, "deliver", watching.runs.delivered)
    resume = next(event.fn for event in page[0].fns.values() if event.name == "resume_pressed")
    assert "Finished" in str(list(resume(run.id))[-1])


@pytest.mark.usefixtures("delivered")
@pytest.mark.parametrize("seed", [EXACT, EXACT + 1])
def test_a_seed_that_a_browser_would_round_is_drawn_anew(page: tuple[gr.Blocks, Server], seed: int) -> None:
    """Generate would be refused, or make another run than it says."""
    for settings in (presets.preset("draft", "cpu", prompt="a red cube", seed=seed), image_preset("draft", "cpu", seed=seed)):
        said = opened(page, created(page, settings).id)
        held = seed == EXACT
        assert (said["Seed"], said["New seed each time"]) == (seed if held else gr.skip(), not held)


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a page is told in passing."""
    said = list[str]()
    monkeypatch.setattr(gr, "Info", lambda message, **options: said.append(message))
    return said


GOES_ON = "This run goes on: its result comes when it is done or stopped."


@pytest.mark.usefixtures("delivered")
@pytest.mark.parametrize("lock", runs.LOCKS)
def test_a_run_that_goes_on_is_told_and_changes_nothing(page: tuple[gr.Blocks, Server], notices: list[str], lock: str) -> None:
    """Neither Stop nor Generate, which belong to the page that runs it."""
    run = created(page, presets.preset("draft", "cpu", prompt="a red cube"))
    shows = [event.fn for event in page[0].fns.values() if event.name == "show_pressed"]
    with runs.holding(run, lock):
        assert opened(page, run.id) == {"Run id": ""}, "as without a link: the browser's own last run"
        for show_pressed in shows:
            assert list(show_pressed(run.id).values()) == [gr.skip()]
    assert notices == [GOES_ON] * (1 + len(shows))
    assert len(shows) == 2
    shown = shows[0](run.id)
    assert len(shown) > 10
    assert sum("of this run" in str(value) for value in shown.values()) == 1, "the banner tells whose prior it was"
    assert opened(page, run.id)["Prompt"] == "a red cube"


def test_an_estimate_loads_its_prior_as_the_run_would(page: tuple[gr.Blocks, Server], monkeypatch, tmp_path: Path) -> None:
    asked = list[Settings]()
    monkeypatch.setattr(picture_tab, "elevation_found", lambda settings, reference: asked.append(settings) or -10.2)
    estimate = next(event for event in page[0].fns.values() if event.name == "estimate_pressed")
    given = {"Picture": str(photograph(tmp_path / "ball.png")), "Foreground ratio": 0.75, "Remove the background": "auto"}
    given |= {"Prior": "zero123-xl", "Memory": "low", "Attention": "sliced", "Precision": "bf16"}
    said = estimate.fn(*(given[component.label] for component in estimate.inputs))
    assert next(iter(said.values())) == -10
    (settings,) = asked
    assert (settings.prior, settings.memory, settings.attention, settings.precision) == ("zero123-xl", "low", "sliced", "bf16")


@pytest.mark.parametrize(
    ("run_id", "sentence"),
    [("0" * 32, "There is no run with this id here"), ("<b>", "A run id is 32 hexadecimal digits"), ("", "A run id is")],
)
def test_an_id_that_is_no_run_is_one_sentence(page: tuple[gr.Blocks, Server], run_id: str, sentence: str) -> None:
    with pytest.raises(gr.Error, match=sentence):
        opened(page, run_id)


@pytest.mark.usefixtures("delivered")
@pytest.mark.parametrize("change", [{"of_tomorrow": 1}, {"steps": "many"}, {"schedule": "nothing"}])
def test_settings_of_another_version_are_one_sentence(page: tuple[gr.Blocks, Server], change: dict[str, Any]) -> None:
    run = created(page, presets.preset("draft", "cpu", prompt="a red cube"))
    file = run.folder / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(gr.Error, match="The settings of this run cannot be read"):
        opened(page, run.id)


def test_the_chart_is_that_of_the_run_while_the_knobs_say_the_same(
    page: tuple[gr.Blocks, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The knobs change as a link restores them, and nobody wants the chart of a run that has not begun then."""
    run = created(page, presets.preset("draft", "cpu", prompt="a red cube", steps=8, t_min=30))
    runs.save_curve(run, [(step, 500, 1.0) for step in (1, 2, 3)])
    monkeypatch.setattr(runs, "steps_done", lambda run: 3)
    changed = next(event for event in page[0].fns.values() if event.name == "schedule_changed").fn
    names = ("schedule", "steps", "m", "s", "t_min", "t_max", "fixed_t", "table")
    values = {name: values_of(run.settings, KNOBS)[name] for name in names}

    def chart(run_id: str, **others: Any) -> str:
        return str(changed(run_id, "toybox", *{**values, **others}.values()))

    plain = chart("")
    assert chart(run.id) != plain, "it is marked at step 3"
    assert chart(run.id, m=300.0) == chart("", m=300.0)
    assert chart("0" * 32) == plain, "the run may be swept away"
    assert "needs a table" in chart(run.id, schedule="custom")


@pytest.mark.parametrize(
    ("schedule", "shown"), [("uniform", (False, False)), ("fixed", (True, False)), ("custom", (False, True))]
)
def test_two_knobs_show_with_their_schedule_alone(
    page: tuple[gr.Blocks, Server], schedule: str, shown: tuple[bool, bool]
) -> None:
    chosen = next(event for event in page[0].fns.values() if event.name == "knobs_of_schedule").fn
    assert tuple(knob.visible for knob in chosen(schedule)) == shown


def test_an_example_shows_what_was_made_of_it_unless_a_run_goes_on(
    page: tuple[gr.Blocks, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = next(event for event in page[0].fns.values() if event.name == "example_chosen").fn
    monkeypatch.setattr(picture_layout, "RESULTS", tmp_path)
    assert len(chosen((0, None), "")) == 1, "nothing has been made of it"
    name = Path(picture_layout.example_pictures()[0]).stem
    Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.webp")
    trimesh.creation.box((0.4, 2.0, 0.4)).export(tmp_path / f"{name}.glb")
    run = created(page, presets.preset("draft", "cpu", prompt="a red cube", steps=8))
    for current in ("", run.id):
        (model,) = [value for value in chosen((0, None), current).values() if isinstance(value, gr.Model3D)]
        assert model.value
        height_seen = 2 * model.camera_position[2] * math.tan(stage.FIELD_OF_VIEW / 2)
        assert 2.1 < height_seen < 3, "all of what is two units high, and little more"
    for lock in runs.LOCKS:
        with runs.holding(run, lock):
            assert len(chosen((0, None), run.id)) == 1


def test_no_field_is_told_what_goes_on_while_somebody_may_type_into_it(page: tuple[gr.Blocks, Server]) -> None:
    fields = (gr.Textbox, gr.Number, gr.Slider)
    private = [event for event in page[0].fns.values() if event.api_visibility == "private"]
    assert len(private) > 40
    told = [
        (event.name, component.label)
        for event in private
        for component in event.show_progress_on or event.outputs
        if isinstance(component, fields)
    ]
    assert told == []


def test_the_guidance_scale_follows_guidance_image_residual_and_negative_prompt(page: tuple[gr.Blocks, Server]) -> None:
    (event,) = [event for event in page[0].fns.values() if event.name == "guidance_touched"]
    labels = [str(component.label) for component in event.inputs]
    start = ["Quality", "Prior", "Method", "Objective", "Guidance"]
    assert labels == [*start, "Image residual", "Negative prompt", "Guidance scale"]
    assert [str(component.label) for component in event.outputs] == ["Guidance scale"]
    assert [name for _, name in event.targets] == ["input", "input", "input"]
    assert event.fn("standard", "toybox", "dreamtime", "sds", "classifier-free", 0, "", 1.0) == 1.5
    assert event.fn("standard", "toybox", "dreamtime", "sds", "classifier-free", 30, "blue", 1.0) == 2
    assert event.fn("standard", "toybox", "dreamtime", "sds", "rescaled", 30, "", 1.0) == 2
    with pytest.raises(gr.Error, match="it must be 0, got 30"):
        event.fn("standard", "toybox", "dreamtime", "csd", "classifier-free", 30, "", 1.5)


def test_an_objective_chosen_beside_a_negative_prompt_or_rescaling_keeps_guidance_for_it(
    page: tuple[gr.Blocks, Server],
) -> None:
    (event,) = [event for event in page[0].fns.values() if event.name == "objective_chosen"]
    assert [str(component.label) for component in event.inputs[-2:]] == ["Guidance", "Negative prompt"]
    assert event.fn("standard", "toybox", "dreamtime", "csd", "classifier-free", "blue") == (1.5, 0)
    assert event.fn("standard", "toybox", "dreamtime", "csd", "rescaled", "") == (1.5, 0)
    assert event.fn("standard", "toybox", "dreamtime", "sds", "classifier-free", "blue") == (2, 30)
    assert event.fn("standard", "toybox", "dreamtime", "sds", "rescaled", "") == (2, 30)
    assert event.fn("standard", "toybox", "dreamtime", "sds", "classifier-free", "") == (1, 30)
