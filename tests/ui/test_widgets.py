"""What people and programs send becomes settings, or one sentence that says what was expected."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from dreamtime import presets
from dreamtime.ui import widgets
from dreamtime.ui.controls import schedule_preview
from dreamtime.ui.pictures import PICTURE_KNOBS
from dreamtime.ui.widgets import (
    EXACT,
    KNOBS,
    PRESET_NAMES,
    PRIOR_NAMES,
    SentText,
    followed,
    guidance_followed,
    kept_elsewhere,
    preset_values,
    residual_followed,
    seed_shown,
    settings_of,
    start_word,
    suited_to,
)


def made(**choices: Any) -> presets.Settings:
    return settings_of("a red cube", "draft", "toybox", 7, choices)


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("prior", presets.PRIORS)
def test_the_widgets_of_a_preset_make_that_preset(preset: str, prior: str) -> None:
    shown = preset_values(preset, prior)
    assert list(shown) == list(KNOBS)
    assert settings_of("a red cube", preset, prior, 0, shown) == presets.preset(preset, prior=prior, prompt="a red cube")


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("method", presets.METHODS)
@pytest.mark.parametrize("prior", ["toybox", "stable-diffusion-1.5"])
def test_every_method_fits_its_widgets(preset: str, method: str, prior: str) -> None:
    shown = preset_values(preset, prior, method)
    whole = presets.preset(preset, prior=prior, prompt="a red cube", method=method)
    assert settings_of("a red cube", preset, prior, 0, shown) == whole


def test_an_empty_widget_leaves_the_value_of_the_preset() -> None:
    assert made(steps=None, t_min="", negative_prompt="", schedule=None) == made()


def test_choices_arrive_in_the_settings_with_their_types() -> None:
    settings = made(steps=20.0, m=400, t_min=" 30 ", t_max=900, schedule="custom", table="900, 500,100", views=2.0)
    assert (settings.seed, settings.steps, settings.views, settings.t_min, settings.t_max) == (7, 20, 2, 30, 900)
    assert settings.table == (900, 500, 100)
    assert [type(value) for value in (settings.steps, settings.m, settings.t_min)] == [int, float, int]


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"steps": math.nan}, "The steps must be a whole number, got nan."),
        ({"steps": math.inf}, "The steps must be a whole number, got inf."),
        ({"steps": True}, "The steps must be a whole number, got True."),
        ({"steps": "40"}, "The steps must be a whole number, got 40."),
        ({"steps": 2.5}, "The steps must be a whole number, got 2.5."),
        ({"steps": 10**400}, "The steps must lie between 1 and 50000, got a number of 401 digits."),
        ({"m": math.nan}, "The m must be a finite number, got nan."),
        ({"m": 10**400}, "The m must be a finite number, got 1000000000000000000000000000000000000000."),
        ({"guidance_scale": [1]}, r"The guidance scale must be a finite number, got \[1\]."),
        ({"t_max": "soon"}, "The t max must be a whole number, got soon."),
        ({"table": "9" * 5 + ","}, "The custom table must be up to 1000 whole numbers"),
        ({"negative_prompt": 5}, "The negative prompt must be text of up to 400 characters."),
        ({"schedule": "nearest"}, "Unknown schedule 'nearest'"),
        ({"schedule": "custom", "table": ""}, "A custom schedule needs a table"),
        ({"weighting": ["sds"]}, "Unknown weighting"),
        ({"method": "magic"}, "Unknown method"),
        ({"memory": "tiny"}, "Unknown memory"),
        ({"attention": 5}, "Unknown attention"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_nonsense_is_refused(choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(**choices)


def test_a_method_turns_the_other_knobs_and_they_win_over_it() -> None:
    shown = preset_values("draft", "toybox", "prolificdreamer")
    assert (shown["method"], shown["schedule"], shown["objective"]) == ("prolificdreamer", "prolificdreamer", "vsd")
    turned = settings_of("a red cube", "draft", "toybox", 0, shown | {"objective": "sds", "guidance_scale": 10.0})
    assert (turned.schedule, turned.objective, turned.guidance_scale) == ("prolificdreamer", "sds", 10)
    assert made(method="hifa").schedule == "hifa"


@pytest.mark.no_cuda
def test_the_automatic_prior_is_in_the_menu() -> None:
    assert PRIOR_NAMES[0] == "auto"
    assert settings_of("a red cube", "draft", "auto", 7, {}) == made()
    assert preset_values("draft", "auto") == preset_values("draft", "toybox")


@pytest.mark.parametrize("prior", ["/etc", "../weights", "owner/model", None, ["toybox"]])
def test_a_prior_is_a_name_of_the_menu(prior: Any) -> None:
    with pytest.raises(ValueError, match="Unknown prior"):
        settings_of("a red cube", "draft", prior, 0, {})


@pytest.mark.parametrize("seed", [-1, 2**63, 10**400, 0.5, None, "7", math.nan, math.inf])
def test_a_seed_is_a_whole_number_that_runs_have(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must"):
        settings_of("a red cube", "draft", "toybox", seed, {})


@pytest.mark.parametrize("seed", [0, 7.0, 2**31, 2**63 - 1])
def test_any_seed_of_a_run_may_be_sent(seed: Any) -> None:
    assert settings_of("a red cube", "draft", "toybox", seed, {}).seed == seed


def test_what_a_run_can_have_can_be_chosen() -> None:
    """Whatever the command line takes, but for what would keep a server from its other visitors for days."""
    for name, (low, high) in presets.RANGES.items():
        if name in (KNOBS | PICTURE_KNOBS).keys() - {"steps", "views", "resolution"}:
            knob = (KNOBS | PICTURE_KNOBS)[name]
            assert (knob.low, knob.high) == (low, high)
    assert made(steps=50_000, views=16, m=-5000, s=0.5).views == 16
    with pytest.raises(ValueError, match="between 1 and 50000, got 50001"):
        made(steps=50_001)
    assert PICTURE_KNOBS["resolution"].checked(256) == 256
    with pytest.raises(ValueError, match="between 16 and 256, got 257"):
        PICTURE_KNOBS["resolution"].checked(257)


def test_the_page_shows_no_seed_that_a_browser_would_round() -> None:
    asked = presets.preset("draft", prompt="a red cube")
    assert seed_shown(replace(asked, seed=EXACT)) == EXACT
    assert seed_shown(replace(asked, seed=EXACT + 1)) == gr.skip()


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "The prompt is empty"),
        ("  ", "The prompt is empty"),
        ("x" * 401, "up to 400 characters, got 401"),
        (None, "The prompt must be text, got nothing."),
        (5, "The prompt must be text, got int."),
        (["a red cube"], "The prompt must be text, got list."),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_prompt_is_text_of_bounded_length(prompt: Any, sentence: str) -> None:
    """Also where it comes through the box of an endpoint."""
    with pytest.raises(ValueError, match=sentence):
        settings_of(SentText(visible=False).preprocess(prompt), "draft", "toybox", 0, {})


def test_a_box_for_programs_is_a_text_box_to_all_others() -> None:
    """Gradio rebuilds a session's component from its class and arguments whenever an event skips it."""
    box, plain = SentText(label="Prompt", visible=False), gr.Textbox(label="Prompt", visible=False)
    again = type(box)(**box.constructor_args)
    assert again.preprocess(5) == 5
    assert again.get_block_name() == plain.get_block_name() == "textbox"
    assert again.api_info() == plain.api_info()
    assert isinstance(KNOBS["negative_prompt"].parameter(), SentText)
    assert not Path(widgets.__file__).with_suffix(".pyi").exists(), "Gradio writes a stub beside the source of a component"


