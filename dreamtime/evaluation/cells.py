"""One run, measured: what its folder holds once it is done.

    result.json  color.png  bare.png  curve.csv  curve.png  solid.safetensors

The pictures are what scorers judge later, so that another scorer needs no other run; `result.json` is written last and makes
the cell complete. Until then there may be a checkpoint, from which an interrupted run goes on, and a note of the step it is at.
A run that diverges or leaves nothing to extract is a result too: it failed, and says so.
"""

import csv
import io
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor

from dreamtime import meshes, text_to_3d
from dreamtime.assembly import Dream
from dreamtime.checkpoints import CorruptCheckpoint, checkpoint_text, load_checkpoint, save_checkpoint, write_atomically
from dreamtime.evaluation.alignment import Solid, cylinder_grid, overlaps, solid_of_distance, solid_of_mesh
from dreamtime.evaluation.geometry import score, soundness
from dreamtime.evaluation.prompt_sets import truth_of
from dreamtime.evaluation.views import PREVIEW_RESOLUTION, PREVIEWS, RESOLUTION, Portrait, portrait_of_mesh, previews
from dreamtime.generation import NonFiniteStep
from dreamtime.presets import Settings
from dreamtime.renderers import device_of
from dreamtime.toybox.world import Object
from dreamtime.turntable import as_bytes
from dreamtime.types import Mesh, Representation, Step

CELL = ("prompt", "schedule", "steps", "seed")
"""The settings in which the cells of one evaluation differ."""

PROCESS = Path("/proc/self")  # where Linux tells of this process
CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 10.0  # between two of a run
NOTE = "step.txt"
NOTE_SECONDS = 1.0  # between two
GLANCES = 20  # times that a run is looked at on its way
GLANCE_GRID = cylinder_grid(40)


class EvaluationError(ValueError):
    """What went wrong with an evaluation, in one sentence for the person who started it."""


@dataclass(frozen=True)
class Glance:
    """What a run had come to at one step."""

    step: int
    iou: float  # with the truth after the best turn; NaN where there is no truth
    views: Float[Tensor, "B H W 3"]


def without_hollows(solid: Solid) -> Solid:
    """The solid with all space filled that is shut off from outside, as the extraction of a mesh fills it.

    Space that ends at the axis, or goes on for more than a turn either way, is walled off there.
    """
    count = len(solid.grid.angles)
    around = np.pad(solid.inside.repeat(1, 3, 1).numpy(), ((1, 0), (1, 1), (0, 0)), constant_values=True)
    filled = ndimage.binary_fill_holes(around)[1:, 1 + count : 1 + 2 * count]
    return Solid(solid.grid, torch.from_numpy(filled.copy()))


@torch.no_grad()
def solid_of_scene(representation: Representation) -> Solid:
    """The inside of a scene's surface, where its mesh would be extracted; raises `EmptyScene`."""
    points = GLANCE_GRID.points.float().to(device_of(representation))
    density = meshes.in_chunks(representation.density, points).cpu()
    level, _ = meshes.surface_level(representation, density)
    return without_hollows(Solid(GLANCE_GRID, (density > level).view(GLANCE_GRID.shape)))


def quick_iou(representation: Representation, truth: Solid | None) -> float:
    """The overlap with the truth after the best turn, without a mesh: 0 for an empty scene, NaN without a truth."""
    if truth is None:
        return math.nan
    try:
        return overlaps(solid_of_scene(representation), truth).max().item()
    except meshes.EmptyScene:
        return 0.0


def glance_steps(steps: int) -> set[int]:
    """Evenly spread steps, the last among them."""
    return {round(steps * k / GLANCES) for k in range(1, GLANCES + 1)} - {0}


def forget_peak_memory(device: str) -> bool:
    """Begin to count anew, so that the runs before in this process do not count; whether that is to be had here."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        (PROCESS / "clear_refs").write_text("5")  # Linux' way of saying so
    except OSError:
        return False
    return True


def peak_memory(device: str) -> float:
    """MB since then: on CUDA of tensors, elsewhere of all that this process holds."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", (PROCESS / "status").read_text())
    return int(line) / 1e3


@dataclass
class Cost:
    """Seconds of optimising alone: what is measured in between does not count."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def timed(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The same steps; the clocks run while one is being made."""
        while True:
            wall, cpu = time.perf_counter(), time.process_time()
            step = next(steps, None)
            self.seconds += time.perf_counter() - wall
            self.cpu_seconds += time.process_time() - cpu
            if step is None:
                return
            yield step


