"""Penalties against brute force, their zeros and their signs."""

import math

import pytest
import torch

from dreamtime import regularizers
from dreamtime.types import RaySamples, Rendering, VolumeSamples


def rendering(opacity: torch.Tensor, samples: VolumeSamples | None = None) -> Rendering:
    """A rendering of one row of pixels of which only the opacity matters, with the given samples."""
    opacity = opacity.view(1, 1, -1, 1)
    color = opacity.expand(-1, -1, -1, 3)
    return Rendering(color, opacity, opacity, color, samples)


def along_rays(counts: list[int], weights: torch.Tensor, ends: torch.Tensor, normals: torch.Tensor | None = None) -> Rendering:
    """A rendering of rays along +x with the given samples, each 0.1 long."""
    intervals = RaySamples(torch.repeat_interleave(torch.tensor(counts)), ends - 0.1, ends, len(counts))
    directions = torch.tensor([1.0, 0.0, 0.0]).to(weights).expand(len(weights), 3)
    normals = -directions if normals is None else normals
    points = (ends - 0.05)[:, None] * directions
    return rendering(torch.ones(len(counts)), VolumeSamples(intervals, weights, points, normals, directions))


def test_orientation_counts_only_normals_that_face_away():
    normals = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0]])
    picture = along_rays([3, 1], torch.tensor([0.5, 0.2, 0.25, 0.4]), torch.tensor([1.0, 2.0, 3.0, 1.0]), normals)
    assert regularizers.orientation(picture, 0.0).item() == pytest.approx((0.25 * 0.36 + 0.4) / 2)


def test_orientation_turns_normals_and_leaves_weights_alone():
    weights = torch.tensor([0.5], requires_grad=True)
    normals = torch.tensor([[0.6, 0.8, 0.0]], requires_grad=True)
    regularizers.orientation(along_rays([1], weights, torch.ones(1), normals), 0.0).backward()
    assert weights.grad is None
    assert normals.grad is not None
    assert torch.allclose(normals.grad, torch.tensor([[2 * 0.5 * 0.6, 0.0, 0.0]]))


def test_opacity_is_a_soft_absolute_value():
    assert regularizers.opacity(rendering(torch.tensor([0.0, 1.0])), 0.0).item() == pytest.approx((0.1 + math.sqrt(1.01)) / 2)


@pytest.mark.parametrize(
    ("value", "bits", "tolerance"), [(0.0, 0.0, 0.012), (0.5, 1.0, 1e-6), (1.0, 0.0, 0.012), (0.11, 0.5, 1e-3)]
)
def test_entropy_of_a_pixel_in_bits(value, bits, tolerance):
    assert regularizers.entropy(rendering(torch.full((5,), value)), 0.0).item() == pytest.approx(bits, abs=tolerance)


def test_entropy_pushes_pixels_apart_and_has_finite_gradients():
    opacity = torch.tensor([0.0, 0.2, 0.8, 1.0], requires_grad=True)
    regularizers.entropy(rendering(opacity), 0.0).backward()
    assert opacity.grad is not None
    assert torch.isfinite(opacity.grad).all()
    assert opacity.grad[1] > 0 > opacity.grad[2]


def test_distortion_is_the_double_sum(generator):
    counts = [4, 0, 6, 1]
    weights = torch.rand(11, generator=generator(1), dtype=torch.float64) / 6
    ends = torch.cat([2 + (0.1 + torch.rand(n, generator=generator(n), dtype=torch.float64)).cumsum(0) for n in counts])
    expected, first = 0.0, 0
    for count in counts:
        w, m = weights[first : first + count].tolist(), (ends[first : first + count] - 0.05).tolist()
        expected += sum(w[i] * w[j] * abs(m[i] - m[j]) for i in range(count) for j in range(count))
        expected += sum(w[i] ** 2 * 0.1 / 3 for i in range(count))
        first += count
    assert regularizers.distortion(along_rays(counts, weights, ends), 0.0).item() == pytest.approx(expected / 4, rel=1e-10)


