"""Names, settings and their limits: nonsense is refused in one sentence when a run is described, not when it runs."""

from dataclasses import FrozenInstanceError, replace

import pytest
from fakes import stable_diffusion_alphas_cumprod

from dreamtime import presets
from dreamtime.presets import Settings, preset, settings_from_dict, settings_to_dict


def test_every_preset_is_valid_and_grows_in_steps() -> None:
    for table in presets.PRESETS.values():
        assert list(table) == ["draft", "standard", "high"]
        steps = [settings.steps for settings in table.values()]
        assert steps == sorted(steps)


def test_settings_survive_json() -> None:
    settings = preset("standard", "cpu", prompt="a red cube", table=(900, 100), t_min=30)
    assert settings_from_dict(settings_to_dict(settings)) == settings


def test_settings_cannot_be_rewritten() -> None:
    with pytest.raises(FrozenInstanceError):
        preset("draft", "cpu", prompt="a red cube").steps = 3  # type: ignore[misc]


def test_presets_for_large_priors_have_their_guidance() -> None:
    assert preset("standard", "cpu", prior="stable-diffusion-1.5", prompt="a cat").guidance_scale == presets.GUIDANCE_SCALE
    assert preset("standard", "cpu", prompt="a cat").guidance_scale == presets.EMBEDDED_GUIDANCE_SCALE


@pytest.mark.parametrize("name", presets.SCHEDULES)
def test_every_schedule_name_makes_a_timetable(name: str) -> None:
    table = presets.timetable(name, stable_diffusion_alphas_cumprod(), 20, m=500.0, s=125.0, fixed_t=400, table=(900, 30))
    assert len(table) == 20


def test_options_reach_the_schedules_that_have_them() -> None:
    abar = stable_diffusion_alphas_cumprod()
    assert presets.timetable("fixed", abar, 3, fixed_t=321, m=1.0).low.tolist() == [321] * 3
    assert presets.timetable("custom", abar, 2, table=(700, 300)).low.tolist() == [700, 300]
    narrow, wide = (presets.timetable("time-prioritized", abar, 100, s=s).low for s in (50.0, 300.0))
    assert narrow.double().std() < wide.double().std()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": "   "}, "The prompt is empty"),
        ({"prompt": "x" * 401}, "up to 400 characters, got 401"),
        ({"steps": 0}, "between 1 and 1,000,000 steps, got 0"),
        ({"steps": 10**9}, "got 1,000,000,000"),
        ({"schedule": "cosine"}, "Unknown schedule 'cosine': choose one of time-prioritized"),
        ({"representation": "voxels"}, "Unknown representation"),
        ({"background": "pink"}, "Unknown background"),
        ({"weighting": "none"}, "Unknown weighting"),
        ({"s": 0.0}, "positive number, got 0"),
        ({"s": float("nan")}, "positive number, got nan"),
        ({"t_min": 900, "t_max": 100}, "t_min = 900, t_max = 100"),
        ({"guidance_scale": float("nan")}, "guidance scale must lie between 0 and 1000, got nan"),
        ({"views": 0}, "number of views"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"seed": -1}, "seed"),
        ({"albedo_share": 0.7, "textureless_share": 0.6}, "sum of the albedo and textureless shares"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(Settings("a red cube"), **change)


def test_unknown_preset_and_device() -> None:
    with pytest.raises(ValueError, match="Unknown preset 'best': choose one of draft, standard, high"):
        preset("best", "cpu", prompt="a red cube")
    with pytest.raises(ValueError, match="Unknown device 'tpu'"):
        preset("draft", "tpu", prompt="a red cube")


@pytest.mark.no_cuda
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ValueError, match="'cuda' is not there; this machine has cpu"):
        preset("draft", "cuda", prompt="a red cube")
