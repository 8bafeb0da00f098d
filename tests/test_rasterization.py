"""Coverage by brute force, depths and silhouettes in closed form."""

import math

import pytest
import torch
import trimesh
from torch import Tensor

from dreamtime import cameras, rasterization
from dreamtime.types import Cameras


def front_camera(resolution: int = 48, fov_y: float = math.radians(50), distance: float = 2.0) -> Cameras:
    """One camera on the x axis that looks at the origin."""
    one = torch.ones(1)
    return cameras.orbit(0 * one, 0 * one, distance * one, fov_y * one, resolution, resolution)


def test_fragments_are_all_pixel_centres_in_each_triangle(generator):
    height, width = 13, 17
    triangles = torch.rand(40, 3, 2, generator=generator(0)) * 24 - 4
    found = rasterization.fragments(triangles, height, width)
    expected = set()
    for face, (a, b, c) in enumerate(triangles.double().tolist()):
        for v in range(height):
            for u in range(width):
                x, y = u + 0.5, v + 0.5
                signs = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) > 0 for p, q in ((a, b), (b, c), (c, a))]
                if all(signs) or not any(signs):
                    expected.add((v * width + u, face))
    assert set(zip(found.pixels.tolist(), found.faces.tolist(), strict=True)) == expected
    centres = torch.stack([found.pixels % width, found.pixels // width], dim=-1) + 0.5
    points = torch.einsum("ki,kic->kc", found.barycentric, triangles[found.faces])
    torch.testing.assert_close(points, centres, atol=1e-3, rtol=0)


def test_neighbours_leave_no_gap():
    """A square cut into four at a point that is no pixel's centre: every pixel is covered."""
    corners = torch.tensor([[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [0.0, 8.0], [3.3, 4.7]])
    faces = torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    found = rasterization.fragments(corners[faces], 8, 8)
    assert set(found.pixels.tolist()) == set(range(64))
    values = found.interpolate(corners, faces)
    torch.testing.assert_close(values, torch.stack([found.pixels % 8, found.pixels // 8], dim=-1) + 0.5, atol=1e-4, rtol=0)


def test_nothing_covers_nothing():
    flat = torch.tensor([[[1.0, 1.0], [5.0, 5.0], [3.0, 3.0]], [[2.0, 2.0]] * 3, [[90.0, 90.0], [95.0, 90.0], [90.0, 95.0]]])
    assert len(rasterization.fragments(flat, 8, 8).pixels) == 0


def quad(corners: list[list[float]]) -> tuple[Tensor, Tensor]:
    return torch.tensor(corners), torch.tensor([[0, 1, 2], [0, 2, 3]])


def test_a_slanted_plane_has_the_depth_that_rays_meet_it_at():
    """z is no linear function of the pixel, so screen-space weights would fail."""
    vertices, faces = quad([[0.5, -3.0, -3.0], [-0.5, 3.0, -3.0], [-0.5, 3.0, 3.0], [0.5, -3.0, 3.0]])  # 6 x + y = 0
    camera = front_camera()
    found = rasterization.rasterize(camera, vertices, faces)
    rays = cameras.rays_from_cameras(camera)
    normal = torch.tensor([6.0, 1.0, 0.0])
    expected = -(rays.origins @ normal) / (rays.directions @ normal)
    points = found.interpolate(vertices, faces)
    assert sorted(found.pixels.tolist()) == list(range(48 * 48))
    torch.testing.assert_close((points - camera.positions).norm(dim=-1), expected[found.pixels], atol=1e-4, rtol=0)


def test_the_nearest_face_is_seen_and_no_face_from_behind():
    near = [[0.5, -0.2, -0.2], [0.5, 0.2, -0.2], [0.5, 0.2, 0.2], [0.5, -0.2, 0.2]]
    far = [[-0.5, -0.9, -0.9], [-0.5, 0.9, -0.9], [-0.5, 0.9, 0.9], [-0.5, -0.9, 0.9]]
    front, faces = quad(near)
    behind, _ = quad(far)
    both = torch.cat([faces + 4, faces])  # the far square first
    found = rasterization.rasterize(front_camera(), torch.cat([front, behind]), both)
    assert len(found.pixels) == len(found.pixels.unique())
    x = found.interpolate(torch.cat([front, behind]), both)[:, 0]
    middle = (found.pixels == 24 * 48 + 24).nonzero().item()
    assert x[middle] == 0.5
    assert set(x.round(decimals=3).tolist()) == {0.5, -0.5}
    assert len(rasterization.rasterize(front_camera(), front, faces.flip(-1)).pixels) == 0


def test_what_is_behind_the_camera_is_not_seen():
    vertices, faces = quad([[3.0, -1.0, -1.0], [3.0, 1.0, -1.0], [3.0, 1.0, 1.0], [3.0, -1.0, 1.0]])
    assert len(rasterization.rasterize(front_camera(), vertices, faces).pixels) == 0
    assert len(rasterization.rasterize(front_camera(), vertices, faces.flip(-1)).pixels) == 0


def test_a_sphere_has_its_silhouette_and_depth():
    solid = trimesh.creation.icosphere(subdivisions=5, radius=0.6)
    vertices, faces = torch.from_numpy(solid.vertices).float(), torch.from_numpy(solid.faces).long()
    camera = front_camera(96)
    found = rasterization.rasterize(camera, vertices, faces)
    rays = cameras.rays_from_cameras(camera)
    along = -(rays.origins * rays.directions).sum(dim=-1)
    squared = 0.6**2 - 2.0**2 + along.square()
    hit = squared > 0
    covered = torch.zeros(96 * 96, dtype=torch.bool)
    covered[found.pixels] = True
    assert (covered ^ hit).float().mean() < 0.002  # pixels on the rim
    depth = (found.interpolate(vertices, faces) - camera.positions).norm(dim=-1)
    inside = squared[found.pixels] > 0.01
    torch.testing.assert_close(depth[inside], (along - squared.clamp(min=0).sqrt())[found.pixels][inside], atol=2e-3, rtol=0)


def test_one_camera_at_a_time():
    vertices, faces = quad([[0.0, -1.0, -1.0], [0.0, 1.0, -1.0], [0.0, 1.0, 1.0], [0.0, -1.0, 1.0]])
    with pytest.raises(ValueError, match="One camera at a time is rasterized, got 2"):
        rasterization.rasterize(cameras.turntable(2, 8), vertices, faces)
