"""Quantities against closed forms; operations that keep a mesh closed."""

import math

import pytest
import torch
import trimesh
from torch import Tensor

from dreamtime import surfaces


def as_tensors(solid: trimesh.Trimesh) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(solid.vertices.copy()).float(), torch.from_numpy(solid.faces.copy()).long()


def edge_counts(faces: Tensor) -> list[int]:
    """How often each undirected edge occurs, by brute force."""
    counts: dict[frozenset[int], int] = {}
    for a, b, c in faces.tolist():
        for edge in ((a, b), (b, c), (c, a)):
            counts[frozenset(edge)] = counts.get(frozenset(edge), 0) + 1
    return sorted(set(counts.values()))


def test_a_box_has_its_area_volume_and_normals():
    vertices, faces = as_tensors(trimesh.creation.box((1, 2, 3)))
    areas = surfaces.area_vectors(vertices, faces)
    assert areas.norm(dim=-1).sum().item() == pytest.approx(22)
    assert areas.sum(dim=0).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert surfaces.volumes(vertices + torch.tensor([5.0, -3, 1]), faces).sum().item() == pytest.approx(6, abs=1e-4)
    assert surfaces.corner_angles(vertices, faces).sum(dim=-1).tolist() == pytest.approx([math.pi] * 12, abs=1e-5)


def test_vertex_normals_do_not_depend_on_the_triangulation():
    """Three sides of a cube meet evenly at every corner, along whichever diagonals they are cut."""
    vertices, faces = as_tensors(trimesh.creation.box((2, 2, 2)))
    torch.testing.assert_close(surfaces.vertex_normals(vertices, faces), vertices / math.sqrt(3))


def test_corner_normals_keep_creases_and_smooth_the_rest():
    vertices, faces = as_tensors(trimesh.creation.box((2, 2, 2)))
    flat = torch.nn.functional.normalize(surfaces.area_vectors(vertices, faces), dim=-1)
    sharp = surfaces.corner_normals(vertices, faces, crease=math.radians(40))
    torch.testing.assert_close(sharp, flat[:, None].expand(-1, 3, -1))
    round_ = surfaces.corner_normals(vertices, faces, crease=math.radians(100))
    torch.testing.assert_close(round_, vertices[faces] / math.sqrt(3))


def test_a_face_without_area_takes_the_normals_around_it():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 3], [0, 2, 1]])
    assert surfaces.corner_normals(vertices, faces, 0.7)[1, 0].tolist() == [0, 0, 1]


def test_welding_joins_what_is_in_one_place():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [-1, 0, 0]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    positions, corners = surfaces.welded(vertices, faces)
    assert len(positions) == 4
    assert torch.equal(positions[corners], vertices[faces])
    assert len(corners.unique()) == 4


def test_smoothing_takes_the_roughness_and_leaves_the_size(generator):
    solid = trimesh.creation.icosphere(subdivisions=3)
    vertices, faces = as_tensors(solid)
    rough = vertices * (1 + 0.02 * torch.randn(len(vertices), 1, generator=generator(0)))
    smooth = surfaces.taubin_smooth(rough, faces, 10)
    assert smooth.norm(dim=-1).std() < 0.5 * rough.norm(dim=-1).std()
    volume, before = (surfaces.volumes(points, faces).sum().item() for points in (smooth, vertices))
    assert volume == pytest.approx(before, rel=0.02)
    assert torch.equal(surfaces.taubin_smooth(rough, faces, 0), rough)


def test_flaps_are_taken_off_and_nothing_else():
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [1, 2, 3], [4, 5, 6], [5, 4, 6], [6, 4, 5]])
    kept = surfaces.without_flaps(faces)
    assert sorted(tuple(sorted(face)) for face in kept.tolist()) == [(0, 1, 2), (4, 5, 6)]
    assert kept[kept.sum(dim=-1) == 15].tolist() in ([[4, 5, 6]], [[6, 4, 5]])


def two_tetrahedra_on_one_edge() -> tuple[Tensor, Tensor]:
    """Two solids that touch along the edge from (0, 0, 0) to (0, 0, 1), where four faces meet."""
    vertices = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, -0.5, 0.5], [1, 0.5, 0.5], [-1, 0.5, 0.5], [-1, -0.5, 0.5]])
    solids = [(0, 1, 2, 3), (0, 1, 4, 5)]
    faces = [face for a, b, c, d in solids for face in ((a, c, b), (a, b, d), (a, d, c), (b, c, d))]
    return vertices, torch.tensor(faces)


@pytest.mark.parametrize("inverted", [False, True])
def test_a_pinched_edge_is_opened(inverted: bool):
    """Of the two pairings of the four faces the one is taken that separates the solids (or, inverted, the hollows)."""
    vertices, faces = two_tetrahedra_on_one_edge()
    faces = faces.flip(-1) if inverted else faces
    volume = surfaces.volumes(vertices, faces).sum().item()
    assert abs(volume) == pytest.approx(1 / 3)
    assert edge_counts(faces) == [2, 4]
    points, opened = surfaces.unpinched(vertices, faces)
    assert edge_counts(opened) == [2]
    solid = trimesh.Trimesh(points.numpy(), opened.numpy())  # welds what lies in one place
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.volume == pytest.approx(volume, rel=0.05)
    # The midpoints left the edge into the matter between the faces they belong to.
    x = points[len(vertices) :, 0] if not inverted else points[len(vertices) :, 1]
    assert sorted(x.sign().tolist()) == [-1, 1]


def test_a_closed_mesh_is_left_as_it_is():
    vertices, faces = as_tensors(trimesh.creation.icosphere(subdivisions=1))
    points, same = surfaces.unpinched(vertices, faces)
    assert torch.equal(points, vertices)
    assert sorted(same.tolist()) == sorted(faces.tolist())
