"""A textured mesh as files: GLB, OBJ with MTL and PNG, PLY and STL.

GLB and OBJ stand Y-up with the front towards +Z, as their viewers expect; PLY and STL keep the world's z up, as tools for scans
and 3D printing expect. One scene unit is one unit of the file.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trimesh
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from dreamtime import surfaces
from dreamtime.checkpoints import write_atomically
from dreamtime.meshes import TexturedMesh, texture_at


@dataclass(frozen=True)
class MeshFiles:
    """One mesh in every format."""

    glb: Path
    obj: Path  # with the .mtl and .png of the same name beside it
    zip: Path  # these three together
    ply: Path
    stl: Path


def y_up(vectors: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3"]:
    """From the world (z up, front +x) to glTF (Y up, front +Z): (x, y, z) becomes (y, z, x), a rotation."""
    return vectors[:, [1, 2, 0]]


def write_bytes(path: Path, content: bytes) -> None:
    """A file that appears whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def png(image: UInt8[Tensor, "H W 3"]) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image.numpy()).save(buffer, format="png")
    return buffer.getvalue()


def _solid(positions: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], **attributes: Any) -> trimesh.Trimesh:
    """The same triangles as trimesh sees them, in the same order."""
    return trimesh.Trimesh(positions.numpy(), faces.numpy(), process=False, **attributes)


def write_glb(path: Path, textured: TexturedMesh, extras: Mapping[str, object]) -> None:
    """One self-contained glTF 2.0 file without extensions; `extras` (anything JSON holds) lies in its asset's extras.

    glTF reads a base colour texture as sRGB-encoded, which is what the texture's bytes are; the material is rough and no metal.
    """
    material = trimesh.visual.material.PBRMaterial(
        name="albedo",
        baseColorTexture=Image.fromarray(textured.texture.numpy()),
        metallicFactor=0.0,
        roughnessFactor=1.0,
        doubleSided=False,
    )
    visual = trimesh.visual.TextureVisuals(uv=_v_up(textured.uv).numpy(), material=material)
    solid = _solid(y_up(textured.positions), textured.faces, vertex_normals=y_up(textured.normals).numpy(), visual=visual)

    def complete(tree: dict[str, Any]) -> None:
        tree["asset"] |= {"generator": "DreamTime", "extras": dict(extras)}
        tree["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]  # trilinear, clamped
        tree["textures"][0]["sampler"] = 0
        primitive = tree["meshes"][0]["primitives"][0]
        accessors = [(primitive["indices"], 34963), *((index, 34962) for index in primitive["attributes"].values())]
        for index, target in accessors:  # what a buffer is for: indices or attributes of vertices
            tree["bufferViews"][tree["accessors"][index]["bufferView"]]["target"] = target

    scene = trimesh.Scene({"object": solid})
    write_bytes(path, trimesh.exchange.gltf.export_glb(scene, include_normals=True, tree_postprocessor=complete))


def radius_of_glb(path: Path) -> float:
    """Radius of a ball about the middle of a GLB's model that holds all of it, in scene units."""
    return float(trimesh.load_scene(path).scale) / 2  # that of its box's diagonal


def _v_up(uv: Float[Tensor, "V 2"]) -> Float[Tensor, "V 2"]:
    """Texture coordinates counted from the last row, as OBJ and trimesh do."""
    return torch.stack([uv[:, 0], 1 - uv[:, 1]], dim=-1)


def obj_text(textured: TexturedMesh, name: str) -> str:
    """A Wavefront OBJ whose positions are welded, so that the solid is closed; seams live in the other two lists."""
    positions, corners = surfaces.welded(textured.positions, textured.faces)
    lines = [f"mtllib {name}.mtl", f"o {name}"]
    for word, rows in (("v", y_up(positions)), ("vt", _v_up(textured.uv)), ("vn", y_up(textured.normals))):
        lines += [f"{word} " + " ".join(f"{value:.6f}" for value in row) for row in rows.tolist()]
    lines.append("usemtl albedo")
    for face, other in zip((corners + 1).tolist(), (textured.faces + 1).tolist(), strict=True):
        lines.append("f " + " ".join(f"{v}/{n}/{n}" for v, n in zip(face, other, strict=True)))
    return "\n".join(lines) + "\n"


def mtl_text(name: str) -> str:
    """The OBJ's material: the texture, and no highlight."""
    return f"newmtl albedo\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {name}.png\n"


def write_obj(folder: Path, name: str, textured: TexturedMesh) -> tuple[Path, Path]:
    """`name`.obj with its .mtl and .png, and all three in `name`-obj.zip; returns the first and the last."""
    parts = {
        f"{name}.obj": obj_text(textured, name).encode(),
        f"{name}.mtl": mtl_text(name).encode(),
        f"{name}.png": png(textured.texture),
    }
    for file, content in parts.items():
        write_bytes(folder / file, content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in parts.items():
            archive.writestr(file, content)
    write_bytes(folder / f"{name}-obj.zip", buffer.getvalue())
    return folder / f"{name}.obj", folder / f"{name}-obj.zip"


def write_ply(path: Path, textured: TexturedMesh) -> None:
    """A binary PLY, welded, with a colour per vertex."""
    positions, faces = surfaces.welded(textured.positions, textured.faces)
    colors = torch.zeros(len(positions), 3)
    colors[faces] = texture_at(textured, textured.uv)[textured.faces]
    solid = _solid(positions, faces, vertex_colors=(colors * 255).round().byte().numpy())
    write_bytes(path, solid.export(file_type="ply"))


def write_stl(path: Path, textured: TexturedMesh) -> None:
    """A binary STL: the shape alone."""
    write_bytes(path, _solid(textured.positions, textured.faces).export(file_type="stl"))


def write_all(folder: Path, name: str, textured: TexturedMesh, extras: Mapping[str, object]) -> MeshFiles:
    """The mesh in every format, in one folder, as `name`.glb and so on; OBJ files name one another, so no blanks in it."""
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"A mesh's name may hold letters, digits, - and _ alone, got {name!r}.")
    write_glb(folder / f"{name}.glb", textured, extras)
    obj, archive = write_obj(folder, name, textured)
    write_ply(folder / f"{name}.ply", textured)
    write_stl(folder / f"{name}.stl", textured)
    return MeshFiles(folder / f"{name}.glb", obj, archive, folder / f"{name}.ply", folder / f"{name}.stl")