@pytest.mark.parametrize("objective", ["sds", "vsd", "csd", "sdi"])
def test_an_objective_brings_its_guidance_scale_to_the_page(objective: str) -> None:
    for prior in ("toybox", "stable-diffusion-1.5"):
        asked = presets.preset("standard", prior=prior, objective=objective)
        assert suited_to("standard", prior, "dreamtime", objective) == (asked.guidance_scale, asked.image_residual)
    assert suited_to("standard", "stable-diffusion-1.5", "dreamtime", "vsd") == (7.5, 0)
    with pytest.raises(ValueError, match="'vsd' learns in a UNet"):
        suited_to("standard", "stable-diffusion-xl", "dreamtime", "vsd")


def test_an_image_residual_that_was_left_alone_goes_with_sds() -> None:
    """Who chooses another objective and presses Generate before the page has set the knobs is not refused."""
    draft = preset_values("draft", "toybox")
    assert residual_followed(draft, "draft", "toybox") == draft
    followed_by = residual_followed({**draft, "objective": "csd"}, "draft", "toybox")
    suited = presets.BETWEEN_LATENTS["guidance_scale"]
    assert followed_by == {**draft, "objective": "csd", "image_residual": 0.0, "guidance_scale": suited}
    set_by_hand = {**draft, "objective": "csd", "guidance_scale": 7.0}
    assert residual_followed(set_by_hand, "draft", "toybox") == {**set_by_hand, "image_residual": 0.0}
    assert settings_of("a red cube", "draft", "toybox", 0, followed_by).objective == "csd"
    turned = {**draft, "objective": "csd", "image_residual": 12.0}
    assert residual_followed(turned, "draft", "toybox") == turned


def test_an_image_residual_brings_its_guidance_scale_to_the_page() -> None:
    """As with the command line and the API, where nobody names a guidance scale."""
    start = ("standard", "toybox", "dreamtime", "sds", "classifier-free")
    for residual in (0, 0.0, 5, 30.0, None):
        changes = {} if residual is None else {"image_residual": float(residual)}
        asked = presets.preset("standard", **changes)
        assert suited_to(*start, residual) == (asked.guidance_scale, asked.image_residual)
        for left_alone in (presets.EMBEDDED_GUIDANCE_SCALE, presets.BETWEEN_LATENTS["guidance_scale"]):
            assert guidance_followed(*start, residual, "", left_alone) == asked.guidance_scale
        assert guidance_followed(*start, residual, "", 9) == 9, "somebody has set it"
    large = ("standard", "stable-diffusion-1.5", "dreamtime", "sds", "classifier-free")
    assert guidance_followed(*large, 5.0, "", 100) == 100


