"""A run is a folder: settings, schedule table, checkpoint, curve, previews and results under one unguessable id.

    settings.json  reference.png  schedule.csv  checkpoint.safetensors  curve.csv  preview.png  stop  results/

Stopping, resuming, sharing and sweeping are operations on that folder, so they work across processes. Three locks in it tell
what goes on: one is held by whoever sees the run through, one during each sitting, one while its mesh is made.
"""

import csv
import errno
import json
import logging
import math
import re
import shutil
import time
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dreamtime import exports, meshes, turntable
from dreamtime.assembly import BUILDING, Dream, Scene, build_scene, timetable_of
from dreamtime.beforehand import check_abilities, check_ingredients
from dreamtime.cameras import framing_distance
from dreamtime.cameras import turntable as cameras_around
from dreamtime.checkpoints import CorruptCheckpoint, checkpoint_text, load_checkpoint, save_checkpoint, write_atomically
from dreamtime.generation import NonFiniteStep
from dreamtime.image_to_3d import image_to_3d
from dreamtime.preprocess import Reference, load_reference, save_reference
from dreamtime.presets import Settings, resolve_device, settings_from_dict, settings_to_dict
from dreamtime.priors.hub import short_name, whole_path
from dreamtime.priors.room import out_of_memory
from dreamtime.text_to_3d import text_to_3d
from dreamtime.timesteps import Timetable
from dreamtime.types import Rendering, Step

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 10.0
PREVIEW_SECONDS = 0.5
PACE_STEPS = 20  # the latest ones, which tell how long the others will take
FILES = {
    "glb": ".glb",
    "obj": ".obj",
    "zip": "-obj.zip",
    "ply": ".ply",
    "stl": ".stl",
    "turntable": ".mp4",
    "normals": "-normals.mp4",
    "picture": "-picture.png",
}
"""What a result consists of, and how each file's name ends after the prompt's."""

OF_A_RUN = {"settings.json", "schedule.csv", "checkpoint.safetensors", "curve.csv"}
"""Files by which a folder, or what is left of one, is known to be a run's."""

LOCKS = ATTENDED, WORKING, MESH = "attended", "lock", "mesh"
"""The files that whoever sees a run through, works on it, or makes its mesh holds meanwhile."""

PREVIEW_CAMERA = cameras_around(1, 128, distance=2.1)  # in front of the object, 128 pixels a side


class RunError(ValueError):
    """What went wrong with a run, in one sentence for the person who started it."""


@dataclass(frozen=True)
class Run:
    """A run's folder and the settings it was made with."""

    folder: Path
    settings: Settings

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def reference(self) -> Path:
        """The object of the picture that the run starts from, if it starts from one."""
        return self.folder / "reference.png"

    @property
    def preview(self) -> Path:
        return self.folder / "preview.png"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def schedule(self) -> Path:
        return self.folder / "schedule.csv"

    @property
    def curve(self) -> Path:
        return self.folder / "curve.csv"


@dataclass(frozen=True)
class Frame:
    """One step as a watcher sees it; where somebody watches, pictures come a few times per second, not at every step."""

    step: int
    steps: int
    t: int
    loss: float
    seconds: float  # spent optimising so far, over all sittings
    remaining: float  # to the last step, at the pace of the latest ones
    preview: UInt8[Tensor, "H W 4"] | None  # from the fixed camera, cut out
    view: UInt8[Tensor, "h w 3"] | None  # what the prior was just shown


def create_run(root: Path, settings: Settings, reference: Reference | None = None) -> Run:
    """A new run under `root`, with settings, whole schedule and, if it starts from one, picture written before the first step.

    Raises ValueError if a picture is given without the task, or the task without a picture, `ModelUnavailable` if what the run
    is made of is known to be missing, and `RunError` if it cannot be written; then there is no folder.
    """
    if (settings.task == "image") != (reference is not None):
        raise ValueError(f"A run of task {settings.task!r} was {'not given any' if reference is None else 'given a'} picture.")
    check_ingredients(settings)
    table = timetable_of(settings)
    check_abilities(settings)  # by now its files say of what kind a model of the Hub is
    folder = root / uuid.uuid4().hex
    try:
        with disk_errors(afterwards=""):
            folder.mkdir(parents=True)
            write_beginning(folder, settings, table, reference)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Run(folder, settings)