@dataclass
class Run:
    """A run on its way: its parts, its clocks, what was seen of it, and its last step that is done."""

    dream: Dream
    cost: Cost
    seen: list[Glance]
    step: int


def never() -> bool:
    """Nobody asks the run to end."""
    return False


def optimise(settings: Settings, what: Object | None, run: Run, folder: Path, asked_to_end: Callable[[], bool]) -> None:
    """Go on to the last step, and on the way look at the scene, note the step and keep the run.

    Asked to end, it is kept after the step that it is at, and `KeyboardInterrupt` raised. Raises `NonFiniteStep`.
    """
    truth = solid_of_distance(what.distance, GLANCE_GRID) if what else None
    looks = glance_steps(settings.steps)
    note(folder, run.step)
    last_note = last_kept = time.monotonic()
    for step in run.cost.timed(run.dream.steps(run.step)):
        run.step = step.index
        if step.index in looks:
            iou = quick_iou(run.dream.scene.representation, truth)
            run.seen.append(Glance(step.index, iou, previews(run.dream.scene.preview)))
        if (now := time.monotonic()) - last_note > NOTE_SECONDS:
            note(folder, run.step)
            last_note = now
        if (ends := asked_to_end()) or now - last_kept > CHECKPOINT_SECONDS:
            keep(folder, run)
            last_kept = now
        if ends:
            raise KeyboardInterrupt


def keep(folder: Path, run: Run) -> None:
    """Write down a run between two steps, so that it can go on from there."""
    write_curve(folder, run.seen)
    words = {"step": str(run.step), "seconds": repr(run.cost.seconds), "cpu_seconds": repr(run.cost.cpu_seconds)}
    save_checkpoint(
        folder / CHECKPOINT, run.dream.scene.modules, {"optimizer": run.dream.optimizer}, run.dream.generator, words
    )


def begun(settings: Settings, folder: Path) -> Run:
    """A run where `keep` left it; a new one where nothing that can be read is left."""
    dream = text_to_3d.text_to_3d(settings)
    if not (folder / CHECKPOINT).is_file():
        return Run(dream, Cost(), [], 0)
    try:
        text = load_checkpoint(folder / CHECKPOINT, dream.scene.modules, {"optimizer": dream.optimizer}, dream.generator)
        step = int(text["step"])
        seen = [glance for glance in read_curve(folder) if glance.step <= step]
        if {glance.step for glance in seen} != {look for look in glance_steps(settings.steps) if look <= step}:
            raise damaged(folder)
        return Run(dream, Cost(float(text["seconds"]), float(text["cpu_seconds"])), seen, step)
    except (CorruptCheckpoint, EvaluationError):
        (folder / CHECKPOINT).unlink()
        return begun(settings, folder)


def note(folder: Path, step: int) -> None:
    """Say at which step a run is, for whoever waits for it."""
    write_atomically(folder / NOTE, lambda path: path.write_text(str(step)))


def noted(folder: Path) -> int:
    """The step that a run is at, by its note; 0 without one."""
    try:
        return int((folder / NOTE).read_text())
    except (OSError, ValueError):
        return 0


def note_what_is_kept(folder: Path) -> None:
    """Put a note right that an interrupted run has left: it goes on from its checkpoint, or from the beginning."""
    (folder / NOTE).unlink(missing_ok=True)
    try:
        note(folder, int(checkpoint_text(folder / CHECKPOINT)["step"]))
    except (ValueError, KeyError):
        return  # there is none that can be read


def measured(mesh: Mesh, what: Object | None) -> dict[str, Any]:
    """All that can be measured of a mesh without a scorer, as plain numbers."""
    return {**asdict(soundness(mesh)), **(asdict(score(mesh, what)) if what else {})}


