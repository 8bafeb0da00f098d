"""What one running server has: where its runs lie, how long they stay, and how fast it is."""

import logging
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dreamtime import assembly, image_to_3d, presets, runs
from dreamtime.preprocess import Reference
from dreamtime.presets import Settings
from dreamtime.runs import Result, Run
from dreamtime.ui.driver import BORROWED
from dreamtime.ui.widgets import PRESET_NAMES

log = logging.getLogger(__name__)

PRIOR = "toybox"
"""The one that is there without a network."""

RUNNING: dict[str, Any] = {"concurrency_id": "runs", "concurrency_limit": 2}
"""How events that optimise share the machine: two at a time, whoever asks; the others wait in the queue."""

WARM_STEPS = 12  # of each preset
SETTLING_STEPS = 4  # of those, slower than all that follow and not counted
SWEEP_SECONDS = 600


SAME_WORK = {"prompt", "negative_prompt", "elevation", "seed"}
SAME_WORK |= {"schedule", "steps", *presets.SHAPING}
"""Settings that change what a step asks for, and not how long it takes."""


def device_in_words() -> str:
    """The device that runs will use, as the banner says it."""
    device = presets.resolve_device("auto")
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device


@dataclass
class Pace:
    """How fast this machine is, as the latest run of each sort has shown; before any, as a warm-up measures."""

    per_step: dict[tuple[Any, ...], float] = field(default_factory=dict)  # seconds, by sort of run
    for_mesh: dict[tuple[Any, ...], float] = field(default_factory=dict)
    done: bool = False  # with the warm-up

    def sort_of(self, settings: Settings) -> tuple[Any, ...]:
        """What runs of the same pace have in common."""
        return tuple(value for name, value in vars(settings).items() if name not in SAME_WORK)

    def learn(self, settings: Settings, per_step: float, for_mesh: float) -> None:
        """Take note of how long such a run took; a machine that is busier with one sort is so with the others."""
        sort = self.sort_of(settings)
        change = per_step / self.per_step.get(sort, per_step)
        self.per_step = {other: change * seconds for other, seconds in self.per_step.items()} | {sort: per_step}
        self.for_mesh[sort] = for_mesh

    def estimate(self, settings: Settings) -> float | None:
        """Seconds that such a run will take, or None while nobody knows."""
        sort = self.sort_of(settings)
        return settings.steps * self.per_step[sort] + self.for_mesh[sort] if sort in self.per_step else None


@dataclass(frozen=True)
class Server:
    """The folder of all runs and how many hours each of them is kept after its last use, infinitely many for ever."""

    root: Path
    hours: float
    pace: Pace

    def deliver(self, run: Run) -> Result:
        """The run's result, and from it how long such runs take here, with all that goes on beside them."""
        made = runs.deliver(run)
        told = made.statistics
        if made.steps > WARM_STEPS:
            self.pace.learn(run.settings, told["optimisation_seconds"] / made.steps, told["extraction_seconds"])
        return made


def server_from_environment() -> Server:
    """DREAMTIME_RUNS names the folder, DREAMTIME_KEEP_HOURS the time, 0 for ever. Raises ValueError.

    A folder that was named may hold runs of the command line, too: there they stay for ever unless the time was named as well.
    """
    named = os.environ.get("DREAMTIME_RUNS")
    root = Path(named or Path(tempfile.gettempdir()) / "dreamtime-runs").absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The folder of runs {str(root)!r} cannot be made ({error.strerror}): choose another by DREAMTIME_RUNS."
        ) from error
    if not re.fullmatch(r"\d+(\.\d+)?", hours := os.environ.get("DREAMTIME_KEEP_HOURS") or ("0" if named else "24")):
        raise ValueError(f"DREAMTIME_KEEP_HOURS must be a number of hours such as 24 or 0.5, or 0 for ever, got {hours!r}.")
    return Server(root, float(hours) or math.inf, Pace())


def disc() -> Reference:
    """Something red and round to measure with."""
    along = torch.linspace(-1, 1, 64)
    inside = (along[:, None] ** 2 + along**2 < 0.5).float()[..., None]
    return Reference(inside * torch.tensor([1.0, 0.0, 0.0]) + (1 - inside), inside)


def measured_runs(root: Path) -> Iterator[Run]:
    """A run of every preset, from a prompt and, where the embedded model for it is there, from a picture."""
    for preset in PRESET_NAMES:
        yield runs.create_run(root, presets.preset(preset, prior=PRIOR, prompt="a red cube"))
    for preset in PRESET_NAMES if not image_to_3d.not_here(image_to_3d.EMBEDDED) else ():
        yield runs.create_run(root, image_to_3d.image_preset(preset), disc())


def measure(pace: Pace, root: Path) -> None:
    """Take some real steps of every preset, and make the first one's mesh."""
    for_mesh = None
    for run in measured_runs(root):
        ends = [time.monotonic() for _, _ in zip(range(WARM_STEPS), runs.work(run), strict=False)][SETTLING_STEPS - 1 :]
        for_mesh = for_mesh or runs.deliver(run).statistics["extraction_seconds"]
        pace.learn(run.settings, (ends[-1] - ends[0]) / (len(ends) - 1), for_mesh)


def warm_up(server: Server) -> None:
    """Load the embedded prior and learn this machine's pace with it, so that the first click is fast and estimates are true.

    Where GPUs are borrowed it only imports: nobody's quota pays for a measurement.
    """
    try:
        assembly.alphas_cumprod_of(presets.preset("draft", prior=PRIOR).source)
        if not BORROWED:
            with tempfile.TemporaryDirectory(prefix="dreamtime-warm-up-") as folder:
                measure(server.pace, Path(folder))
    except Exception:
        log.exception("the warm-up failed; runs will load what they need themselves")
    finally:
        server.pace.done = True


def keep_house(server: Server) -> None:
    """Warm up once, then sweep now and then, for as long as the process lives and unless runs are kept for ever."""
    warm_up(server)
    while server.hours < math.inf:
        try:
            runs.sweep(server.root, server.hours * 3600)
        except OSError:
            log.exception("the sweep failed")
        time.sleep(SWEEP_SECONDS)


def start_housekeeping(server: Server) -> None:
    """Do all that in the background."""
    threading.Thread(target=keep_house, args=(server,), name="housekeeping", daemon=True).start()
