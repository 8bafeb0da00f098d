"""A scene with a known surface and known colours comes out as a mesh that has them."""

import math
import re
from collections.abc import Callable

import pytest
import torch
import trimesh
from fakes import SolidSphere
from torch import Tensor, nn

from dreamtime import meshes
from dreamtime.representations import feature_grid_neus
from dreamtime.types import Mesh

Field = Callable[[Tensor], Tensor]


class Solid(nn.Module):
    """Density `peak` wherever the signed distance is negative, falling off over a few times `softness`."""

    def __init__(self, distance: Field, albedo: Field, peak: float = 40.0, softness: float = 0.01) -> None:
        super().__init__()
        self.peak = nn.Parameter(torch.tensor(peak))
        self.distance, self.albedo, self.softness = distance, albedo, softness

    def density(self, points: Tensor) -> Tensor:
        return self.peak * torch.sigmoid(-self.distance(points) / self.softness)

    def density_and_albedo(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self.density(points), self.albedo(points)


def ball(*centre: float, radius: float) -> Field:
    return lambda p: (p - torch.tensor(centre)).norm(dim=-1) - radius


def any_of(*fields: Field) -> Field:
    return lambda p: torch.stack([field(p) for field in fields]).amin(dim=0)


def cube(p: Tensor) -> Tensor:
    return p.abs().amax(dim=-1) - 0.4


def torus(p: Tensor) -> Tensor:
    return torch.hypot(torch.hypot(p[:, 0], p[:, 1]) - 0.5, p[:, 2]) - 0.2


def by_direction(p: Tensor) -> Tensor:
    """A smooth colour that does not change along rays from the origin."""
    return 0.5 + 0.4 * torch.nn.functional.normalize(p, dim=-1)


def grey(p: Tensor) -> Tensor:
    return torch.full_like(p, 0.5)


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy())  # welds what lies in one place


def surface_of(scene: Solid, level: float) -> float:
    """The signed distance at which the density equals the level."""
    return -scene.softness * math.log(level / (scene.peak.item() - level))


def test_the_surface_lies_where_a_tenth_of_a_unit_halves_the_light():
    assert math.exp(-meshes.SURFACE_DENSITY * 0.1) == pytest.approx(0.5)
    scene = SolidSphere(radius=0.5, level=40.0, softness=0.01)
    extraction = meshes.extract(scene, 32, smoothing=0)
    expected = 0.5 - 0.01 * math.log(meshes.SURFACE_DENSITY / (40 - meshes.SURFACE_DENSITY))
    radii = extraction.mesh.vertices.norm(dim=-1)
    torch.testing.assert_close(radii, torch.full_like(radii, expected), atol=1e-3, rtol=0)
    assert extraction.notes == ()
    assert extraction.level == meshes.SURFACE_DENSITY


@pytest.mark.parametrize(("distance", "euler"), [(cube, 2), (torus, 0)])
def test_the_mesh_is_closed_within_its_budget_and_true_to_the_solid(distance: Field, euler: int):
    scene = Solid(distance, grey)
    mesh = meshes.extract(scene, 40, max_faces=1500).mesh
    solid = as_trimesh(mesh)
    assert len(mesh.faces) <= 1500
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.euler_number == euler
    offset = surface_of(scene, meshes.SURFACE_DENSITY)
    volume = {2: (0.8 + 2 * offset) ** 3, 0: 2 * math.pi**2 * 0.5 * (0.2 + offset) ** 2}[euler]
    assert solid.volume == pytest.approx(volume, rel=0.02)
    torch.testing.assert_close(distance(mesh.vertices), torch.full((len(mesh.vertices),), offset), atol=0.02, rtol=0)


def test_the_surface_of_signed_distances_lies_where_they_are_zero(generator):
    scene = feature_grid_neus(generator(0), radius=0.45)
    scene.distance_gain = 0.0
    extraction = meshes.extract(scene, 32, smoothing=0)
    radii = extraction.mesh.vertices.norm(dim=-1)
    torch.testing.assert_close(radii, torch.full_like(radii, 0.45), atol=1e-3, rtol=0)
    assert extraction.level == scene.surface_density
    assert extraction.notes == ()