def test_distortion_gradient(generator):
    weights = (torch.rand(5, generator=generator(2), dtype=torch.float64) / 5).requires_grad_()
    ends = torch.tensor([1.0, 1.1, 1.5, 2.0, 2.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w: regularizers.distortion(along_rays([3, 2], w, ends), 0.0), weights)


def test_the_other_terms_of_a_pixel_have_the_slopes_of_finite_differences(generator):
    pixels = (0.1 + 0.8 * torch.rand(6, generator=generator(3), dtype=torch.float64)).requires_grad_()
    for regularizer in (regularizers.opacity, regularizers.entropy):
        assert torch.autograd.gradcheck(lambda o, term=regularizer: term(rendering(o), 0.0), pixels)
    normals = torch.randn(5, 3, generator=generator(4), dtype=torch.float64).requires_grad_()
    weights, ends = torch.full((5,), 0.2, dtype=torch.float64), torch.tensor([1.0, 1.1, 1.5, 2.0, 2.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda n: regularizers.orientation(along_rays([3, 2], weights, ends, n), 0.0), normals)


def test_distortion_grows_with_the_distance_between_weights():
    near, far = (along_rays([2], torch.tensor([0.5, 0.5]), torch.tensor([1.0, end])) for end in (1.2, 1.9))
    assert regularizers.distortion(near, 0.0) < regularizers.distortion(far, 0.0)


@pytest.mark.parametrize("regularizer", [regularizers.orientation, regularizers.distortion])
def test_a_rendering_without_samples_is_refused(regularizer):
    with pytest.raises(ValueError, match="needs the samples"):
        regularizer(rendering(torch.ones(3)), 0.0)


def of_normals(normal: torch.Tensor) -> Rendering:
    """A rendering of which only the normals matter."""
    return Rendering(torch.zeros_like(normal), normal[..., :1], normal[..., :1], normal)


def test_normal_smoothness_is_zero_on_a_plane_and_the_squared_step_at_an_edge():
    flat = torch.tensor([0.0, 0.6, 0.8]).expand(1, 4, 4, 3)
    assert regularizers.normal_smoothness(of_normals(flat), 0.0).item() == 0
    edge = torch.zeros(1, 4, 4, 3)
    edge[:, :, :2, 0] = 1
    edge[:, :, 2:, 1] = 1
    # Of the three steps along a row one is an edge, and two of its three components change by 1.
    assert regularizers.normal_smoothness(of_normals(edge), 0.0).item() == pytest.approx(2 / (3 * 3))


def test_normal_smoothness_3d_asks_a_fixed_step_away():
    asked: list[torch.Tensor] = []

    def turned(points: torch.Tensor) -> torch.Tensor:
        asked.append(points)
        return torch.tensor([0.0, 1.0, 0.0]).expand(len(points), 3)

    normals = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    picture = along_rays([2], torch.ones(2), torch.tensor([1.0, 2.0]), normals)
    penalty = regularizers.normal_smoothness_3d(turned, step=0.03)(picture, 0.0)
    assert picture.samples is not None
    assert torch.allclose((asked[0] - picture.samples.points).norm(dim=-1), torch.tensor(0.03))
    assert penalty.item() == pytest.approx((0 + 2) / (2 * 3))


def test_normal_smoothness_3d_is_zero_where_nothing_is_visible():
    empty = along_rays([0], torch.zeros(0), torch.zeros(0), torch.zeros(0, 3))
    assert regularizers.normal_smoothness_3d(lambda points: points)(empty, 0.0).item() == 0


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (0.5, 0.25), (3.0, 4.0)])
def test_the_eikonal_term_is_zero_for_distances_alone(slope: float, expected: float):
    picture = along_rays([2], torch.ones(2), torch.tensor([1.0, 2.0]), torch.zeros(2, 3))
    wall = torch.tensor([0.6, 0.0, -0.8])
    penalty = regularizers.eikonal(lambda points: slope * (points @ wall - 0.3))(picture, 0.0)
    assert penalty.item() == pytest.approx(expected, abs=1e-4)


def test_the_eikonal_term_is_zero_where_nothing_is_visible():
    empty = along_rays([0], torch.zeros(0), torch.zeros(0), torch.zeros(0, 3))
    assert regularizers.eikonal(lambda points: points.sum(dim=-1))(empty, 0.0).item() == 0
