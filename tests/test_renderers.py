"""Pictures of scenes known in closed form; skipping, chance, shading, and gradients by finite difference."""

import math

import pytest
import torch
from fakes import SolidSphere
from torch import nn

from dreamtime.cameras import orbit, rays_from_cameras
from dreamtime.renderers import OccupancyGrid, VolumeRenderer, preview, sampler_of, training_renderer
from dreamtime.representations import EnvironmentMap, feature_grid_nerf, feature_grid_neus, flat_background
from dreamtime.shading import headlight
from dreamtime.types import Cameras, Rendering

BLUE = flat_background(0.0, 0.0, 1.0)


def front(resolution: int = 17, views: int = 1, device: str = "cpu") -> Cameras:
    """Cameras around the scene at distance 2; with an odd resolution the middle pixel looks through its centre."""
    ones = torch.ones(views, device=device)
    return orbit(0.2 * ones, torch.arange(views, device=device) * 1.0, 2 * ones, 0.9 * ones, resolution, resolution)


def fine_renderer(scene: nn.Module, steps: int = 400) -> VolumeRenderer:
    """A renderer whose quadrature is fine enough for closed forms."""
    return VolumeRenderer(scene, OccupancyGrid(step=2 / steps), faintest=1e-6)


def looked(scene: nn.Module, generator: torch.Generator, **options: float) -> OccupancyGrid:
    grid = OccupancyGrid(**options)
    grid.look(scene.density, generator)
    return grid


class Ellipsoid(nn.Module):
    """A soft white ball of radius 0.5, drawn out along y by a parameter."""

    def __init__(self, stretch: float) -> None:
        super().__init__()
        self.stretch = nn.Parameter(torch.tensor(stretch))

    def density(self, points: torch.Tensor) -> torch.Tensor:
        x, y, z = points.unbind(-1)
        return 20 * torch.sigmoid((0.5 - (x.square() + (y / self.stretch).square() + z.square() + 1e-9).sqrt()) / 0.05)

    def density_and_albedo(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.density(points), torch.ones_like(points)


def mean_color(rendering: Rendering) -> torch.Tensor:
    return rendering.image.mean(dim=(0, 1, 2))


def test_the_central_ray_obeys_beer_lambert():
    ball = SolidSphere(level=1.5)
    opacity = fine_renderer(ball)(front(), headlight(front()), "albedo", BLUE).opacity[0, 8, 8, 0]
    assert opacity.item() == pytest.approx(1 - math.exp(-ball.central_optical_depth()), abs=1e-3)


def test_what_passes_beside_a_ball_of_neus_tells_how_near_it_came(generator):
    """A ray dims while it comes nearer: as Phi_s(f) from where it began to where it was nearest (NeuS, Eq. 13)."""
    scene = feature_grid_neus(generator(1), radius=0.4, sharpness=20.0)
    scene.distance_gain = 0.0
    cameras = front()
    rays = rays_from_cameras(cameras)
    opacity = fine_renderer(scene, steps=400)(cameras, headlight(cameras), "albedo", BLUE).opacity.flatten()
    nearest = torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1)
    crossing = nearest < 0.85  # well within the ball of radius 1 that is looked at
    begin = torch.sigmoid(20 * (torch.tensor(1.0) - 0.4))
    expected = 1 - torch.sigmoid(20 * (nearest - 0.4)) / begin
    assert crossing.sum() > 50
    assert torch.allclose(opacity[crossing], expected.clamp(min=0)[crossing], atol=0.01)
    assert expected[crossing].min() < 0.1
    assert expected[crossing].max() > 0.9


def test_an_opaque_ball_is_seen_where_it_is():
    cameras = front()
    picture = fine_renderer(SolidSphere(level=50.0))(cameras, headlight(cameras, ambient=0.0), "lambertian", BLUE)
    towards = torch.nn.functional.normalize(cameras.positions, dim=-1)[0]
    assert picture.opacity[0, 8, 8, 0].item() == pytest.approx(1, abs=1e-5)
    assert picture.depth[0, 8, 8, 0].item() == pytest.approx(1.5, abs=0.01)
    assert torch.allclose(picture.normal[0, 8, 8], towards, atol=0.02)
    assert torch.allclose(picture.image[0, 8, 8], (1 + 0.5 * towards) / 2, atol=0.03)  # lit head-on, so the albedo itself


