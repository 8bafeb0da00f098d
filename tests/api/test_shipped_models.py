"""What the models that ship make of the README's prompts and of pictures, for a program that asks a real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from gradio_client import Client, handle_file
from serving import served

from dreamtime.evaluation.geometry import Score, score
from dreamtime.surfaces import area_vectors
from dreamtime.toybox.world import COLORS, Thing, ground_truth_mesh
from dreamtime.types import Mesh

OUTPUTS = ["run_id", "seed", "step", "status", "preview", "mesh", "turntable", "files", "statistics"]
PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
PICTURED = {
    "mushroom.png": Thing("mushroom", "red", "white"),
    "photo-of-a-teapot.jpg": Thing("teapot", "orange", "red"),
}
THINGS = {"a red cube": Thing("cube", "red"), "a blue torus": Thing("torus", "blue"), "a yellow cone": Thing("cone", "yellow")}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a server with no model but those that ship, which ends with these tests: it warms up beside whatever comes next."""
    downloads = str(tmp_path_factory.mktemp("downloads"))
    with served(tmp_path_factory.mktemp("shipped"), as_shipped=True) as app:
        client = Client(app.url, verbose=False, analytics_enabled=False, download_files=downloads)
        yield client
        client.close()


def mesh_of(path: str) -> Mesh:
    """A GLB's triangles, upright as scenes are, with the colours that its texture gives the vertices."""
    made = trimesh.load(path, force="mesh")
    assert made.visual.material.baseColorTexture is not None
    colors = made.visual.to_color().vertex_colors[:, :3] / 255
    vertices = torch.tensor(np.asarray(made.vertices), dtype=torch.float32)[:, [2, 0, 1]]  # glTF has y up
    return Mesh(vertices, torch.tensor(np.asarray(made.faces)), torch.tensor(colors, dtype=torch.float32))


def nearest_color(mesh: Mesh) -> str:
    """The name of the colour nearest to the median of each channel over the vertices."""
    median = mesh.colors.median(0).values
    return min(COLORS, key=lambda name: float((torch.tensor(COLORS[name]) - median).norm()))


@pytest.mark.parametrize("prompt", THINGS)
def test_the_readmes_prompts_come_out_as_such(client: Client, prompt: str) -> None:
    """The draft preset: the shape is nearer to the truth than to the others' truths, and the texture has the colour."""
    made: dict[str, Any] = dict(
        zip(OUTPUTS, client.predict(prompt, preset="draft", seed=0, api_name="/text_to_3d"), strict=True)
    )
    assert made["status"] == "finished"
    mesh = mesh_of(made["mesh"])
    assert nearest_color(mesh) == prompt.split()[1]
    assert made["statistics"]["watertight"]
    assert made["statistics"]["euler"] == (0 if "torus" in prompt else 2)
    scores: dict[str, Score] = {other: score(mesh, thing, resolution=40) for other, thing in THINGS.items()}
    assert max(scores, key=lambda other: scores[other].iou_scaled) == prompt
    assert scores[prompt].iou_scaled > 0.7


def mean_color(mesh: Mesh) -> torch.Tensor:
    """Over the surface."""
    areas = area_vectors(mesh.vertices, mesh.faces).norm(dim=-1, keepdim=True)
    return (mesh.colors[mesh.faces].mean(1) * areas).sum(0) / areas.sum()


@pytest.mark.parametrize("name", list(PICTURED))
def test_a_picture_comes_out_in_its_colours(client: Client, name: str) -> None:
    """All around, so a mushroom's stem is white behind, too."""
    picture = handle_file(PICTURES / name)
    said = client.predict(picture, preset="draft", steps=20, seed=0, api_name="/image_to_3d")
    made = dict(zip(OUTPUTS, said, strict=True))
    assert made["status"] == "finished"
    found, true = mean_color(mesh_of(made["mesh"])), mean_color(ground_truth_mesh(PICTURED[name]))
    assert (found - true).norm() < 0.2
