"""Methods as published: each a preset of its own, told with its source, and outvoted by whatever a person asks for."""

import pytest

from dreamtime import presets
from dreamtime.methods import METHODS
from dreamtime.presets import preset, settings_to_dict

LARGE = "stable-diffusion-2.1-base"


def test_the_default_changes_nothing_in_a_preset() -> None:
    assert next(iter(METHODS)) == "dreamtime"
    for size, table in presets.PRESETS.items():
        prior = "toybox" if size == "cpu" else LARGE
        for name, settings in table.items():
            made = preset(name, "cpu", prior, "dreamtime")
            assert made == preset(name, "cpu", prior)
            assert (made.steps, made.views, made.schedule) == (settings.steps, settings.views, "time-prioritized")


@pytest.mark.parametrize(
    ("method", "schedule", "objective", "scale", "steps", "resolution"),
    [
        ("dreamtime", "time-prioritized", "sds", 100, 5_000, 64),
        ("dreamfusion", "uniform", "sds", 100, 10_000, 64),
        ("prolificdreamer", "prolificdreamer", "vsd", 7.5, 25_000, 256),
        ("hifa", "hifa", "sds", 100, 10_000, 64),
        ("sjc", "uniform", "sjc", 100, 10_000, 64),
    ],
)
def test_methods_are_as_published(
    method: str, schedule: str, objective: str, scale: float, steps: int, resolution: int
) -> None:
    made = preset("standard", "cpu", LARGE, method)
    assert (made.schedule, made.objective, made.guidance_scale) == (schedule, objective, scale)
    assert (made.steps, made.views, made.resolution, made.weighting) == (steps, 1, resolution, "sds")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_names_its_paper_and_what_differs(method: str) -> None:
    assert "arXiv" in METHODS[method].source
    assert METHODS[method].differs.endswith(".")


@pytest.mark.parametrize("method", METHODS)
def test_the_embedded_prior_keeps_the_numbers_of_the_preset(method: str) -> None:
    made = preset("draft", "cpu", method=method)
    plain = preset("draft", "cpu", objective=made.objective)
    changed = {"prior", "device", "schedule", "objective", *METHODS[method].changes}
    for name in settings_to_dict(plain).keys() - changed:
        assert getattr(made, name) == getattr(plain, name), name
    assert made.guidance_scale <= 3.5
    assert made.objective == preset("draft", "cpu", LARGE, method).objective


def test_draft_and_high_take_as_large_a_share_of_a_methods_steps_as_of_their_own() -> None:
    steps = [preset(name, "cpu", LARGE, "prolificdreamer").steps for name in ("draft", "standard", "high")]
    assert steps == [7_500, 25_000, 50_000]


def test_what_is_asked_for_wins_over_the_method() -> None:
    asked = {"steps": 300, "guidance_scale": 20.0, "schedule": "time-prioritized", "resolution": 64}
    made = preset("standard", "cpu", LARGE, "prolificdreamer", **asked)
    assert {name: getattr(made, name) for name in asked} == asked
    assert made.objective == "vsd"


def test_an_objective_that_is_asked_for_brings_its_own_guidance_scale() -> None:
    assert preset("standard", "cpu", LARGE, "prolificdreamer", objective="sds").guidance_scale == presets.GUIDANCE_SCALE
    assert preset("standard", "cpu", LARGE, "dreamfusion", objective="vsd").guidance_scale == 7.5
    assert preset("standard", "cpu", "deepfloyd-if-xl", "dreamfusion").guidance_scale == 20


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown method 'magic': choose one of dreamtime, dreamfusion"):
        preset("draft", "cpu", method="magic")
