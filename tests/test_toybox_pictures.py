import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator

from dreamtime.cameras import CameraRange, angles_from_position, orbit, rays_from_cameras, sample_cameras
from dreamtime.prompts import VIEWS, views_of
from dreamtime.shading import headlight
from dreamtime.toybox.kinds import KINDS
from dreamtime.toybox.novel_views import draw_novel_views
from dreamtime.toybox.pictures import AT_ONCE, Plaster, contact_sheet, draw_pictures, render, sphere_trace
from dreamtime.toybox.portraits import draw, three_ways
from dreamtime.toybox.symmetry import has_sides
from dreamtime.toybox.world import COLORS, Object, Thing, object_of, words_of
from dreamtime.types import Cameras, Light, Rays

RED = torch.tensor(COLORS["red"])
SPHERE = Thing("sphere", "red").distance
DISTANCE, FOV = 1.8, math.radians(50)


def front(resolution: int) -> Cameras:
    return orbit(*(torch.tensor([x]) for x in (0.0, 0.0, DISTANCE, FOV)), resolution, resolution)


def light(position: tuple[float, float, float], ambient: float) -> Light:
    return Light(torch.tensor([position]), torch.tensor([ambient]))


def test_rays_meet_the_sphere_where_algebra_says():
    cameras = sample_cameras(3, 24, CameraRange(jitter=0.1), Generator().manual_seed(0))
    rays = rays_from_cameras(cameras)
    depth = sphere_trace(SPHERE, rays)
    # |o + t d| = 0.5 has the roots -b -+ sqrt(b^2 - |o|^2 + 0.25) with b = o . d.
    b = (rays.origins * rays.directions).sum(-1)
    under_root = b**2 - rays.origins.square().sum(-1) + 0.25
    # A ray may pass the rim at less than the tolerance and count as a hit.
    assert (depth.isfinite() | (under_root < 0)).all()
    assert (depth.isinf() | (under_root > -2e-3)).all()
    clear = under_root > 0.01
    torch.testing.assert_close(depth[clear], (-b - under_root.sqrt())[clear], atol=0.011, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_ray_passes_through_a_shape(kind: str):
    """Brute force: a dense march finds an inside point exactly where tracing finds a surface, and none before it."""
    distance = Thing(kind, "red").distance
    rays = rays_from_cameras(sample_cameras(2, 20, CameraRange(), Generator().manual_seed(1)))
    depth = sphere_trace(distance, rays)
    t = torch.linspace(0.5, 3.0, 1200)
    points = rays.origins[:, None] + t[:, None] * rays.directions[:, None]  # [N, S, 3]
    inside = distance(points.reshape(-1, 3)).reshape(len(depth), -1) < 0
    assert depth[inside.any(dim=1)].isfinite().all()
    first = t[inside.int().argmax(dim=1)][inside.any(dim=1)]
    assert (depth[inside.any(dim=1)] <= first + 1e-3).all()
    # What is hit without an inside sample is a grazing ray.
    grazing = depth.isfinite() & ~inside.any(dim=1)
    assert grazing.float().mean() < 0.02
    hit = depth.isfinite()
    assert distance(rays.origins[hit] + depth[hit, None] * rays.directions[hit]).abs().max() < 1.1e-3


def test_rays_that_look_away_or_miss_see_nothing():
    origins = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [2.0, 0, 0]])
    directions = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0.45, 0]]), dim=-1)
    assert sphere_trace(SPHERE, Rays(origins, directions)).isinf().all()


def test_the_sphere_covers_the_area_of_its_silhouette():
    """Seen from distance d a ball of radius r shows a disc of radius r / sqrt(d^2 - r^2) on the plane at distance 1."""
    resolution = 64
    _, cover = render([Thing("sphere", "red")], front(resolution), light((DISTANCE, 0, 0), 0.5), torch.ones(1, 3))
    radius = 0.5 / math.sqrt(DISTANCE**2 - 0.25) / (2 * math.tan(FOV / 2)) * resolution  # pixels
    # The boundary counts in quarters of pixels: a fraction of its length is all that can be wrong.
    assert abs(cover.sum().item() - math.pi * radius**2) < 0.1 * 2 * math.pi * radius
    assert cover.min() == 0
    assert cover.max() == 1