def test_a_negative_prompt_brings_some_guidance_to_the_page_and_takes_it_along() -> None:
    """As with the command line and the API; large priors keep theirs."""
    start = ("standard", "toybox", "dreamtime", "sds", "classifier-free", 30.0)
    asked = presets.preset("standard", negative_prompt="blue").guidance_scale
    assert asked == presets.STEERED_GUIDANCE_SCALE > 1
    assert guidance_followed(*start, "blue", presets.EMBEDDED_GUIDANCE_SCALE) == asked
    assert guidance_followed(*start, "", asked) == presets.EMBEDDED_GUIDANCE_SCALE
    assert guidance_followed(*start, "blue", 9) == 9, "somebody has set it"
    large = ("standard", "stable-diffusion-1.5", "dreamtime", "sds", "classifier-free")
    assert guidance_followed(*large, 0.0, "blue", 100) == 100


def test_a_guidance_that_needs_a_scale_brings_it_to_the_page_and_takes_it_along() -> None:
    """Beside an objective that takes no guidance it changes nothing on the page: whoever starts the run is told."""
    start, none = ("standard", "toybox", "dreamtime", "sds"), presets.EMBEDDED_GUIDANCE_SCALE
    asked = presets.preset("standard", guidance="rescaled").guidance_scale
    assert asked == presets.STEERED_GUIDANCE_SCALE
    assert suited_to(*start, "rescaled") == (asked, 30)
    assert guidance_followed(*start, "rescaled", 30.0, "", none) == asked
    assert guidance_followed(*start, "rescaled", 0.0, "", asked) == presets.BETWEEN_LATENTS["guidance_scale"]
    for without_need in ("classifier-free", "perp-neg"):
        assert guidance_followed(*start, without_need, 30.0, "", asked) == none
        assert guidance_followed(*start, without_need, 30.0, "blue", asked) == asked
    assert guidance_followed(*start, "rescaled", 30.0, "", 9) == 9, "somebody has set it"
    large = ("standard", "stable-diffusion-1.5", "dreamtime", "sds")
    assert guidance_followed(*large, "rescaled", 0.0, "", 100) == 100
    assert suited_to("standard", "toybox", "dreamtime", "csd", "rescaled") == suited_to(
        "standard", "toybox", "dreamtime", "csd"
    )
    with pytest.raises(ValueError, match="'csd' combines the prior's answers in its own way"):
        settings_of("a red cube", "draft", "toybox", 0, {"objective": "csd", "guidance": "rescaled"})
    assert settings_of("a red cube", "draft", "toybox", 0, {"guidance": "rescaled"}).guidance_scale == asked


def test_a_prior_that_stands_in_keeps_what_means_the_same_with_it() -> None:
    chosen = {"schedule": "linear", "t_min": "30", "objective": "csd", "negative_prompt": "blue", "method": "dreamfusion"}
    knobs = preset_values("standard", "stable-diffusion-1.5", "dreamfusion") | chosen
    stands_in = settings_of("a red cube", "standard", "toybox", 7, kept_elsewhere(knobs))
    assert stands_in == presets.preset("standard", prompt="a red cube", seed=7, **{**chosen, "t_min": 30})


def test_the_schedule_is_drawn_on_the_noise_levels_of_the_prior() -> None:
    shown = {prior: schedule_preview(preset_values("draft", "toybox"), prior) for prior in ("auto", *presets.PRIORS)}
    assert shown["auto"] == shown["toybox"] == shown["stable-diffusion-1.5"] == shown["stable-diffusion-xl"]
    assert len({shown[prior] for prior in ("toybox", "deepfloyd-if-xl", "stable-diffusion-3-medium")}) == 3


def test_knobs_follow_a_start_that_the_page_has_not_yet_set_them_to() -> None:
    """Who chooses Draft and presses Generate before the answer comes has the knobs of Standard still."""
    standard, draft = (preset_values(name, "toybox") for name in ("standard", "draft"))
    word = start_word("standard", "toybox", "dreamtime")
    assert followed(standard, word, ("draft", "toybox", "dreamtime"), preset_values) == draft
    turned = {**standard, "m": 300.0, "steps": 77}
    assert followed(turned, word, ("draft", "toybox", "dreamtime"), preset_values) == {**draft, "m": 300.0, "steps": 77}
    assert followed(turned, word, ("standard", "toybox", "dreamtime"), preset_values) == turned
    hifa = {**standard, "method": "hifa"}
    assert followed(hifa, word, ("standard", "toybox", "hifa"), preset_values) == preset_values("standard", "toybox", "hifa")
