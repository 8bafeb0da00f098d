"""Every file is read back by someone else's code and says the same."""

import io
import json
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor, nn

from dreamtime import exports, meshes

EXTRAS = {"prompt": "a rocket, “quoted”", "seed": 7, "settings": {"steps": 100, "guidance_scale": 10.5, "tags": ["a", None]}}


class Post(nn.Module):
    """Tall along z, with a nose towards +x: red above, green below, the nose blue."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = nn.Parameter(torch.tensor(60.0))

    def density(self, points: Tensor) -> Tensor:
        body = ((points.abs() - torch.tensor([0.2, 0.3, 0.7])).amax(dim=-1)).clamp(min=-1)
        nose = (points - torch.tensor([0.3, 0.0, 0.4])).norm(dim=-1) - 0.15
        return self.peak * torch.sigmoid(-torch.minimum(body, nose) / 0.005)

    def density_and_albedo(self, points: Tensor) -> tuple[Tensor, Tensor]:
        red, green, blue = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.9]])
        colors = torch.where(points[:, 2:] > 0, red, green)
        return self.density(points), torch.where(points[:, :1] > 0.25, blue, colors)


@pytest.fixture(scope="module")
def textured() -> meshes.TexturedMesh:
    return meshes.texture(Post(), meshes.extract(Post(), 40, max_faces=1200).mesh, size=128)


@pytest.fixture(scope="module")
def files(textured: meshes.TexturedMesh, tmp_path_factory: pytest.TempPathFactory) -> exports.MeshFiles:
    return exports.write_all(tmp_path_factory.mktemp("mesh"), "a-post", textured, EXTRAS)


def only_mesh(path: Path) -> trimesh.Trimesh:
    loaded = trimesh.load(path, process=False)
    if isinstance(loaded, trimesh.Scene):
        (loaded,) = loaded.geometry.values()
    assert isinstance(loaded, trimesh.Trimesh)
    return loaded


def glb_tree(path: Path) -> dict:
    """The JSON chunk, read by the format's own definition."""
    content = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON")
    return json.loads(content[20 : 20 + size])


def test_y_up_is_a_rotation():
    rotation = exports.y_up(torch.eye(3)).T
    assert torch.linalg.det(rotation).item() == pytest.approx(1)
    assert exports.y_up(torch.tensor([[1.0, 0, 0], [0, 0, 1]])).tolist() == [[0, 0, 1], [0, 1, 0]]  # front to +Z, up to +Y


def test_the_glb_holds_the_same_mesh(textured: meshes.TexturedMesh, files: exports.MeshFiles):
    loaded = only_mesh(files.glb)
    x, y, z = textured.positions.T
    np.testing.assert_array_equal(loaded.vertices, torch.stack([y, z, x], dim=-1).numpy())
    np.testing.assert_array_equal(loaded.faces, textured.faces.numpy())
    x, y, z = textured.normals.T
    np.testing.assert_allclose(loaded.vertex_normals, torch.stack([y, z, x], dim=-1).numpy(), atol=1e-6)
    u, v = textured.uv.T
    np.testing.assert_allclose(loaded.visual.uv, torch.stack([u, 1 - v], dim=-1).numpy(), atol=1e-6)
    material = loaded.visual.material
    np.testing.assert_array_equal(np.asarray(material.baseColorTexture), textured.texture.numpy())
    assert (material.metallicFactor, material.roughnessFactor, material.doubleSided) == (0, 1, False)


def test_the_glb_stands_upright_and_faces_the_viewer(files: exports.MeshFiles):
    loaded = only_mesh(files.glb)
    width, height, _ = loaded.extents
    assert height > 1.3 > 2 * width > width
    assert loaded.bounds[1, 2] > 0.43 > 0.25 > -loaded.bounds[0, 2]  # the nose
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    assert loaded.is_watertight
    assert loaded.volume > 0


def test_the_radius_of_a_glb_is_that_of_a_ball_that_holds_it(textured: meshes.TexturedMesh, files: exports.MeshFiles):
    radius = exports.radius_of_glb(files.glb)
    low, high = textured.positions.amin(0), textured.positions.amax(0)
    assert radius == pytest.approx((high - low).norm().item() / 2, rel=1e-4)
    assert (textured.positions - (low + high) / 2).norm(dim=1).max() <= radius


def test_the_glb_shows_each_part_in_its_colour(files: exports.MeshFiles):
    loaded = only_mesh(files.glb)
    colors = loaded.visual.to_color().vertex_colors[:, :3].astype(int)
    for part, color in [
        (loaded.vertices[:, 2] > 0.35, (26, 51, 230)),
        ((loaded.vertices[:, 1] > 0.2) & (loaded.vertices[:, 2] < 0), (204, 26, 26)),
        (loaded.vertices[:, 1] < -0.2, (26, 178, 51)),
    ]:
        assert part.sum() > 20
        assert (np.abs(np.median(colors[part], axis=0) - color) <= 2).all()


