"""Quadrature against closed forms, brute force and nerfacc; normals against the gradient of a known field."""

import math

import nerfacc
import pytest
import torch

from dreamtime import volume_rendering as vr
from dreamtime.types import Rays, RaySamples

BOX = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([1.0, 1.0, 1.0])


def packed(counts: list[int], lengths: torch.Tensor) -> RaySamples:
    """Samples with the given number on each ray and the given lengths, each ray starting at distance 1."""
    rays = torch.repeat_interleave(torch.tensor(counts))
    starts = torch.cat([1 + part.cumsum(0) - part for part in lengths.split(counts)])
    return RaySamples(rays, starts, starts + lengths, len(counts))


def ragged(generator, dtype=torch.float64) -> tuple[torch.Tensor, RaySamples]:
    """Densities and samples of five rays, two of them empty."""
    counts = [3, 0, 5, 1, 0]
    densities = 3 * torch.rand(9, generator=generator, dtype=dtype)
    return densities, packed(counts, 0.1 + torch.rand(9, generator=generator, dtype=dtype))


@pytest.mark.parametrize(
    ("origin", "direction", "expected"),
    [
        ((-3.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, 4.0)),
        ((0.0, 0.5, 0.0), (0.0, 1.0, 0.0), (0.0, 0.5)),  # from within
        ((-3.0, 0.999, 0.0), (1.0, 0.0, 0.0), (2.0, 4.0)),  # parallel to faces
        ((-2.0, -2.0, 0.0), (math.sqrt(0.5), math.sqrt(0.5), 0.0), (math.sqrt(2), math.sqrt(18))),
    ],
)
def test_near_and_far_of_a_box(origin, direction, expected):
    near, far = vr.near_far(Rays(torch.tensor([origin]), torch.tensor([direction])), *BOX)
    assert torch.allclose(torch.stack([near, far])[:, 0], torch.tensor(expected))


def test_a_ray_within_a_face_is_a_number():
    near, far = vr.near_far(Rays(torch.tensor([[-3.0, 1.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]])), *BOX)
    assert torch.isfinite(near).all()
    assert torch.isfinite(far).all()


@pytest.mark.parametrize(("origin", "direction"), [((-3.0, 2.0, 0.0), (1.0, 0.0, 0.0)), ((3.0, 0.0, 0.0), (1.0, 0.0, 0.0))])
def test_a_ray_beside_or_behind_the_box_has_no_interval(origin, direction):
    near, far = vr.near_far(Rays(torch.tensor([origin]), torch.tensor([direction])), *BOX)
    assert len(vr.march(near, far, 0.1).t_starts) == 0


def test_march_takes_every_midpoint_before_far(generator):
    starts = torch.rand(20, generator=generator(1)) * 2
    far = starts - 0.5 + torch.rand(20, generator=generator(2)) * 2
    samples = vr.march(starts, far, 0.15)
    expected = [
        (ray, start + k * 0.15)
        for ray, (start, end) in enumerate(zip(starts.tolist(), far.tolist(), strict=True))
        for k in range(100)
        if start + (k + 0.5) * 0.15 < end
    ]
    assert samples.ray_indices.tolist() == [ray for ray, _ in expected]
    assert torch.allclose(samples.t_starts, torch.tensor([t for _, t in expected]))
    assert torch.allclose(samples.t_ends - samples.t_starts, torch.tensor(0.15))


def test_jitter_stays_within_one_step_and_repeats(generator):
    near = torch.linspace(0, 2, 1000)
    moved = vr.jittered(near, 0.25, generator(3)) - near
    assert moved.min() >= -1e-6
    assert moved.max() <= 0.25 + 1e-6
    assert moved.std() == pytest.approx(0.25 / math.sqrt(12), rel=0.1)
    assert torch.equal(vr.jittered(near, 0.25, generator(3)), near + moved)


def test_cell_indices_count_x_first_and_clamp():
    points = torch.tensor(
        [[-0.99, -0.99, -0.99], [-0.99, -0.99, 0.99], [-0.99, 0.99, -0.99], [0.99, -0.99, -0.99], [9.0, 9.0, 9.0]]
    )
    assert vr.cell_indices(points, 1.0, 4).tolist() == [0, 3, 12, 48, 63]


