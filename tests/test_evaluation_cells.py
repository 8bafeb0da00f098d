"""One measured run: files that come back as they were, surfaces found without a mesh, failures that are results."""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import SolidSphere
from tiny_models import tiny_pipeline
from torch import Generator

from dreamtime.assembly import Dream
from dreamtime.evaluation import cells
from dreamtime.evaluation.alignment import Solid, solid_of_distance
from dreamtime.evaluation.views import PREVIEW_RESOLUTION, PREVIEWS, RESOLUTION, VIEWS, Portrait
from dreamtime.generation import NonFiniteStep
from dreamtime.presets import Settings
from dreamtime.representations import feature_grid_neus
from dreamtime.toybox.world import Thing

GRID = cells.GLANCE_GRID


def ball(radius: float) -> Solid:
    return Solid(GRID, (GRID.points.norm(dim=-1) < radius).view(GRID.shape))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline("epsilon").save_pretrained(folder)
    return Settings(
        "a red sphere",
        prior=str(folder),
        steps=3,
        views=1,
        resolution=16,
        samples_per_ray=16,
        mesh_resolution=24,
        texture_size=64,
    )


def test_a_hollow_ball_is_filled_and_a_bowl_is_not():
    shell = Solid(GRID, ball(0.6).inside & ~ball(0.4).inside)
    assert torch.equal(cells.without_hollows(shell).inside, ball(0.6).inside)
    bowl = Solid(GRID, shell.inside & (GRID.points[:, 2] < 0).view(GRID.shape))
    assert torch.equal(cells.without_hollows(bowl).inside, bowl.inside)


def test_a_hollow_ring_is_filled_and_its_hole_is_not():
    """The hollow of a tyre goes all the way round: it has no end in either direction."""
    tyre, tube = (
        solid_of_distance(lambda p, t=thickness: torch.hypot(p[:, :2].norm(dim=-1) - 0.5, p[:, 2]) - t, GRID)
        for thickness in (0.3, 0.15)
    )
    filled = cells.without_hollows(Solid(GRID, tyre.inside & ~tube.inside))
    assert torch.equal(filled.inside, tyre.inside)


def test_a_scene_is_as_large_as_its_surface():
    """The ball's density crosses log(2) / 0.1 where sigmoid((r - |p|) / s) = that / level."""
    sphere = SolidSphere(radius=0.5, level=40.0, softness=0.02)
    level = math.log(2) / 0.1
    radius = 0.5 + 0.02 * math.log(40.0 / level - 1)
    found = cells.solid_of_scene(sphere)
    distance = (GRID.points.norm(dim=-1) - radius).view(GRID.shape)
    assert found.inside[distance < -1e-3].all()
    assert not found.inside[distance > 1e-3].any()


def test_a_scene_of_distances_is_as_large_as_they_say(generator: Callable[[int], Generator]):
    scene = feature_grid_neus(generator(0), radius=0.5)
    scene.distance_gain = 0.0
    distance = (GRID.points.norm(dim=-1) - 0.5).view(GRID.shape)
    found = cells.solid_of_scene(scene)
    assert found.inside[distance < -1e-3].all()
    assert not found.inside[distance > 1e-3].any()


def test_the_overlap_needs_no_mesh():
    truth = solid_of_distance(Thing("sphere", "red").distance, GRID)
    assert cells.quick_iou(SolidSphere(radius=0.5, level=40.0, softness=0.002), truth) > 0.97
    assert cells.quick_iou(SolidSphere(radius=0.4, level=40.0, softness=0.002), truth) == pytest.approx(0.8**3, abs=0.03)
    assert cells.quick_iou(SolidSphere(level=0.0), truth) == 0
    assert math.isnan(cells.quick_iou(SolidSphere(), None))


@pytest.mark.parametrize(("steps", "first", "count"), [(100, 5, 20), (1000, 50, 20), (7, 1, 7), (1, 1, 1)])
def test_glances_are_even_and_see_the_end(steps: int, first: int, count: int):
    looks = sorted(cells.glance_steps(steps))
    assert (looks[0], looks[-1], len(looks)) == (first, steps, count)