def measure(settings: Settings, folder: Path, asked_to_end: Callable[[], bool] = never) -> None:
    """Run, look, extract, measure, and write it all down; raises `KeyboardInterrupt` if it is asked to end while it runs."""
    if asked_to_end():
        raise KeyboardInterrupt
    folder.mkdir(parents=True, exist_ok=True)
    counts = forget_peak_memory(settings.device)
    what = truth_of(settings.prompt)
    result: dict[str, Any] = {name: getattr(settings, name) for name in CELL}
    run = begun(settings, folder)
    scene = run.dream.scene.representation
    try:
        optimise(settings, what, run, folder, asked_to_end)
        extraction = meshes.extract(scene, settings.mesh_resolution, max_faces=settings.faces)
    except (NonFiniteStep, meshes.EmptyScene) as error:
        result |= {"failure": str(error), "notes": [], "measures": {}}
    else:
        textured = meshes.texture(scene, extraction.mesh, settings.texture_size)
        write_pictures(folder, portrait_of_mesh(textured), solid_of_mesh(extraction.mesh, GLANCE_GRID))
        result |= {"failure": None, "notes": extraction.notes, "measures": measured(extraction.mesh, what)}
    result["cost"] = {**asdict(run.cost), "peak_mb": peak_memory(settings.device) if counts else math.nan}
    write_curve(folder, run.seen)
    text = json.dumps(result, indent=1)
    write_atomically(folder / "result.json", lambda path: path.write_text(text, encoding="utf-8"))
    for name in (CHECKPOINT, NOTE):
        (folder / name).unlink(missing_ok=True)


# -- to files and back


def damaged(folder: Path) -> EvaluationError:
    """What to say of a cell whose files are not as they were written."""
    return EvaluationError(f"The results in {folder} are damaged: delete that folder, and they are made again.")


@contextmanager
def intact(folder: Path) -> Iterator[None]:
    """Whatever fails inside, where a cell's files are read and nothing else is done, raises `EvaluationError`."""
    try:
        yield
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # there is no end to what readers raise of damaged files
        raise damaged(folder) from error


def sheet(rows: Sequence[Float[Tensor, "B H W 3"]]) -> Image.Image:
    """Pictures side by side, rows below each other."""
    return Image.fromarray(as_bytes(torch.cat([torch.cat(list(row), dim=1) for row in rows])[None])[0].numpy())


def pictures_of(path: Path, side: int) -> Float[Tensor, "B H W 3"]:
    """The pictures of a sheet, row by row."""
    with Image.open(path) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    return pixels.view(rows, side, columns, side, 3).transpose(1, 2).reshape(-1, side, side, 3)


def write_portrait(folder: Path, portrait: Portrait) -> None:
    """What other scorers will look at."""
    sheet([portrait.color]).save(folder / "color.png")
    sheet([portrait.bare]).save(folder / "bare.png")


def write_pictures(folder: Path, portrait: Portrait, solid: Solid) -> None:
    """What other scorers, and the comparison of seeds, will look at."""
    write_portrait(folder, portrait)
    save_file({"solid": torch.from_numpy(np.packbits(solid.inside.numpy()))}, folder / "solid.safetensors")


def read_portrait(folder: Path) -> Portrait:
    """The inverse of `write_portrait`, up to rounding to bytes; raises `EvaluationError`."""
    with intact(folder):
        return Portrait(*(pictures_of(folder / name, RESOLUTION) for name in ("color.png", "bare.png")))


def read_solid(folder: Path) -> Solid:
    """The result's inside on the grid of glances; raises `EvaluationError`."""
    with intact(folder):
        bits = np.unpackbits(load_file(folder / "solid.safetensors")["solid"].numpy(), count=math.prod(GLANCE_GRID.shape))
        return Solid(GLANCE_GRID, torch.from_numpy(bits.astype(bool)).view(GLANCE_GRID.shape))


def write_curve(folder: Path, seen: Sequence[Glance]) -> None:
    """The glances: their numbers as a table, their pictures as a sheet with a row each."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("step", "iou"), *((glance.step, glance.iou) for glance in seen)])
    write_atomically(folder / "curve.csv", lambda path: path.write_text(table.getvalue(), encoding="utf-8"))
    if seen:
        pictures = sheet([glance.views for glance in seen])
        write_atomically(folder / "curve.png", lambda path: pictures.save(path, "PNG"))


def read_curve(folder: Path) -> list[Glance]:
    """The inverse of `write_curve`; raises `EvaluationError`."""
    with intact(folder):
        with (folder / "curve.csv").open(newline="") as file:
            rows = [(int(row["step"]), float(row["iou"])) for row in csv.DictReader(file)]
        if not rows:
            return []
        views = pictures_of(folder / "curve.png", PREVIEW_RESOLUTION).split(PREVIEWS)
        return [Glance(step, iou, images) for (step, iou), images in zip(rows, views, strict=True)]