MADE_OF = ("prior", "text_prior", "lora", "embedding")
"""The settings that may name a file or folder."""


def anchored(settings: Settings) -> Settings:
    """The settings as they are kept, files and folders by whole paths: a run may be resumed from anywhere."""
    paths: dict[str, Any] = {name: whole_path(getattr(settings, name)) for name in MADE_OF}
    return replace(settings, **paths)


def without_paths(settings: Settings) -> dict[str, Any]:
    """The settings as they may travel, files and folders by their names alone."""
    return settings_to_dict(settings) | {name: short_name(getattr(settings, name)) for name in MADE_OF}


def write_beginning(folder: Path, settings: Settings, table: Timetable, reference: Reference | None) -> None:
    """What a run's folder holds before the first step."""
    write_atomically(
        folder / "settings.json", lambda path: path.write_text(json.dumps(settings_to_dict(anchored(settings)), indent=1))
    )
    write_atomically(folder / "schedule.csv", lambda path: write_csv(path, schedule_rows(table)))
    if reference is not None:
        save_reference(folder / "reference.png", reference)


def open_run(root: Path, run_id: object) -> Run:
    """The run of that id under `root`; raises `RunError` when there is none, whatever the id contains."""
    if not isinstance(run_id, str) or not re.fullmatch(r"[0-9a-f]{32}", run_id):
        raise RunError("A run id is 32 hexadecimal digits, as shown beside the run.")
    folder = root / run_id
    if not (folder / "settings.json").is_file():
        raise RunError("There is no run with this id here; it may have been swept away.")
    try:
        settings = settings_from_dict(json.loads((folder / "settings.json").read_text()))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RunError("The settings of this run cannot be read.") from error
    return Run(folder, settings)


def request_stop(run: Run) -> None:
    """Ask whoever works on the run, in this process or another, to stop after the current step and keep the result.

    Raises `RunError` where nobody does.
    """
    with disk_errors():
        if not (is_held(run, ATTENDED) or is_held(run, WORKING)):
            raise RunError("Nobody works on this run: there is nothing to stop.")
        (run.folder / "stop").touch()


def stop_requested(run: Run) -> bool:
    return (run.folder / "stop").exists()


def clear_stop(run: Run) -> None:
    """Take a stop request back, as somebody who resumes does; raises `RunError` while another worker may still heed it."""
    with attended(run), working_on(run), disk_errors():
        (run.folder / "stop").unlink(missing_ok=True)


def steps_done(run: Run) -> int:
    """The step of the checkpoint, 0 before the first."""
    if not run.checkpoint.exists():
        return 0
    try:
        return int(checkpoint_text(run.checkpoint)["step"])
    except KeyError as error:
        raise CorruptCheckpoint(f"The file {run.checkpoint.name} is the checkpoint of something else.") from error


@contextmanager
def disk_errors(afterwards: str = ", then resume; everything saved before is kept") -> Iterator[None]:
    """Say in a sentence what the file system refused, and what there is to do `afterwards`."""
    try:
        yield
    except Timeout:  # of a lock: the disk has nothing to do with it
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"The disk is full: free some space{afterwards}.") from error
        raise RunError(f"The run folder cannot be written: {error.strerror or error}.") from error


def lock_of(folder: Path, name: str) -> FileLock:
    """One of a run's locks; the system releases it if its holder dies.

    A generator's next step may be taken in another thread, so what one thread has acquired any other may release.
    """
    return FileLock(folder / name, thread_local=False)