def test_the_clock_runs_while_a_step_is_made_and_not_between(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(cells.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(cells.time, "process_time", lambda: 2 * now[0])

    def steps() -> Iterator[SimpleNamespace]:
        for index in range(3):
            now[0] += 1.0
            yield SimpleNamespace(index=index)

    cost = cells.Cost()
    for step in cost.timed(steps()):
        assert step.index < 3
        now[0] += 100.0  # spent looking
    assert cost == cells.Cost(seconds=3.0, cpu_seconds=6.0)


def test_pictures_and_solids_come_back(tmp_path: Path, generator: Callable[[int], Generator]):
    draw = generator(0)
    color, bare = (torch.randint(256, (VIEWS, RESOLUTION, RESOLUTION, 3), generator=draw) / 255 for _ in range(2))
    solid = Solid(GRID, torch.rand(GRID.shape, generator=draw) < 0.5)
    cells.write_pictures(tmp_path, Portrait(color, bare), solid)
    again = cells.read_portrait(tmp_path)
    torch.testing.assert_close(again.color, color)
    torch.testing.assert_close(again.bare, bare)
    assert torch.equal(cells.read_solid(tmp_path).inside, solid.inside)


def test_curves_come_back(tmp_path: Path, generator: Callable[[int], Generator]):
    draw, shape = generator(1), (PREVIEWS, PREVIEW_RESOLUTION, PREVIEW_RESOLUTION, 3)
    seen = [cells.Glance(step, step / 10, torch.randint(256, shape, generator=draw) / 255) for step in (2, 4, 6)]
    cells.write_curve(tmp_path, seen)
    again = cells.read_curve(tmp_path)
    assert [(glance.step, glance.iou) for glance in again] == [(2, 0.2), (4, 0.4), (6, 0.6)]
    for one, other in zip(seen, again, strict=True):
        torch.testing.assert_close(one.views, other.views)
    cells.write_curve(tmp_path, [])
    assert cells.read_curve(tmp_path) == []


def test_a_run_is_measured_from_end_to_end(settings: Settings, tmp_path: Path):
    cells.measure(settings, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert {name: result[name] for name in cells.CELL} == {name: getattr(settings, name) for name in cells.CELL}
    assert result["failure"] is None
    assert result["measures"]["watertight"]
    # Three steps with random weights leave the ball of radius about 0.5 that every scene begins as.
    assert result["measures"]["iou_scaled"] > 0.5
    assert result["cost"]["seconds"] > 0
    assert [glance.step for glance in cells.read_curve(tmp_path)] == [1, 2, 3]
    portrait = cells.read_portrait(tmp_path)
    assert (portrait.color[:, 0, 0] - 0.5).abs().max() < 0.01
    assert portrait.bare[:, 64, 64].std(dim=-1).max() < 0.01
    assert portrait.bare[:, 64, 64].min() > 0.6


class Interrupted(BaseException):
    """As a worker's end is."""


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cells, "CHECKPOINT_SECONDS", -1.0)
    cells.measure(settings, tmp_path / "whole")
    made, keep = list[int](), cells.keep

    def cut_off(folder: Path, run: cells.Run) -> None:
        keep(folder, run)
        if run.step == 2:
            raise Interrupted

    monkeypatch.setattr(cells, "keep", cut_off)
    with pytest.raises(Interrupted):
        cells.measure(settings, tmp_path / "parts")
    assert (tmp_path / "parts" / cells.CHECKPOINT).is_file()
    monkeypatch.setattr(cells, "keep", keep)
    build = cells.text_to_3d.text_to_3d

    def watched(asked: Settings) -> Dream:
        dream = build(asked)
        return replace(dream, steps=lambda done: (made.append(step.index) or step for step in dream.steps(done)))

    monkeypatch.setattr(cells.text_to_3d, "text_to_3d", watched)
    cells.measure(settings, tmp_path / "parts")
    assert made == [3]
    assert_same_results(tmp_path / "whole", tmp_path / "parts")


def assert_same_results(whole: Path, parts: Path) -> None:
    """Of a run in one go and one that was interrupted, of which nothing else is left."""
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (whole, parts))
    assert one["measures"] == other["measures"]
    for name in ("color.png", "bare.png", "curve.csv", "curve.png", "solid.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    assert {path.name for path in whole.iterdir()} == {path.name for path in parts.iterdir()}
    assert not {cells.CHECKPOINT, cells.NOTE} & {path.name for path in parts.iterdir()}


def test_asked_to_end_a_run_is_kept_after_the_step_that_it_is_at(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before it was looked at for the first time, between two looks, and after its last step."""
    monkeypatch.setattr(cells, "GLANCES", 2)  # of five steps the second and the last
    settings = replace(settings, steps=5)
    cells.measure(settings, tmp_path / "whole")
    parts = tmp_path / "parts"
    for first, last, seen in ((0, 1, []), (1, 3, [2]), (3, 5, [2, 5])):
        answers = iter([False] * (last - first) + [True])  # to the question at the start, and after each step
        with pytest.raises(KeyboardInterrupt):
            cells.measure(settings, parts, answers.__next__)
        cells.note_what_is_kept(parts)
        assert cells.noted(parts) == last
        assert [glance.step for glance in cells.read_curve(parts)] == seen
    cells.measure(settings, parts)
    assert_same_results(tmp_path / "whole", parts)


def test_who_is_asked_to_end_begins_nothing(settings: Settings, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        cells.measure(settings, tmp_path / "cell", lambda: True)
    assert not (tmp_path / "cell").exists()


def test_a_run_notes_the_step_that_it_is_at(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cells, "NOTE_SECONDS", -1.0)
    told = list[int]()

    def asked() -> bool:
        told.append(cells.noted(tmp_path))
        return False

    cells.measure(settings, tmp_path, asked)
    assert told == [0, 1, 2, 3]  # before the start, and after each step


def test_the_note_of_a_run_that_was_killed_is_what_is_kept(tmp_path: Path):
    cells.note(tmp_path, 57)
    cells.note_what_is_kept(tmp_path)
    assert cells.noted(tmp_path) == 0
    (tmp_path / cells.CHECKPOINT).write_bytes(b"no checkpoint")
    cells.note_what_is_kept(tmp_path)
    assert cells.noted(tmp_path) == 0
    cells.note_what_is_kept(tmp_path / "not begun")


def test_a_damaged_checkpoint_is_begun_anew(settings: Settings, tmp_path: Path):
    (tmp_path / cells.CHECKPOINT).write_bytes(b"no checkpoint")
    cells.measure(settings, tmp_path)
    assert [glance.step for glance in cells.read_curve(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("curve", ["", "step,iou\n", "step,iou\n1,0.5\n", "step,iou\n2,0.5\n"])
def test_a_checkpoint_without_all_that_was_seen_is_begun_anew(settings: Settings, tmp_path: Path, curve: str):
    """Its clock and its steps would be counted from another place than its scene stands at."""
    run = cells.begun(settings, tmp_path)
    seen = cells.Glance(2, 0.5, torch.zeros(PREVIEWS, PREVIEW_RESOLUTION, PREVIEW_RESOLUTION, 3))
    cells.keep(tmp_path, replace(run, seen=[replace(seen, step=1), seen], step=2))
    assert [glance.step for glance in cells.begun(settings, tmp_path).seen] == [1, 2]
    (tmp_path / "curve.csv").write_text(curve)
    assert (cells.begun(settings, tmp_path).seen, cells.begun(settings, tmp_path).step) == ([], 0)
    assert not (tmp_path / cells.CHECKPOINT).exists()


def test_free_text_is_measured_without_a_truth(settings: Settings, tmp_path: Path):
    cells.measure(replace(settings, prompt="a corgi", steps=1), tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["measures"].keys() == {"watertight", "components"}
    assert math.isnan(cells.read_curve(tmp_path)[0].iou)


def test_a_run_that_diverges_is_a_result(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build = cells.text_to_3d.text_to_3d

    def diverging(settings: Settings) -> object:
        dream = build(settings)

        def steps(done: int) -> Iterator[object]:
            yield next(dream.steps(done))
            raise NonFiniteStep("gradient", 2, 500)

        return replace(dream, steps=steps)

    monkeypatch.setattr(cells.text_to_3d, "text_to_3d", diverging)
    cells.measure(settings, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["failure"] == "The gradient is no longer a finite number at step 2 (t = 500)."
    assert result["measures"] == {}
    assert [glance.step for glance in cells.read_curve(tmp_path)] == [1]
    assert not (tmp_path / "color.png").exists()


def test_the_peak_on_cuda_is_of_this_run_alone(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build, peak = cells.text_to_3d.text_to_3d, [9e9]  # of the run before
    monkeypatch.setattr(cells.text_to_3d, "text_to_3d", lambda asked: build(replace(asked, device="cpu")))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: peak.append(1e6))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak[-1])
    cells.measure(replace(settings, device="cuda", steps=1), tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["cost"]["peak_mb"] == 1


def test_the_peak_on_a_cpu_is_of_this_run_alone():
    """In one process, whose high-water mark would never fall; where a system has no way to say so, it is told."""
    known = os.access(cells.PROCESS / "clear_refs", os.W_OK)
    assert cells.forget_peak_memory("cpu") == known
    if known:
        much = np.ones(50_000_000)  # 400 MB
        with_much = cells.peak_memory("cpu")
        del much
        assert cells.forget_peak_memory("cpu")
        assert cells.peak_memory("cpu") < with_much - 300


def test_an_empty_scene_is_a_result(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build = cells.text_to_3d.text_to_3d

    def empty(settings: Settings) -> object:
        dream = build(settings)
        dream.scene.representation.blob = lambda points: torch.full((len(points),), -1e4)
        return dream

    monkeypatch.setattr(cells.text_to_3d, "text_to_3d", empty)
    cells.measure(settings, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["failure"].startswith("The scene is empty")
    assert [glance.iou for glance in cells.read_curve(tmp_path)] == [0, 0, 0]
