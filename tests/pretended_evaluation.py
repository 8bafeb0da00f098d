"""An evaluation whose runs were never made: files of noise and known numbers, for the tests of what is made of them."""

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator

from dreamtime.evaluation import cells, grid
from dreamtime.evaluation.alignment import Solid
from dreamtime.evaluation.views import PREVIEW_RESOLUTION, PREVIEWS, RESOLUTION, VIEWS, Portrait
from dreamtime.presets import Settings

PROMPTS = ("a red cube", "a blue cube", "a corgi on the <moon>")
QUALITY = {"uniform": 0.5, "time-prioritized": 1.0}  # IoU reached per step, in tenths


def plan(seeds: int = 2) -> list[Settings]:
    return grid.plan(PROMPTS, ["uniform", "time-prioritized"], [2, 4], seeds, name="draft", device="cpu")


def fails(cell: Settings) -> bool:
    """The red cube diverges under uniform timesteps with seed 1."""
    return cell.prompt == "a red cube" and cell.schedule == "uniform" and cell.seed == 1


def pretend(cell: Settings, folder: Path, asked_to_end: Callable[[], bool] = cells.never) -> None:
    """A cell's files: noise to look at, an IoU that rises with the steps and twice as fast under the better schedule."""
    folder.mkdir(parents=True)
    draw = Generator().manual_seed(zlib.crc32(f"{cell.prompt} {cell.seed}".encode()))
    known, quality = cell.prompt != PROMPTS[2], QUALITY[cell.schedule] / 10
    views = torch.rand(PREVIEWS, PREVIEW_RESOLUTION, PREVIEW_RESOLUTION, 3, generator=draw)
    steps = sorted(cells.glance_steps(cell.steps))
    cells.write_curve(folder, [cells.Glance(step, quality * step if known else math.nan, views) for step in steps])
    measures = {"watertight": True, "components": 1}
    measures |= {"iou": quality * cell.steps, "iou_scaled": 0.9, "color": 4.0} if known else {}
    if not fails(cell):
        images = torch.rand(2, VIEWS, RESOLUTION, RESOLUTION, 3, generator=draw)
        solid = Solid(cells.GLANCE_GRID, torch.rand(cells.GLANCE_GRID.shape, generator=draw) < 0.5)
        cells.write_pictures(folder, Portrait(*images), solid)
    result = {name: getattr(cell, name) for name in cells.CELL}
    result |= {"failure": "It <diverged>.", "measures": {}} if fails(cell) else {"failure": None, "measures": measures}
    result |= {"notes": [], "cost": {"seconds": 1.5, "cpu_seconds": 1.0, "peak_mb": 500.0}}
    (folder / "result.json").write_text(json.dumps(result))