def test_a_thin_plate_of_signed_distances_is_as_thin_in_the_mesh(generator):
    scene = feature_grid_neus(generator(0))
    scene.distance_gain = 0.0
    scene.distance = lambda points: (points.abs() - torch.tensor([0.5, 0.5, 0.015])).amax(dim=-1)
    scene.density = lambda points: scene.sharpness * torch.sigmoid(-scene.sharpness * scene.distance(points))
    mesh = meshes.extract(scene, 128, smoothing=0).mesh
    assert mesh.vertices[:, 2].abs().max().item() == pytest.approx(0.015, abs=0.002)


def test_what_reaches_out_of_the_cube_is_cut_flush():
    solid = as_trimesh(meshes.extract(Solid(lambda p: p[:, 2] + 0.5, grey), 24, smoothing=0).mesh)
    assert solid.is_watertight
    assert solid.bounds[0].tolist() == pytest.approx([-1, -1, -1], abs=0.02)
    assert solid.bounds[1].tolist() == pytest.approx([1, 1, -0.5], abs=0.05)


def test_a_faint_scene_is_drawn_at_half_its_density_and_says_so():
    scene = Solid(ball(0, 0, 0, radius=0.5), grey, peak=3.0)
    extraction = meshes.extract(scene, 32)
    assert extraction.level == pytest.approx(1.5, rel=0.01)
    assert re.search(r"between .* and 3: the surface was taken at 1\.5 instead of 6\.93", extraction.notes[0])
    assert as_trimesh(extraction.mesh).volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.02)


def test_fog_everywhere_is_drawn_where_it_thickens():
    fog = Solid(ball(0, 0, 0, radius=0.5), grey, peak=10.0)
    fog.density = lambda p: 20 + Solid.density(fog, p)  # type: ignore[method-assign]
    extraction = meshes.extract(fog, 32)
    assert extraction.level == pytest.approx(25, rel=0.01)
    assert len(extraction.notes) == 1
    assert as_trimesh(extraction.mesh).volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.02)


@pytest.mark.parametrize(
    ("value", "sentence"), [(0.0, "empty"), (7.0, "7 everywhere"), (math.nan, "diverged"), (math.inf, "diverged")]
)
def test_a_scene_without_a_surface_says_so(value: float, sentence: str):
    scene = Solid(cube, grey)
    scene.density = lambda p: torch.full((len(p),), value)  # type: ignore[method-assign]
    with pytest.raises(meshes.EmptyScene, match=sentence):
        meshes.extract(scene, 16)


def test_floaters_are_left_out_and_large_parts_stay():
    big, second, speck, other = (
        ball(-0.4, 0, 0, radius=0.4),
        ball(0.6, 0, 0, radius=0.3),
        ball(0, 0.8, 0.8, radius=0.06),
        ball(0, -0.8, 0.8, radius=0.06),
    )
    extraction = meshes.extract(Solid(any_of(big, second, speck, other), grey), 48)
    solid = as_trimesh(extraction.mesh)
    assert solid.body_count == 2
    assert extraction.notes == ("Left out 2 loose part(s) smaller than 5% of the largest.",)
    assert solid.bounds[1, 2] < 0.5
    assert solid.is_watertight


def test_hollows_are_filled():
    shell = Solid(lambda p: (p.norm(dim=-1) - 0.5).abs() - 0.1, grey)
    extraction = meshes.extract(shell, 40)
    assert as_trimesh(extraction.mesh).body_count == 1
    radius = 0.6 + surface_of(shell, meshes.SURFACE_DENSITY)
    assert as_trimesh(extraction.mesh).volume == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.02)
    assert extraction.notes == ("Filled 1 hollow(s) inside the object.",)


def test_a_sponge_stays_closed_when_decimated(generator):
    """Dozens of handles, which edge collapses pinch shut: the hard case for keeping a mesh closed."""
    noise = torch.nn.functional.interpolate(torch.randn(1, 1, 14, 14, 14, generator=generator(0)), size=40, mode="trilinear")

    def distance(p: Tensor) -> Tensor:
        wobble = torch.nn.functional.grid_sample(noise, p.flip(-1)[None, None, None], align_corners=False)[0, 0, 0, 0]
        return p.norm(dim=-1) - 0.6 + 0.4 * wobble

    mesh = meshes.extract(Solid(distance, grey), 40, max_faces=3000).mesh
    assert len(mesh.faces) < 3300
    solid = as_trimesh(mesh)
    assert solid.euler_number < -10
    assert solid.is_watertight
    assert solid.is_winding_consistent


@pytest.fixture(scope="module")
def textured() -> meshes.TexturedMesh:
    scene = Solid(ball(0, 0, 0, radius=0.5), by_direction)
    return meshes.texture(scene, meshes.extract(scene, 32, max_faces=1200).mesh, size=256)