@pytest.mark.parametrize(
    ("position", "ambient"),
    [
        ((DISTANCE, 0.0, 0.0), 0.3),
        ((0.5, 0.0, 2.0), 0.3),
        ((1.5, 1.0, 0.0), 0.5),
        ((-2.0, 0.0, 0.0), 0.4),
        ((2.0, 0.0, 0.0), 1.0),
    ],
)
def test_the_point_nearest_the_camera_has_the_colour_of_lamberts_law(position: tuple[float, float, float], ambient: float):
    image, _ = render([Thing("sphere", "red")], front(65), light(position, ambient), torch.ones(1, 3))
    offset = torch.tensor(position) - torch.tensor([0.5, 0.0, 0.0])
    cosine = max(0.0, (offset[0] / offset.norm()).item())
    expected = RED * (ambient + (1 - ambient) * cosine)
    torch.testing.assert_close(image[0, 32, 32], expected, atol=5e-3, rtol=0)


def test_each_picture_has_its_own_light_and_background():
    cameras = orbit(*(torch.tensor([x, x]) for x in (0.0, 0.0, DISTANCE, FOV)), 17, 17)
    lights = Light(torch.tensor([[DISTANCE, 0, 0], [-DISTANCE, 0, 0]]), torch.tensor([0.3, 0.2]))
    background = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]])
    image, cover = render([Thing("sphere", "red")] * 2, cameras, lights, background)
    assert torch.equal(image[:, 0, 0], background)
    torch.testing.assert_close(image[:, 8, 8], torch.stack([RED, 0.2 * RED]), atol=5e-3, rtol=0)
    # Between object and background a pixel is their mixture by cover.
    rim = (cover[0] > 0) & (cover[0] < 1)
    assert rim.any()
    assert (image[0][rim[..., 0]] <= torch.maximum(RED, background[0]) + 1e-6).all()


def test_objects_of_one_shape_keep_their_own_colours():
    cameras = orbit(*(torch.tensor([x, x]) for x in (0.0, 0.0, DISTANCE, FOV)), 17, 17)
    lights = Light(torch.tensor([[DISTANCE, 0, 0]] * 2), torch.tensor([1.0, 1.0]))
    image, _ = render([Thing("sphere", "red"), Thing("sphere", "blue")], cameras, lights, torch.ones(2, 3))
    assert torch.equal(image[:, 8, 8], torch.tensor([COLORS["red"], COLORS["blue"]]))


def test_captions_say_what_is_seen(generator: Callable[[int], Generator]):
    pictures = draw_pictures(64, generator(5), resolution=16)
    assert pictures.images.shape == (64, 16, 16, 3)
    for caption, what in zip(pictures.captions, pictures.objects, strict=True):
        assert object_of(caption) in (what, None)
        assert any(name in caption for name in (what.things[0].kind, *what.things[0].what.synonyms))
    assert set(views_of(pictures.cameras)) == set(VIEWS)


def test_the_cameras_are_those_that_the_pictures_were_taken_with(
    monkeypatch: pytest.MonkeyPatch, generator: Callable[[int], Generator]
):
    seen: list[tuple[Object, list[float]]] = []

    def spy(looks: list[Object | Plaster], cameras: Cameras, lights: Light, background: torch.Tensor):
        objects = [look.what if isinstance(look, Plaster) else look for look in looks]
        assert len({what.shape for what in objects}) == 1
        seen.extend(zip(objects, cameras.positions.tolist(), strict=True))
        return render(looks, cameras, lights, background)

    monkeypatch.setattr("dreamtime.toybox.pictures.render", spy)
    pictures = draw_pictures(16, generator(6), resolution=8)
    said = list(zip(pictures.objects, pictures.cameras.positions.tolist(), strict=True))
    assert sorted(seen, key=str) == sorted(said, key=str)


def test_two_sides_of_an_object_differ_in_the_azimuth_alone(generator: Callable[[int], Generator]):
    pictures = draw_pictures(32, generator(4), resolution=16, sides=2)
    assert pictures.objects[::2] == pictures.objects[1::2]
    elevation, azimuth, distance = angles_from_position(pictures.cameras.positions)
    for same in (elevation, distance, pictures.cameras.fov_y):
        torch.testing.assert_close(same[::2], same[1::2])
    assert (azimuth[::2] - azimuth[1::2]).abs().min() > 1e-3
    # What is round about its axis looks the same from every side, as its light goes round with the camera.
    images = pictures.images.int()
    difference = (images[::2] - images[1::2]).abs().float().mean(dim=(1, 2, 3))
    round_ones = torch.tensor([not has_sides(what.caption) and isinstance(what, Thing) for what in pictures.objects[::2]])
    assert 2 <= round_ones.sum() <= 16
    assert difference[round_ones].max() < 0.5 < 2 < difference[~round_ones].mean()