def test_midpoints_lie_on_their_rays():
    rays = Rays(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    samples = packed([1, 2], torch.tensor([1.0, 1.0, 2.0]))
    assert torch.allclose(vr.midpoints(rays, samples), torch.tensor([[0.0, 0.0, 1.5], [1.0, 1.5, 0.0], [1.0, 3.0, 0.0]]))


def test_select_keeps_rays_that_become_empty():
    samples = packed([2, 1], torch.ones(3))
    left = vr.select(samples, torch.tensor([True, True, False]))
    assert (left.ray_indices.tolist(), left.n_rays) == ([0, 0], 2)


def test_exclusive_sum_is_exact_across_many_opaque_rays():
    """Float32 running totals over these rays would have lost every digit of the small values."""
    values = torch.tensor([1000.0, 0.5, 0.25]).repeat(50_000)
    sums = vr.exclusive_sum(values, packed([3] * 50_000, torch.ones(150_000)))
    assert torch.equal(sums, torch.tensor([0.0, 1000.0, 1000.5]).repeat(50_000))


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_beer_lambert_for_any_number_of_samples(count):
    """A homogeneous slab of thickness L absorbs 1 - exp(-sigma L), however it is cut."""
    lengths = torch.linspace(1, 3, count, dtype=torch.float64)
    lengths = 0.8 * lengths / lengths.sum()
    weights = vr.weights_from_density(torch.full((count,), 2.5, dtype=torch.float64), packed([count], lengths))
    assert weights.sum() == pytest.approx(1 - math.exp(-2.5 * 0.8), abs=1e-12)


def test_layers_of_half_transparency_halve_the_weights():
    weights = vr.weights_from_density(torch.full((3,), math.log(2)), packed([3], torch.ones(3)))
    assert torch.allclose(weights, torch.tensor([0.5, 0.25, 0.125]))


def test_an_opaque_layer_hides_what_is_behind_it():
    weights = vr.weights_from_density(torch.tensor([0.0, 1e6, 5.0]), packed([3], torch.ones(3)))
    assert torch.equal(weights, torch.tensor([0.0, 1.0, 0.0]))


def test_weights_are_the_product_of_what_passes_and_what_stays(generator):
    densities, samples = ragged(generator(4))
    expected, passed, ray = [], 1.0, -1
    alphas = (1 - torch.exp(-densities * (samples.t_ends - samples.t_starts))).tolist()
    for index, alpha in zip(samples.ray_indices.tolist(), alphas, strict=True):
        passed, ray = (1.0 if index != ray else passed), index
        expected.append(passed * alpha)
        passed *= 1 - alpha
    assert torch.allclose(vr.weights_from_density(densities, samples), torch.tensor(expected, dtype=torch.float64), atol=1e-14)


def through_a_wall(sharpness: float, cosine: float, count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of a ray that meets a wall 1 ahead at an angle, and the middle of the interval that each belongs to."""
    ends = torch.linspace(0, 2, count + 1, dtype=torch.float64)
    distances = cosine * (1 - ends)
    depths = vr.optical_depths_from_distances(distances[:-1], distances[1:], sharpness)
    return vr.weights_from_depths(depths, packed([count], ends.diff())), (ends[:-1] + ends[1:]) / 2


def test_the_opacity_between_two_distances_is_that_of_neus(generator):
    near, far = (torch.randn(2, 50, generator=generator(4), dtype=torch.float64) / 10).unbind()
    cdf_near, cdf_far = (torch.sigmoid(30 * f) for f in (near, far))
    opacity = 1 - torch.exp(-vr.optical_depths_from_distances(near, far, 30.0))
    assert torch.allclose(opacity, ((cdf_near - cdf_far) / cdf_near).clamp(min=0), atol=1e-14)
    assert bool((opacity[far >= near] == 0).all()), "on the way out nothing is met"
    inputs = (near.requires_grad_(), far.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: vr.optical_depths_from_distances(a, b, 30.0), inputs)


@pytest.mark.parametrize("cosine", [1.0, 0.5, 0.2])
@pytest.mark.parametrize("sharpness", [5.0, 60.0, 1000.0])
def test_the_weight_of_neus_is_largest_at_the_surface(sharpness: float, cosine: float):
    """Unbiased, however blurred the surface is and at whatever angle a ray meets it; a density of the same shape is not."""
    weights, t = through_a_wall(sharpness, cosine)
    assert t[weights.argmax()].item() == pytest.approx(1, abs=0.006)
    if sharpness * cosine < 50:
        density = sharpness * torch.sigmoid(-sharpness * cosine * (1 - t)) * (1 - torch.sigmoid(-sharpness * cosine * (1 - t)))
        biased = vr.weights_from_density(density, packed([400], torch.full((400,), 0.005, dtype=torch.float64)))
        assert t[biased.argmax()].item() < 1 - 0.01, "the plain construction of section 3.1 comes too early"


def test_a_sharp_surface_of_neus_is_a_hard_one():
    weights, t = through_a_wall(1e5, 0.7, count=401)
    assert weights.max().item() == pytest.approx(1)
    assert t[weights.argmax()].item() == pytest.approx(1)


def test_light_falls_as_the_distribution_of_neus_does():
    weights, _ = through_a_wall(8.0, 1.0, count=10)
    passed = torch.sigmoid(torch.tensor(-8.0)) / torch.sigmoid(torch.tensor(8.0))
    assert weights.sum().item() == pytest.approx(1 - passed.item())


@pytest.mark.parametrize("distance", [-100.0, 0.0, 100.0])
def test_optical_depths_of_distances_stay_finite(distance: float):
    near, far = (torch.full((3,), distance + step, requires_grad=True) for step in (0.0, -0.04))
    depths = vr.optical_depths_from_distances(near, far, 1000.0)
    gradients = torch.autograd.grad(depths.sum(), (near, far))
    assert torch.isfinite(torch.stack([depths, *gradients])).all()


def test_packed_dense_and_nerfacc_weights_agree_with_their_gradients(generator):
    densities = (20 * torch.rand(6, 12, generator=generator(5))).requires_grad_()
    lengths = 0.05 + 0.1 * torch.rand(6, 12, generator=generator(6))
    upstream = torch.randn(6, 12, generator=generator(7))
    samples = packed([12] * 6, lengths.flatten())
    ends = lengths.cumsum(1)
    versions = [
        nerfacc.render_weight_from_density(ends - lengths, ends, densities)[0],
        vr.weights_from_dense_density(densities, lengths),
        vr.weights_from_density(densities.flatten(), samples).view(6, 12),
    ]
    gradients = [torch.autograd.grad(weights, densities, upstream)[0] for weights in versions]
    for weights, gradient in zip(versions[1:], gradients[1:], strict=True):
        assert torch.allclose(weights, versions[0], atol=1e-6)
        assert torch.allclose(gradient, gradients[0], atol=1e-6)


def test_gradients_of_weights_and_sums(generator):
    densities, samples = ragged(generator(8))
    values = torch.rand(9, 2, generator=generator(9), dtype=torch.float64)

    def rendered(densities, values):
        return vr.accumulate(vr.weights_from_density(densities, samples), values, samples)

    assert torch.autograd.gradcheck(rendered, (densities.requires_grad_(), values.requires_grad_()))


@pytest.mark.parametrize("density", [0.0, 1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_weights_and_gradients_stay_finite(density):
    densities = torch.full((8,), density, requires_grad=True)
    weights = vr.weights_from_density(densities, packed([5, 3], torch.full((8,), 0.04)))
    (gradient,) = torch.autograd.grad(weights.sum(), densities)
    assert torch.isfinite(weights).all()
    assert torch.isfinite(gradient).all()


def test_no_samples_make_empty_weights_and_zero_sums():
    nothing = RaySamples(torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0), 4)
    weights = vr.weights_from_density(torch.zeros(0), nothing)
    assert torch.equal(vr.accumulate(weights, torch.zeros(0, 3), nothing), torch.zeros(4, 3))


def test_accumulate_sums_by_ray():
    samples = packed([2, 0, 1], torch.ones(3))
    sums = vr.accumulate(torch.tensor([0.5, 0.25, 1.0]), torch.tensor([[2.0], [4.0], [3.0]]), samples)
    assert torch.equal(sums, torch.tensor([[2.0], [0.0], [3.0]]))


def gaussian(points: torch.Tensor) -> torch.Tensor:
    """A smooth anisotropic bump, gradient -2 (x, 2 y, 3 z) times itself."""
    return torch.exp(-(points.square() @ torch.tensor([1.0, 2.0, 3.0]).to(points)))


def test_normals_by_both_ways_are_the_known_ones(generator):
    points = 2 * torch.rand(200, 3, generator=generator(10), dtype=torch.float64) - 1
    expected = torch.nn.functional.normalize(points * torch.tensor([1.0, 2.0, 3.0]), dim=-1)
    assert torch.allclose(vr.normals_by_autograd(gaussian, points), expected, atol=1e-12)
    assert torch.allclose(vr.normals_by_differences(gaussian, points, 1e-3), expected, atol=1e-5)


@pytest.mark.parametrize("normals", [vr.normals_by_differences, vr.normals_by_autograd])
def test_normals_can_be_differentiated_by_the_scene(normals):
    """A half-space turned by an angle: its normal is (cos, sin, 0), the derivative (-sin, cos, 0)."""
    angle = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def half_space(points):
        return torch.sigmoid(-4 * (points[:, 0] * torch.cos(angle) + points[:, 1] * torch.sin(angle)))

    def normal(component):
        return normals(half_space, torch.zeros(1, 3, dtype=torch.float64))[0, component]

    assert normal(0).item() == pytest.approx(math.cos(0.3), abs=1e-3)
    assert torch.autograd.grad(normal(0), angle)[0].item() == pytest.approx(-math.sin(0.3), abs=1e-3)
    assert torch.autograd.grad(normal(1), angle)[0].item() == pytest.approx(math.cos(0.3), abs=1e-3)


@pytest.mark.parametrize("normals", [vr.normals_by_differences, vr.normals_by_autograd])
def test_flat_density_has_no_normal_and_a_finite_gradient(normals):
    level = torch.tensor(2.0, requires_grad=True)
    flat = normals(lambda points: level * (1 + 0 * points.sum(-1)), torch.zeros(3, 3))
    flat.sum().backward()
    assert torch.equal(flat, torch.zeros(3, 3))
    assert level.grad is not None
    assert torch.isfinite(level.grad)
