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
from dreamtime.presets import Settings
from dreamtime.ui.driver import BORROWED
from dreamtime.ui.widgets import PRESET_NAMES

log = logging.getLogger(__name__)

RUNNING: dict[str, Any] = {"concurrency_id": "runs", "concurrency_limit": 2}
"""How events that optimise share the machine: two at a time, whoever asks; the others wait in the queue."""

WARM_STEPS = 5  # of each preset; the first is slower than all others and is not counted
SWEEP_SECONDS = 600


@dataclass
class Pace:
    """How fast this machine is with its embedded prior, as measured here and now."""

    prior: str = "toybox"
    per_step: dict[str, float] = field(default_factory=dict)  # seconds, by preset
    for_mesh: float = 0.0  # seconds, of the draft preset's
    done: bool = False

    def estimate(self, settings: Settings, preset: str) -> float | None:
        """Seconds that such a run will take, or None while nobody knows."""
        if settings.prior != self.prior or preset not in self.per_step:
            return None
        return settings.steps * self.per_step[preset] + self.for_mesh


@dataclass(frozen=True)
class Server:
    """The folder of all runs and how many hours each of them is kept."""

    root: Path
    hours: float
    pace: Pace


def server_from_environment() -> Server:
    """DREAMTIME_RUNS names the folder, DREAMTIME_KEEP_HOURS the time; both have defaults."""
    root = Path(os.environ.get("DREAMTIME_RUNS") or Path(tempfile.gettempdir()) / "dreamtime-runs").absolute()
    root.mkdir(parents=True, exist_ok=True)
    return Server(root, float(os.environ.get("DREAMTIME_KEEP_HOURS") or 24), Pace())


def measure(pace: Pace, root: Path) -> None:
    """Take a few real steps of every preset, and make one mesh."""
    for preset in PRESET_NAMES:
        run = runs.create_run(root, presets.preset(preset, prior=pace.prior, prompt="a red cube"))
        ends = [time.monotonic() for _, _ in zip(range(WARM_STEPS), runs.work(run), strict=False)]
        if not pace.for_mesh:
            started = time.monotonic()
            runs.deliver(run)
            pace.for_mesh = time.monotonic() - started
        pace.per_step[preset] = (ends[-1] - ends[0]) / (len(ends) - 1)


def warm_up(server: Server) -> None:
    """Load the embedded prior and learn this machine's pace with it, so that the first click is fast and estimates are true.

    Where GPUs are borrowed it only imports: nobody's quota pays for a measurement.
    """
    try:
        presets.alphas_cumprod_of(presets.PRIORS[server.pace.prior])
        if not BORROWED:
            with tempfile.TemporaryDirectory(prefix="dreamtime-warm-up-") as folder:
                measure(server.pace, Path(folder))
    except Exception:
        log.exception("the warm-up failed; runs will load what they need themselves")
    finally:
        server.pace.done = True


def keep_house(server: Server) -> None:
    """Warm up once, then sweep now and then, for as long as the process lives."""
    warm_up(server)
    while True:
        try:
            runs.sweep(server.root, server.hours * 3600)
        except OSError:
            log.exception("the sweep failed")
        time.sleep(SWEEP_SECONDS)


def start_housekeeping(server: Server) -> None:
    """Do all that in the background."""
    threading.Thread(target=keep_house, args=(server,), name="housekeeping", daemon=True).start()
