"""A run from a picture: its terms, its determinism, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from stand_in import write_stand_in

from dreamtime import image_to_3d, presets, runs
from dreamtime.elevation import CANDIDATES
from dreamtime.preprocess import Reference
from dreamtime.references import reference_camera
from dreamtime.regularizers import eikonal
from dreamtime.representations import NeuS
from dreamtime.types import Rendering
from tests.fakes import GaussianPrior


def settings(**changes):
    small = {"task": "image", "prompt": "", "steps": 6, "views": 2, "resolution": 16, "samples_per_ray": 16}
    terms = {"rgb": 100.0, "mask": 100.0, "background": "white", "albedo_share": 1.0, "schedule": "uniform"}
    lens = {"distance": (1.9, 1.9), "field_of_view": (49.1, 49.1), "learning_rate": 0.05}
    return presets.Settings(**{**small, **terms, **lens, **changes})


def red_disc(side: int = 32) -> Reference:
    along = torch.linspace(-1, 1, side)
    inside = ((along[:, None] ** 2 + along[None] ** 2) < 0.3).float()[..., None]
    return Reference(inside * torch.tensor([0.9, 0.1, 0.1]) + (1 - inside), inside, ())


def prior() -> GaussianPrior:
    return GaussianPrior(torch.zeros(3, 1, 1))


def nothing(cameras):
    return torch.zeros(len(cameras), 1, 1), torch.zeros(len(cameras), 1, 1)


def steps_of(chosen):
    return list(image_to_3d.compose(chosen, prior(), nothing, red_disc(), None).steps(0))


def test_every_step_shows_the_reference_and_the_novel_views():
    (first, *_), last = (steps := steps_of(settings())), steps[-1]
    assert {"distillation", "rgb", "mask"} <= first.losses.keys()
    assert len(first.cameras) == 1 + 2
    assert torch.equal(first.cameras.camera_to_world[0], last.cameras.camera_to_world[0])
    assert not torch.equal(first.cameras.camera_to_world[1], last.cameras.camera_to_world[1])


def test_watchers_see_a_novel_view_not_the_pictures_own():
    dream = image_to_3d.compose(settings(), prior(), nothing, red_disc(), None)
    step = next(dream.steps(0))
    _, view = runs.pictures_of(dream, step)
    shown = (step.rendering.image * 255).round().byte()
    assert torch.equal(view, shown[-1])
    assert not torch.equal(view, shown[0])


def test_the_scene_comes_to_show_the_picture():
    steps = steps_of(settings(steps=40, mask=3000.0, rgb=3000.0, guidance_scale=1.0))
    assert steps[-1].losses["rgb"] < 0.5 * steps[0].losses["rgb"]
    assert steps[-1].losses["mask"] < 0.5 * steps[0].losses["mask"]


def test_signed_distances_come_to_show_the_picture_and_stay_distances():
    chosen = settings(steps=40, mask=3000.0, rgb=3000.0, guidance_scale=1.0, representation="neus")
    off = []
    for weight in (30.0, 0.0):
        dream = image_to_3d.compose(replace(chosen, eikonal=weight), prior(), nothing, red_disc(), None)
        first, *_, last = dream.steps(0)
        assert last.losses["mask"] < 0.5 * first.losses["mask"]
        assert ("eikonal" in last.losses) == (weight > 0)
        scene = dream.scene.representation
        assert isinstance(scene, NeuS)
        off.append(eikonal(scene.distance)(dream.scene.preview(last.cameras), 1.0).item())
    assert off[0] < off[1]
    assert "eikonal" not in steps_of(settings(steps=1))[0].losses, "a density has no such term"


def test_the_same_seed_gives_the_same_steps():
    assert [step.loss for step in steps_of(settings())] == [step.loss for step in steps_of(settings())]


def test_resolution_doubles_on_the_way():
    sizes = [step.rendering.image.shape[1] for step in steps_of(settings(resolution=32, doublings=1))]
    assert sizes == [16, 16, 32, 32, 32, 32]


def test_a_second_objective_is_added_with_its_weight():
    def constant(value):
        return lambda rendering, cameras, t, progress, generator: torch.tensor(value)

    total = image_to_3d.both(constant(2.0), constant(3.0), 0.5)
    picture, cameras = torch.zeros(1, 2, 2, 3), reference_camera(0.0, 2.0, 0.8, 2)
    shown = Rendering(picture, picture[..., :1], picture[..., :1], picture)
    assert total(shown, cameras, 1, 0.0, torch.Generator()).item() == 3.5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objective": "vsd"}, "learns in a UNet that reads text"),
        ({"image_residual": 30.0}, "compares latents: its image residual must be 0, got 30"),
        ({"guidance": "perp-neg"}, "guidance is classifier-free"),
        ({"text_prior": "toybox"}, "needs a prompt"),
        ({"elevation": 95.0}, "elevation must lie between"),
        ({"field_of_view": (70.0, 40.0)}, "field of view needs"),
        ({"task": "sound"}, "Unknown task"),
        ({"resolution": 16, "doublings": 4}, "first steps"),
        ({"resolution": 32, "doublings": 1, "early_views": (4, 2)}, "one number of early views per doubling, 1, or none"),
        ({"early_views": (0,)}, "number of early views must lie between 1 and 64"),
        ({"camera_elevation": (50.0, 10.0)}, "camera elevation needs"),
    ],
)
def test_nonsense_is_refused_with_the_reason(changes, reason):
    with pytest.raises(ValueError, match=reason):
        settings(**changes)


def test_a_text_run_still_needs_its_prompt():
    with pytest.raises(ValueError, match="prompt is empty"):
        presets.Settings("")


def test_the_elevation_is_found_with_the_runs_own_prior(tmp_path, monkeypatch):
    write_stand_in(tmp_path)
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path))
    chosen = image_to_3d.image_preset("draft", "cpu", elevation=45.0)
    found = image_to_3d.estimated_elevation(chosen, red_disc())
    assert found.disagreement.keys() == set(CANDIDATES)
    assert found.elevation == min(CANDIDATES, key=found.disagreement.get)
    assert image_to_3d.estimated_elevation(chosen, red_disc()) == found
    assert image_to_3d.estimated_elevation(replace(chosen, elevation=0.0), red_disc()) == found


def test_a_model_that_reads_text_is_shown_no_picture():
    with pytest.raises(ValueError, match="reads text: from a picture choose one of toybox-zero123"):
        image_to_3d.image_preset("draft", prior="stable-diffusion-1.5")


def test_the_preset_for_large_priors_has_the_published_numbers() -> None:
    """PAPER section 5: threestudio's weights over its distillation weight of 0.1, its lens, cameras and resolutions.

    The smoothness of normals a quarter of that, as theirs are from 0 to 1.
    """
    preset = image_to_3d.image_preset("standard", "cpu", "zero123-xl")
    assert (preset.rgb, preset.mask, preset.normal_smoothness, preset.normal_smoothness_3d) == (5000, 500, 20, 80)
    assert (preset.orientation, preset.opacity, preset.guidance_scale, preset.steps) == (10, 1, 3, 600)
    assert preset.entropy == pytest.approx(math.log(2), abs=0.01), "the opaque term, 0.1 over 0.1, is in nats and ours in bits"
    assert (preset.distance, preset.field_of_view) == ((3.8, 3.8), (20, 20))
    assert (preset.camera_elevation, preset.overhead_share) == ((-10, 80), 0)
    assert preset.views_by_part == (12, 4, 2)
    assert preset.resolution == 256
    assert preset.doublings == 2


@pytest.mark.parametrize(("doublings", "views"), [(0, ()), (1, (4,)), (2, (12, 4)), (3, (12, 12, 4)), (4, (12, 12, 12, 4))])
def test_other_doublings_keep_the_views_of_a_resolution(doublings: int, views: tuple[int, ...]) -> None:
    assert image_to_3d.image_preset("draft", "cpu", "zero123-xl", doublings=doublings).early_views == views
    assert image_to_3d.image_preset("draft", "cpu", doublings=min(doublings, 3)).early_views == ()
    asked = image_to_3d.image_preset("draft", "cpu", "zero123-xl", doublings=1, early_views=(7,))
    assert asked.early_views == (7,)


@pytest.mark.parametrize("doublings", [-1, 5, 10**12])
def test_doublings_that_nobody_can_have_are_refused(doublings: int) -> None:
    with pytest.raises(ValueError, match="number of doublings must lie between 0 and 4"):
        image_to_3d.image_preset("draft", "cpu", "zero123-xl", doublings=doublings)


def test_every_regularizer_that_can_be_weighed_is_a_term_of_its_own() -> None:
    (step,) = steps_of(settings(steps=1, **dict.fromkeys(presets.REGULARIZERS, 2.0)))
    terms = {name.replace("_", " ").replace("normal smoothness 3d", "3D normal smoothness") for name in presets.REGULARIZERS}
    assert step.losses.keys() == {"distillation", "rgb", "mask"} | terms
    assert step.losses.keys() - steps_of(settings(steps=1))[0].losses.keys() == terms, "without a weight there is none"


def test_a_run_shows_as_many_views_as_its_resolution_allows() -> None:
    chosen = settings(resolution=32, doublings=1, views=1, early_views=(3,))
    assert [step.rendering.image.shape[:2] for step in steps_of(chosen)] == [(4, 16)] * 2 + [(2, 32)] * 4