def test_sides_that_do_not_add_up_are_refused(generator: Callable[[int], Generator]):
    with pytest.raises(ValueError, match="a multiple of that, got 3"):
        draw_pictures(3, generator(0), resolution=8, sides=2)


def test_some_pictures_show_shape_and_light_alone_and_their_captions_name_no_colour(
    monkeypatch: pytest.MonkeyPatch, generator: Callable[[int], Generator]
):
    """As our textureless shading has it: the same light on white."""
    monkeypatch.setattr("dreamtime.toybox.pictures.PLASTER_SHARE", 0.5)
    pictures = draw_pictures(40, generator(3), resolution=24)
    colorful = [len({*COLORS[what.things[0].color]}) > 1 for what in pictures.objects]
    white = [bool((image.amax(-1).int() - image.amin(-1).int()).max() <= 1) for image in pictures.images]
    told = [not set(COLORS) & set(words_of(caption)) for caption in pictures.captions]
    bare = [without for each, without, vivid in zip(white, told, colorful, strict=True) if each and vivid]
    assert 8 < len(bare) < sum(colorful) - 8
    assert all(bare)


def test_plaster_is_shaded_as_our_own_textureless_renders_are():
    cameras = orbit(*(torch.tensor([x]) for x in (0.3, 0.5, DISTANCE, FOV)), 32, 32)
    cube, white = Thing("cube", "red"), torch.ones(1, 3)
    image, _ = render([Plaster(cube)], cameras, headlight(cameras), white)
    _, _, bare = three_ways([cube], cameras, headlight(cameras), white)
    assert (image - bare).abs().max() < 0.02


def test_the_same_seed_draws_the_same_pictures(generator: Callable[[int], Generator]):
    first, again, other = (draw_pictures(6, generator(seed), resolution=16) for seed in (2, 2, 3))
    assert torch.equal(first.images, again.images)
    assert first.objects == again.objects
    assert first.captions == again.captions
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize(("draw", "told"), [(draw_pictures, "captions"), (draw_novel_views, "objects"), (draw, "descriptions")])
def test_pictures_do_not_depend_on_how_many_are_traced_together(
    draw: Callable[..., Any], told: str, monkeypatch: pytest.MonkeyPatch, generator: Callable[[int], Generator]
):
    """A GPU traces more of them at once than a CPU does; some shapes come more often than that."""
    drawn = []
    for at_once in (4, 100):
        monkeypatch.setitem(AT_ONCE, "cpu", at_once)
        drawn.append(draw(40, generator(2)))
    assert getattr(drawn[0], told) == getattr(drawn[1], told)
    assert (drawn[0].images.int() - drawn[1].images.int()).abs().max() <= 1


@pytest.mark.cuda
@pytest.mark.parametrize("draw", [draw_pictures, draw_novel_views, draw])
def test_a_gpu_draws_the_same_pictures(draw: Callable[..., Any], generator: Callable[[int], Generator]):
    here, there = (draw(24, generator(2), device=torch.device(name)).images for name in ("cpu", "cuda"))
    assert there.is_cuda
    difference = (here.int() - there.cpu().int()).abs()
    assert (difference > 2).float().mean() < 1e-3  # a ray that grazes an edge may hit on one and miss on the other


def test_pictures_stand_before_shades_of_grey(generator: Callable[[int], Generator]):
    corners = draw_pictures(24, generator(0), resolution=16).images[:, 0, 0].int()
    assert torch.equal(corners, corners[:, :1].expand(-1, 3))
    assert len(corners[:, 0].unique()) > 12


def test_a_contact_sheet_fills_rows_and_pads_with_white():
    images = torch.stack([torch.full((2, 3, 3), shade) for shade in (0.0, 0.2, 0.4, 0.6, 1.7)])
    sheet = contact_sheet(images, 3)
    assert sheet.shape == (4, 9, 3)
    expected = [[0, 51, 102], [153, 255, 255]]
    for row in range(4):
        for column in range(9):
            assert sheet[row, column].tolist() == [expected[row // 2][column // 3]] * 3