@contextmanager
def holding(run: Run, name: str) -> Iterator[None]:
    """Hold one of a run's locks; raises `RunError` where somebody else does."""
    lock = lock_of(run.folder, name)
    try:
        with disk_errors():
            # Not zero: whoever only asks whether somebody works on the run holds the lock for an instant.
            lock.acquire(timeout=0.5)
    except Timeout as error:
        raise RunError("This run is being worked on already; watch it where it runs, or stop it first.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def waiting_for(run: Run, name: str) -> Iterator[None]:
    """Hold one of a run's locks, however long somebody else does."""
    lock = lock_of(run.folder, name)
    with disk_errors():
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def attended(run: Run) -> AbstractContextManager[None]:
    """See the run through, from before its id is told to its result: all the while it can be stopped, also between sittings.

    Raises `RunError` where somebody else does.
    """
    return holding(run, ATTENDED)


def working_on(run: Run) -> AbstractContextManager[None]:
    """Hold the run for one worker; a second one is refused."""
    return holding(run, WORKING)


def is_held(run: Run, name: str) -> bool:
    """Whether somebody holds one of a run's locks; asking holds it for an instant."""
    try:
        with lock_of(run.folder, name).acquire(timeout=0.1):
            return False
    except Timeout:
        return True
    except OSError:  # another's run, or a disk that is only read: whoever may not write cannot hold it either
        return False


def mesh_is_made(run: Run) -> bool:
    """Whether somebody makes the run's mesh at this moment."""
    return is_held(run, MESH)


def goes_on(run: Run) -> bool:
    """Whether somebody sees the run through, works on it or makes its mesh, so that its result comes by itself."""
    return any(is_held(run, name) for name in LOCKS)


def curve_rows(run: Run, done: int) -> list[tuple[int, int, float]]:
    """Step, t and loss of the steps up to `done`, as saved with the checkpoint."""
    if not run.curve.exists():
        return []
    try:
        with run.curve.open(newline="") as file:
            rows = [(int(row["step"]), int(row["t"]), float(row["loss"])) for row in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError, csv.Error):
        log.warning("The loss curve of run %s cannot be read; it begins anew.", run.id)
        return []
    return [row for row in rows if row[0] <= done]


def write_csv(path: Path, rows: Iterable[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def save_curve(run: Run, rows: list[tuple[int, int, float]]) -> None:
    write_atomically(run.curve, lambda path: write_csv(path, [("step", "t", "loss"), *rows]))


def dream_of(run: Run) -> Dream:
    """The parts of a run, from its folder. Raises `ModelUnavailable`, and ValueError if its device is not here."""
    resolve_device(run.settings.device)
    if run.settings.task == "image":
        return image_to_3d(run.settings, load_reference(run.reference))
    return text_to_3d(run.settings)


def work(run: Run, seconds: float = math.inf, pictures: bool = True) -> Generator[Frame, None, None]:
    """Optimise from the checkpoint on until the last step, a stop request, or the end of `seconds`; yield every step.

    The seconds count from the first `next`, loading included; a step that would not end in time is left to the next sitting,
    but for the first one. The checkpoint is written every few seconds and whenever the iteration ends, also when the caller
    closes it. `pictures` for those who watch take an eighth of a CPU's time; without, the last step alone has them. Raises
    `RunError`; what the last checkpoint holds is kept.
    """
    deadline = time.monotonic() + seconds
    with working_on(run), memory_errors(run):
        check_schedule(run)
        if steps_done(run) == run.settings.steps:
            return
        dream = dream_of(run)
        optimizers = {"optimizer": dream.optimizer}
        done, before = restore(run, dream, optimizers)
        rows = curve_rows(run, done)
        started = saved = time.monotonic()
        ends = deque([started], maxlen=PACE_STEPS + 1)
        shown, spent = -math.inf, before

        def save() -> None:
            with disk_errors():
                words = {"step": str(done), "seconds": f"{spent:.3f}"}
                save_checkpoint(run.checkpoint, dream.scene.modules, optimizers, dream.generator, words)
                save_curve(run, rows)
                picture = Image.fromarray(cut_out(dream.scene.preview(PREVIEW_CAMERA)).numpy())
                write_atomically(run.preview, picture.save)

        try:
            for step in dream.steps(done):
                now = time.monotonic()
                ends.append(now)
                pace = (now - ends[0]) / (len(ends) - 1)
                done, spent = step.index, before + now - started
                rows.append((step.index, step.t, step.loss))
                if now - saved > CHECKPOINT_SECONDS:
                    save()
                    saved = now
                due = (pictures and now - shown > PREVIEW_SECONDS) or step.index == run.settings.steps
                shown = now if due else shown
                remaining = pace * (run.settings.steps - done)
                seen = pictures_of(dream, step) if due else (None, None)
                yield Frame(done, run.settings.steps, step.t, step.loss, spent, remaining, *seen)
                if stop_requested(run) or time.monotonic() + pace > deadline:
                    break
        except NonFiniteStep as error:
            if not done:
                raise RunError(f"{error} The run stopped before anything was computed.") from error
            save()  # nothing of that step has reached the scene
            raise RunError(f"{error} The run stopped; its checkpoint of step {done} is kept.") from error
        except (RuntimeError, MemoryError) as error:
            if done and out_of_memory(error):
                with suppress(RuntimeError, MemoryError):  # once the checkpoint is written, its picture may find no room either
                    save()
            raise
        except GeneratorExit:
            save()
            raise
        save()


@contextmanager
def memory_errors(run: Run) -> Iterator[None]:
    """Turn what says that there is no memory left into `RunError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        last = steps_done(run)
        kept = f"The checkpoint of step {last} is kept." if last else "The run stopped before anything was computed."
        raise RunError(f"Out of memory: choose a smaller preset, fewer views or a lower resolution. {kept}") from error


def check_schedule(run: Run) -> None:
    """Raise `RunError` where the steps that are left would follow another schedule than the one that the run began with."""
    with disk_errors():
        if not run.schedule.exists() or steps_done(run) == run.settings.steps:
            return
        began = run.schedule.read_text(errors="replace")
    if began.split() != [",".join(map(str, row)) for row in schedule_rows(timetable_of(run.settings))]:
        raise RunError(
            "The schedule of this run has changed since it began: its prior has other noise levels now, or this program"
            " computes another one. Begin a new run."
        )


def schedule_rows(table: Timetable) -> Iterator[tuple[Any, ...]]:
    """A run's schedule as rows, a heading first."""
    yield "step", "t_low", "t_high"
    yield from zip(range(1, len(table) + 1), table.low.tolist(), table.high.tolist(), strict=True)


def restore(run: Run, dream: Dream, optimizers: Mapping[str, torch.optim.Optimizer]) -> tuple[int, float]:
    """Put the checkpoint's state into a freshly built dream; the step it was taken at and the seconds spent until then."""
    if not run.checkpoint.exists():
        return 0, 0.0
    text = load_checkpoint(run.checkpoint, dream.scene.modules, optimizers, dream.generator)
    return int(text["step"]), float(text["seconds"])


def cut_out(rendering: Rendering) -> UInt8[Tensor, "H W 4"]:
    """The first picture of a rendering on white, without the white: its opacity is the alpha, and any page shows through."""
    opacity = rendering.opacity[:1]
    color = (rendering.image[:1] - (1 - opacity)) / opacity.clamp(min=1 / 255)
    return torch.cat([turntable.as_bytes(color), turntable.as_bytes(opacity.expand_as(color))[..., :1]], dim=-1)[0].cpu()


def pictures_of(dream: Dream, step: Step) -> tuple[UInt8[Tensor, "H W 4"], UInt8[Tensor, "h w 3"]]:
    """What watchers see of a step: the scene from the fixed camera, and the last view that the prior was shown.

    The first one may be the picture's own view, of which the prior is not asked.
    """
    return cut_out(dream.scene.preview(PREVIEW_CAMERA)), turntable.as_bytes(step.rendering.image)[-1].cpu()


@dataclass(frozen=True)
class Result:
    """What a run delivers.

    The kinds of `files`: glb, obj (its MTL and PNG beside it), zip (these three), ply, stl, turntable, normals, picture.
    """

    steps: int  # of the optimisation, behind this result
    files: dict[str, Path]
    statistics: dict[str, Any]
    notes: tuple[str, ...]  # what a person should know about the mesh


def deliver(run: Run) -> Result:
    """Extract, unwrap, texture and write the mesh of the latest checkpoint, with its turntable and statistics.

    Needs no diffusion model and no GPU. Waits for whoever makes it already. Raises `RunError` when the run has not come to a
    first checkpoint.
    """
    if not run.checkpoint.exists():
        raise RunError("This run has not finished a first step yet: there is no mesh to deliver.")
    with waiting_for(run, MESH):
        with BUILDING:
            scene = build_scene(run.settings, torch.device("cpu"), torch.Generator())
        text = load_checkpoint(run.checkpoint, scene.modules, {}, torch.Generator())
        with disk_errors():
            run.results.mkdir(exist_ok=True)
            return write_results(run, scene, int(text["step"]), float(text["seconds"]))


def file_name(prompt: str) -> str:
    """A short plain file name that recalls the prompt: letters, digits and hyphens only; "model" if there is nothing to."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:40].strip("-") or "model"


def write_results(run: Run, scene: Scene, steps: int, seconds: float) -> Result:
    """All files of a result, and `result.json`, which completes it, last."""
    started = time.monotonic()
    settings, name = run.settings, file_name(run.settings.prompt)
    extraction = meshes.extract(scene.representation, settings.mesh_resolution, max_faces=settings.faces)
    textured = meshes.texture(scene.representation, extraction.mesh, settings.texture_size)
    extras = {"generator": "DreamTime", "run": run.id, "steps_done": steps, "settings": without_paths(settings)}
    extras |= {"prompt": settings.prompt, "seed": settings.seed}
    written = exports.write_all(run.results, name, textured, extras)
    distance = framing_distance(textured.positions)
    turntable.turntable(partial(turntable.render_textured, textured), run.results, name, distance=distance)
    still = turntable.render_textured(textured, cameras_around(1, 384, distance=distance))
    Image.fromarray(cut_out(still).numpy()).save(run.results / f"{name}{FILES['picture']}")
    statistics = {
        **asdict(meshes.statistics(textured)),
        "steps": steps,
        "optimisation_seconds": round(seconds, 2),
        "extraction_seconds": round(time.monotonic() - started, 2),
        "glb_bytes": written.glb.stat().st_size,
        "density_level": round(extraction.level, 3),
    }
    summary = json.dumps({"statistics": statistics, "notes": extraction.notes}, indent=1)
    write_atomically(run.results / "result.json", lambda path: path.write_text(summary))
    return read_result(run, summary)


def read_result(run: Run, summary: str) -> Result:
    """A result as its `result.json` tells it, with where its files lie."""
    told, name = json.loads(summary), file_name(run.settings.prompt)
    files = {kind: run.results / f"{name}{ending}" for kind, ending in FILES.items()}
    return Result(told["statistics"]["steps"], files, told["statistics"], tuple(told["notes"]))


def delivered(run: Run) -> Result | None:
    """The result that `deliver` last wrote, or None where there is none whole, or the run has gone on since."""
    summary = run.results / "result.json"
    if not summary.is_file():
        return None
    try:
        result = read_result(run, summary.read_text())
    except (ValueError, KeyError, TypeError):
        return None
    if not all(path.is_file() for path in result.files.values()):
        return None
    try:
        return result if steps_done(run) == result.steps else None
    except CorruptCheckpoint:
        return result  # all that is left of the run


def sweep(root: Path, older_than: float) -> int:
    """Remove runs that nobody has touched for `older_than` seconds; how many went.

    Runs being worked on stay, and so does whatever is no run or belongs to somebody else.
    """
    removed = 0
    for folder in root.iterdir() if root.is_dir() else ():
        if not re.fullmatch(r"[0-9a-f]{32}", folder.name) or folder.is_symlink():
            continue
        with suppress(Timeout, OSError), ExitStack() as held:
            inside = list(folder.iterdir())
            if not {path.name for path in inside} & OF_A_RUN:
                continue
            newest = max(path.stat().st_mtime for path in inside)
            if datetime.now(timezone.utc).timestamp() - newest < older_than:
                continue
            for name in LOCKS:
                held.enter_context(lock_of(folder, name).acquire(timeout=0))
            shutil.rmtree(folder, ignore_errors=True)
            removed += not folder.exists()
    return removed