def test_what_misses_the_scene_shows_the_background():
    picture = preview(VolumeRenderer(SolidSphere(), OccupancyGrid()), background=BLUE)(front())
    assert torch.equal(picture.image[0, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert picture.opacity[0, 0, 0].item() == 0


def test_images_are_composited_and_stay_in_range(generator):
    scene = feature_grid_nerf(generator(1), cells=(4, 8))
    renderer, cameras = VolumeRenderer(scene, OccupancyGrid()), front(12, views=3)
    on_black, on_white = (
        renderer(cameras, headlight(cameras), "lambertian", flat_background(shade, shade, shade)) for shade in (0.0, 1.0)
    )
    assert torch.allclose(on_white.image - on_black.image, (1 - on_black.opacity).expand(-1, -1, -1, 3), atol=1e-6)
    assert on_black.image.min() >= 0
    assert on_white.image.max() <= 1 + 1e-6
    assert on_white.opacity.max() <= 1 + 1e-6


def test_samples_add_up_to_the_opacity():
    cameras = front(12, views=2)
    picture = VolumeRenderer(SolidSphere(), OccupancyGrid())(cameras, headlight(cameras), "albedo", BLUE)
    samples = picture.samples
    assert samples is not None
    sums = torch.zeros(2 * 12 * 12).index_add(0, samples.intervals.ray_indices, samples.weights)
    assert torch.allclose(sums, picture.opacity.flatten(), atol=1e-6)
    assert samples.weights.min() > 0
    assert torch.allclose(samples.directions.norm(dim=-1), torch.tensor(1.0))


def test_shadings_differ_as_they_should():
    cameras = front()
    renderer, light = VolumeRenderer(SolidSphere(), OccupancyGrid()), headlight(front(), ambient=0.1)
    albedo, lambertian, textureless = (renderer(cameras, light, s, BLUE) for s in ("albedo", "lambertian", "textureless"))
    inside = albedo.opacity[0, ..., 0] > 0.99
    assert bool((lambertian.image[0][inside] < albedo.image[0][inside]).all())
    assert torch.allclose(textureless.image[0][inside][:, 0], textureless.image[0][inside][:, 1])
    assert not torch.allclose(albedo.image[0][inside][:, 0], albedo.image[0][inside][:, 1], atol=0.05)


def test_gradients_agree_with_finite_differences():
    """The stretch acts through opacity and, under a side light, through the normals."""
    cameras = front(24)
    light = headlight(front(24), ambient=0.0)
    light.positions[:] = torch.tensor([1.0, 3.0, 0.5])

    def brightness(stretch: float) -> tuple[torch.Tensor, Ellipsoid]:
        scene = Ellipsoid(stretch)
        return mean_color(fine_renderer(scene, 96)(cameras, light, "textureless", BLUE))[0], scene

    value, scene = brightness(1.2)
    value.backward()
    assert scene.stretch.grad is not None
    difference = (brightness(1.21)[0] - brightness(1.19)[0]).item() / 0.02
    assert scene.stretch.grad.item() == pytest.approx(difference, rel=0.02)


def test_normals_carry_gradients_of_their_own():
    """Seen from where it covers the same pixels, only the shading of the ellipsoid changes with its depth."""
    scene = Ellipsoid(1.3)
    cameras = front()
    picture = VolumeRenderer(scene, OccupancyGrid())(cameras, headlight(cameras), "lambertian", BLUE)
    (gradient,) = torch.autograd.grad(picture.normal[..., 1].abs().sum(), scene.stretch, retain_graph=True)
    assert picture.samples is not None
    (of_normals,) = torch.autograd.grad(picture.samples.normals[:, 1].abs().sum(), scene.stretch)
    assert gradient.item() != 0
    assert of_normals.item() < 0  # drawn out along y, normals lean less towards y


def test_nothing_visible_is_a_background_with_zero_gradients(generator):
    scene = feature_grid_nerf(generator(1), cells=(4,), blob=lambda points: -100 - points.norm(dim=-1))
    cameras = front(6)
    picture = VolumeRenderer(scene, looked(scene, generator(2)))(cameras, headlight(cameras), "lambertian", BLUE)
    picture.image.sum().backward()
    assert torch.equal(picture.image, torch.tensor([0.0, 0.0, 1.0]).expand(1, 6, 6, 3))
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in scene.parameters())


def test_skipping_empty_space_changes_no_picture(generator):
    scene, cameras = SolidSphere(), front(32, views=2)
    everywhere, somewhere = OccupancyGrid(), looked(scene, generator(1))
    somewhere.low.fill_(-1), somewhere.high.fill_(1)  # the same rays, cut at the same places
    rays = rays_from_cameras(cameras)
    assert len(somewhere(rays, None).t_starts) < 0.5 * len(everywhere(rays, None).t_starts)
    full, skipped = (preview(VolumeRenderer(scene, grid))(cameras) for grid in (everywhere, somewhere))
    assert torch.allclose(skipped.image, full.image, atol=1e-6)


def test_occupied_cells_cover_the_scene_and_the_box_covers_them(generator):
    grid = looked(SolidSphere(radius=0.4), generator(1), resolution=20)
    centres = torch.cartesian_prod(*[(torch.arange(20) + 0.5) * 0.1 - 1] * 3).norm(dim=-1).view(20, 20, 20)
    assert grid.occupied[centres < 0.4].all()
    assert not grid.occupied[centres > 0.4 + 0.5].any()
    occupied = grid.occupied.nonzero()
    assert grid.low.tolist() == pytest.approx((occupied.amin(0) * 0.1 - 1).tolist(), abs=1e-5)
    assert grid.high.tolist() == pytest.approx((occupied.amax(0) * 0.1 - 0.9).tolist(), abs=1e-5)


def test_corners_of_the_cube_stay_empty(generator):
    grid = looked(SolidSphere(radius=5.0), generator(1))
    assert not grid.occupied[0, 0, 0]
    assert grid.occupied.float().mean().item() == pytest.approx(math.pi / 6, abs=0.02)


def test_cells_are_forgotten_when_the_scene_leaves_them(generator):
    grid = looked(SolidSphere(), generator(1))
    for seed in range(60):
        grid.look(SolidSphere(radius=0.2).density, generator(seed))
    fresh = looked(SolidSphere(radius=0.2), generator(1))
    assert grid.occupied.sum() <= 1.2 * fresh.occupied.sum()


def test_a_grid_without_density_yields_no_samples(generator):
    grid = OccupancyGrid()
    grid.look(lambda points: torch.zeros(len(points)), generator(1))
    assert len(grid(rays_from_cameras(front()), generator(2)).t_starts) == 0


def test_a_refreshed_grid_looks_on_every_fourth_call(generator):
    grid, seen = OccupancyGrid(resolution=4), []
    for call in range(9):
        grid.refresh(lambda points, call=call: seen.append(call) or torch.zeros(len(points)), generator(call))
    assert seen == [0, 4, 8]


def test_a_grid_goes_on_where_it_was_saved(generator):
    grid, other = looked(SolidSphere(), generator(1)), OccupancyGrid()
    grid.refresh(SolidSphere().density, generator(2))
    other.load_state_dict(grid.state_dict())
    rays = rays_from_cameras(front())
    assert other.calls == 1
    assert torch.equal(other(rays, generator(3)).t_starts, grid(rays, generator(3)).t_starts)


def test_a_training_renderer_repeats_itself_and_changes_with_the_seed(generator):
    def picture(seed: int) -> torch.Tensor:
        occupancy = OccupancyGrid()
        scene = feature_grid_nerf(generator(1), cells=(4, 8))
        render = training_renderer(VolumeRenderer(scene, occupancy), occupancy, {"albedo": 0.5, "lambertian": 0.5})
        return render(front(8, views=2), 0.5, generator(seed)).image

    assert torch.equal(picture(3), picture(3))
    assert not torch.equal(picture(3), picture(4))


def test_shadings_are_drawn_by_their_probabilities(generator):
    """The textureless share shows as pictures without colour."""
    occupancy, chance = OccupancyGrid(step=0.2, resolution=4), generator(1)
    volume = VolumeRenderer(SolidSphere(), occupancy)
    render = training_renderer(volume, occupancy, {"albedo": 3.0, "lambertian": 0.0, "textureless": 1.0})
    grey = 0
    for _ in range(200):
        image = render(front(3), 0.0, chance).image[0, 1, 1]
        grey += bool((image - image.mean()).abs().max() < 1e-5)
    assert grey == pytest.approx(50, abs=3.5 * math.sqrt(200 * 3 / 16))


@pytest.mark.parametrize("shadings", [{}, {"albedo": 0.0}, {"albedo": -1.0, "lambertian": 2.0}])
def test_impossible_probabilities_are_refused(shadings):
    occupancy = OccupancyGrid()
    with pytest.raises(ValueError, match="probabilities of the shadings"):
        training_renderer(VolumeRenderer(SolidSphere(), occupancy), occupancy, shadings)


def test_an_environment_map_learns_from_what_the_scene_leaves_free(generator):
    environment, occupancy = EnvironmentMap(generator(1)), OccupancyGrid()
    volume = VolumeRenderer(SolidSphere(), occupancy)
    training_renderer(volume, occupancy, {"albedo": 1.0}, environment)(front(8), 0.0, generator(2)).image.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in environment.parameters())


def test_a_preview_is_without_chance_and_without_gradients():
    render = preview(VolumeRenderer(SolidSphere(), OccupancyGrid()))
    first, again = render(front(8)), render(front(8))
    assert torch.equal(first.image, again.image)
    assert not first.image.requires_grad


@pytest.mark.cuda
def test_cuda_draws_the_same_picture(generator):
    images = []
    for device in ("cpu", "cuda"):
        occupancy = OccupancyGrid().to(device)
        scene = feature_grid_nerf(generator(1)).to(device)
        render = training_renderer(VolumeRenderer(scene, occupancy), occupancy, {"lambertian": 1.0})
        images.append(render(front(32), 0.0, generator(2)).image.cpu())
    assert torch.allclose(*images, atol=0.02)
    assert (images[0] - images[1]).abs().mean() < 1e-4


def test_on_a_cpu_the_grid_samples_itself():
    grid = OccupancyGrid()
    assert sampler_of(grid) is grid
