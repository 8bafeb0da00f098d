"""What one running server has: where its runs lie, how long they stay, and how fast it is."""

import logging
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamtime import presets, runs
from dreamtime.ui.driver import BORROWED
from dreamtime.ui.widgets import PRESET_NAMES

log = logging.getLogger(__name__)

RUNNING: dict[str, Any] = {"concurrency_id": "runs", "concurrency_limit": 2}
"""How events that optimise share the machine: two at a time, whoever asks; the others wait in the queue."""

WARM_STEPS = 4  # the first of them is slower than all others, and not counted
SWEEP_SECONDS = 600


@dataclass
class Pace:
    """Seconds per step and for the mesh, by preset of the embedded prior, as measured on this machine."""

    per_step: dict[str, float] = field(default_factory=dict)
    for_mesh: float = 0.0
    done: bool = False

    def estimate(self, preset: str, steps: int) -> float | None:
        """Seconds that a run will take, or None while nobody knows."""
        return steps * self.per_step[preset] + self.for_mesh if preset in self.per_step else None


@dataclass(frozen=True)
class Server:
    """The folder of all runs and how many hours each of them is kept."""

    root: Path
    hours: float
    pace: Pace

    def sweep(self) -> None:
        """Delete the runs that nobody has touched for too long."""
        runs.sweep(self.root, self.hours * 3600)


def server_from_environment() -> Server:
    """DREAMTIME_RUNS names the folder, DREAMTIME_KEEP_HOURS the time; both have defaults."""
    root = Path(os.environ.get("DREAMTIME_RUNS") or Path(tempfile.gettempdir()) / "dreamtime-runs").absolute()
    root.mkdir(parents=True, exist_ok=True)
    return Server(root, float(os.environ.get("DREAMTIME_KEEP_HOURS") or 24), Pace())


def seconds_per_step(preset: str, root: Path) -> float:
    """The mean over a few real steps, the first one not counted."""
    run = runs.create_run(root, presets.preset(preset, prompt="a red cube"))
    runs_at = [time.monotonic() for _, frame in zip(range(WARM_STEPS), runs.work(run), strict=False)]
    return (runs_at[-1] - runs_at[0]) / (len(runs_at) - 1)


def warm_up(server: Server) -> None:
    """Load the embedded prior and measure this machine's pace with it, so that the first click is fast and estimates are true.

    Where GPUs are borrowed it only loads the modules: nobody's quota pays for a measurement.
    """
    try:
        presets.alphas_cumprod_of(presets.PRIORS["toybox"])
        if not BORROWED:
            with tempfile.TemporaryDirectory(prefix="dreamtime-warm-up-") as folder:
                for preset in PRESET_NAMES:
                    server.pace.per_step[preset] = seconds_per_step(preset, Path(folder))
    except Exception:
        log.exception("the warm-up failed; runs will load what they need themselves")
    finally:
        server.pace.done = True


def keep_house(server: Server) -> None:
    """Warm up once, then sweep now and then, for as long as the process lives."""
    warm_up(server)
    while True:
        try:
            server.sweep()
        except Exception:
            log.exception("the sweep failed")
        time.sleep(SWEEP_SECONDS)


def start_housekeeping(server: Server) -> None:
    """Do all that in the background."""
    threading.Thread(target=keep_house, args=(server,), name="housekeeping", daemon=True).start()