def test_the_glb_tells_what_it_was_made_from(files: exports.MeshFiles):
    tree = glb_tree(files.glb)
    assert tree["asset"] == {"version": "2.0", "generator": "DreamTime", "extras": EXTRAS}


def test_the_glb_needs_no_decoder_and_is_clean(files: exports.MeshFiles):
    """What the Khronos validator would remark on: targets of buffer views, extents of positions, unknown extensions."""
    tree = glb_tree(files.glb)
    assert "extensionsUsed" not in tree
    assert [image["mimeType"] for image in tree["images"]] == ["image/png"]
    (primitive,) = tree["meshes"][0]["primitives"]
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0"}
    targets = {
        name: tree["bufferViews"][tree["accessors"][index]["bufferView"]]["target"]
        for name, index in {**primitive["attributes"], "indices": primitive["indices"]}.items()
    }
    assert targets == {"POSITION": 34962, "NORMAL": 34962, "TEXCOORD_0": 34962, "indices": 34963}
    assert {"min", "max"} <= tree["accessors"][primitive["attributes"]["POSITION"]].keys()


@pytest.mark.gltf_validator
def test_the_khronos_validator_has_nothing_to_remark(files: exports.MeshFiles):
    validate = """
        const { validateBytes } = require('gltf-validator');
        validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[1])), { writeTimestamp: false })
            .then((report) => console.log(JSON.stringify(report.issues)));
    """
    told = subprocess.run(["node", "-e", validate, str(files.glb)], capture_output=True, text=True, check=True).stdout
    issues = json.loads(told)
    assert issues["messages"] == []
    assert {issues[f"num{severity}"] for severity in ("Errors", "Warnings", "Infos", "Hints")} == {0}


def test_the_obj_is_read_back_with_its_texture(textured: meshes.TexturedMesh, files: exports.MeshFiles):
    loaded = only_mesh(files.obj)
    assert len(loaded.faces) == len(textured.faces)
    corners = exports.y_up(textured.positions)[textured.faces].numpy()
    np.testing.assert_allclose(loaded.vertices[loaded.faces], corners, atol=1e-5)
    uv = textured.uv[textured.faces].numpy()
    np.testing.assert_allclose(loaded.visual.uv[loaded.faces] * [1, -1] + [0, 1], uv, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(loaded.visual.material.image), textured.texture.numpy())
    lines = files.obj.read_text().splitlines()
    positions = {line for line in lines if line.startswith("v ")}
    assert len(positions) == meshes.statistics(textured).vertices == sum(line.startswith("v ") for line in lines)


def test_the_zip_holds_the_three_files_side_by_side(files: exports.MeshFiles):
    with zipfile.ZipFile(files.zip) as archive:
        assert sorted(archive.namelist()) == ["a-post.mtl", "a-post.obj", "a-post.png"]
        for name in archive.namelist():
            assert archive.read(name) == (files.obj.parent / name).read_bytes()
        assert Image.open(io.BytesIO(archive.read("a-post.png"))).size == (128, 128)
    assert "mtllib a-post.mtl" in files.obj.read_text()
    assert "map_Kd a-post.png" in files.obj.with_suffix(".mtl").read_text()


def test_ply_and_stl_keep_the_world(textured: meshes.TexturedMesh, files: exports.MeshFiles):
    for path in (files.ply, files.stl):
        loaded = only_mesh(path)
        np.testing.assert_allclose(loaded.vertices[loaded.faces], textured.positions[textured.faces].numpy(), atol=1e-6)
        loaded.merge_vertices()
        assert loaded.is_watertight
        assert loaded.volume == pytest.approx(meshes.statistics(textured).volume, rel=1e-4)


def test_the_ply_carries_colours(files: exports.MeshFiles):
    loaded = only_mesh(files.ply)
    low = loaded.vertices[:, 2] < -0.2
    assert (np.abs(np.median(loaded.visual.vertex_colors[low, :3].astype(int), axis=0) - (26, 178, 51)) <= 2).all()


def test_nothing_half_written_is_left(files: exports.MeshFiles):
    assert sorted(path.name for path in files.glb.parent.iterdir()) == [
        "a-post-obj.zip", "a-post.glb", "a-post.mtl", "a-post.obj", "a-post.ply", "a-post.png", "a-post.stl",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", "a post", "../post", "a/b"])
def test_a_name_that_would_break_is_refused(textured: meshes.TexturedMesh, tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="may hold letters, digits"):
        exports.write_all(tmp_path, name, textured, {})