def test_normals_are_unit_and_point_outwards(textured: meshes.TexturedMesh):
    torch.testing.assert_close(textured.normals.norm(dim=-1), torch.ones(len(textured.normals)))
    outwards = torch.nn.functional.normalize(textured.positions, dim=-1)
    assert (textured.normals * outwards).sum(dim=-1).min() > 0.99


def test_the_texture_holds_the_albedo_of_every_surface_point(textured: meshes.TexturedMesh, generator):
    """At random points of random faces, mostly near their edges, where seams would show."""
    weights = torch.rand(4000, 3, generator=generator(0)) ** 4 + 1e-6
    weights = weights / weights.sum(dim=-1, keepdim=True)
    corners = textured.faces[torch.randint(len(textured.faces), (4000,), generator=generator(1))]
    points = (weights[..., None] * textured.positions[corners]).sum(dim=1)
    uv = (weights[..., None] * textured.uv[corners]).sum(dim=1)
    error = (meshes.texture_at(textured, uv) - by_direction(points)).abs().amax(dim=-1) * 255
    assert error.quantile(0.99) < 2
    assert error.max() < 4


def test_texture_coordinates_fit_and_islands_do_not_overlap(textured: meshes.TexturedMesh):
    assert textured.uv.min() >= 0
    assert textured.uv.max() <= 1
    (ux, uy), (vx, vy) = ((textured.uv[textured.faces][:, k] - textured.uv[textured.faces][:, 0]).unbind(-1) for k in (1, 2))
    area = (ux * vy - uy * vx).abs().sum() / 2
    covered = meshes.fragments(textured.uv[textured.faces] * 512, 512, 512).pixels.unique()
    assert area.item() == pytest.approx(len(covered) / 512**2, rel=0.02)
    assert area > 0.4  # most of the texture is used


def test_what_shows_is_what_lies_behind_the_surface_not_on_it():
    """Light passes the rim of a soft solid: a texture of the albedo there would be red, but the pictures are green."""
    radius = 0.5

    def albedo(p: Tensor) -> Tensor:
        outer = p.norm(dim=-1, keepdim=True) > radius - 0.01
        return torch.where(outer, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))

    scene = Solid(ball(0, 0, 0, radius=radius), albedo, peak=30.0, softness=0.005)
    direction = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, -1.0]]), dim=-1)
    color = meshes.visible_albedo(scene, radius * direction, direction, samples=200)[0]
    # Closed form: density 30 behind the rim of 0.01, and a sigmoid's integral, 0.005 ln 2, before it; down to 0.14.
    red = 1 - math.exp(-30 * (0.01 + 0.005 * math.log(1 + math.exp(-2))))
    shown = 1 - math.exp(-30 * 0.14)
    assert color.tolist() == pytest.approx([red / shown, 1 - red / shown, 0], abs=0.02)


def test_empty_space_shows_the_plain_mean():
    scene = Solid(ball(0, 0, 0, radius=0.1), grey)
    assert meshes.visible_albedo(scene, torch.tensor([[0.9, 0, 0]]), torch.tensor([[1.0, 0, 0]])).tolist() == [[0.5] * 3]


def test_same_scene_same_mesh(textured: meshes.TexturedMesh):
    scene = Solid(ball(0, 0, 0, radius=0.5), by_direction)
    again = meshes.texture(scene, meshes.extract(scene, 32, max_faces=1200).mesh, size=256)
    for mine, theirs in zip(vars(textured).values(), vars(again).values(), strict=True):
        assert torch.equal(mine, theirs)


def test_statistics_are_those_of_the_welded_solid():
    scene = Solid(cube, grey)
    textured = meshes.texture(scene, meshes.extract(scene, 32, max_faces=1000).mesh, size=64)
    found = meshes.statistics(textured)
    edge = 0.8 + 2 * surface_of(scene, meshes.SURFACE_DENSITY)
    assert (found.components, found.watertight, found.euler) == (1, True, 2)
    assert found.faces == len(textured.faces)
    assert found.vertices == found.faces // 2 + 2  # Euler's formula
    assert found.vertices < len(textured.positions)
    assert found.area == pytest.approx(6 * edge**2, rel=0.03)
    assert found.volume == pytest.approx(edge**3, rel=0.02)
    assert [*found.bounds[0], *found.bounds[1]] == pytest.approx([-edge / 2] * 3 + [edge / 2] * 3, abs=0.01)
