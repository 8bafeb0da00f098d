"""Many runs in one folder: every prompt with every schedule, number of steps and seed, each done once.

    settings.json  cells/NAME/result.json ...  truths/NAME/color.png ...

The folder's settings say what all cells have in common. A cell is done when its `result.json` is there; whoever comes again,
with the same cells or with more of them, finds it and goes on with the others.
"""

import hashlib
import json
import math
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from dreamtime.checkpoints import write_atomically
from dreamtime.evaluation.cells import CELL, EvaluationError, noted
from dreamtime.presets import Settings, preset, settings_to_dict
from dreamtime.priors.folders import PICKLES
from dreamtime.priors.hub import on_this_disk, places_of
from dreamtime.priors.room import out_of_memory

Work = Callable[[Settings, Path], None]
"""What is done for a cell: its settings, and the folder that holds a `result.json` afterwards."""

FORMAT = 1  # of a cell's files
STOP = "stop"  # a file: who works for the evaluation in this folder is asked to end
PATIENCE = 10.0  # seconds that workers have to write down what they have
TICK = 1.0  # seconds between two looks at what they are at


def plan(
    prompts: Sequence[str], schedules: Sequence[str], steps: Sequence[int | None], seeds: int, **common: Any
) -> list[Settings]:
    """The settings of all cells, seed by seed, so that what is done first is already a comparison; None: the preset's steps.

    `common` is what `presets.preset` takes: its name, the device, the prior and changed settings. Raises ValueError.
    """
    if seeds < 1:
        raise EvaluationError(f"At least one seed is needed, got {seeds}.")
    for what, options in (("schedule", schedules), ("number of steps", steps)):
        if twice := [option for option in options if list(options).count(option) > 1]:
            raise EvaluationError(f"The {what} {twice[0]!r} is asked for twice.")
    cells = []
    for seed, prompt, schedule, count in product(range(seeds), prompts, schedules, steps):
        changes = common if count is None else {**common, "steps": count}
        cells.append(preset(**changes, prompt=prompt, schedule=schedule, seed=seed))
    return cells


def derived_from_steps(**common: Any) -> set[str]:
    """The settings in which cells differ only because their presets derive them from the steps; `common` is as in `plan`."""
    few, many = (settings_to_dict(preset(**common | {"prompt": "a red cube", "steps": steps})) for steps in (1, 10_000))
    return {name for name in few if few[name] != many[name]} - {"steps"}


def name_of(prompt: str) -> str:
    """A readable name for files, told apart from those of similar prompts by a digest."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40]
    return f"{words}.{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


def folder_of(root: Path, cell: Settings) -> Path:
    """Where a cell's results lie."""
    return root / "cells" / f"{name_of(cell.prompt)}.{cell.schedule}.{cell.steps}.{cell.seed}"


def is_done(root: Path, cell: Settings) -> bool:
    return (folder_of(root, cell) / "result.json").is_file()


def steps_done(root: Path, cell: Settings) -> int:
    """How many of its steps a cell has made; between two of them, by its note."""
    return cell.steps if is_done(root, cell) else noted(folder_of(root, cell))


def weight_files(source: str) -> list[Path]:
    """The files on this disk with the weights of a model or of an addition to one; none for what only the Hub has."""
    path = next(filter(None, map(on_this_disk, places_of(source))), None)
    if path is None or path.is_file():
        return [path] if path else []
    return sorted(file for file in path.rglob("*") if file.suffix in (".safetensors", *PICKLES))


def weights_of(cell: Settings) -> str:
    """Which models run, by their weights on this disk; empty where there are none, and ids of the Hub say it."""
    digest = hashlib.sha256()
    sources = filter(None, (cell.prior, cell.text_prior, cell.lora, cell.embedding))
    files = [path for source in sources for path in weight_files(source)]
    for path in files:
        with path.open("rb") as file:
            while part := file.read(2**24):
                digest.update(part)
    return digest.hexdigest()[:12] if files else ""


def defaults() -> dict[str, Any]:
    """The settings that need not be given, as JSON holds them."""
    usual = {field.name: field.default for field in fields(Settings) if field.default is not MISSING}
    values: dict[str, Any] = json.loads(json.dumps(usual))
    return values


def open_folder(root: Path, cell: Settings, derived: Collection[str] = ()) -> dict[str, Any]:
    """Make the folder one of cells with these settings; raises `EvaluationError` if it is one of others already.

    What all its cells have in common is returned: their settings, and the digest of the weights. Of the `derived` settings,
    which differ with a cell's steps, it is only said that they do.
    """
    common = {name: value for name, value in settings_to_dict(cell).items() if name not in CELL}
    common |= dict.fromkeys(derived, "by the steps")
    common = json.loads(json.dumps(common | {"weights": weights_of(cell), "format": FORMAT}))
    path = root / "settings.json"
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise EvaluationError(f"The file {path} is damaged: choose another folder.")
        # A folder from before there was some setting was made as its default still has it.
        found = {name: value for name, value in defaults().items() if name in common} | found
        for name in sorted(common.keys() | found.keys()):
            if common.get(name) != found.get(name):
                said = f"{name} is {found.get(name)!r} there and {common.get(name)!r} here"
                raise EvaluationError(f"The folder {root} holds results of other settings ({said}): choose another one.")
        return common
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise EvaluationError(f"{str(root)!r} is no empty folder and none of an evaluation: choose another one.")
    (root / "cells").mkdir(parents=True)
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(common, indent=1), encoding="utf-8"))
    return common


@contextmanager
def held(root: Path) -> Iterator[None]:
    """The folder of an evaluation, for one command alone; raises `EvaluationError` while another one works there."""
    lock = FileLock(root / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise EvaluationError(f"Another evaluation works in {root}: wait for its end, or choose another folder.") from None
    try:
        yield
    finally:
        lock.release()


def quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """How many cores' time a container may take, by Linux's control groups, version 2 or 1; infinite if unlimited."""
    version_2, version_1 = root / "cpu.max", [root / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
    try:
        written = version_2.read_text() if version_2.is_file() else " ".join(path.read_text() for path in version_1)
        granted, period = map(float, written.replace("max", "inf").split())
    except (OSError, ValueError):
        return math.inf
    return granted / period if granted > 0 and period > 0 else math.inf


def cores() -> int:
    """How many this process may use: those that it may run on, or as many as its container's quota is worth, at least one."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(max(1, min(own, quota())))


def checked_workers(workers: int | None, device: str) -> int:
    """How many runs at a time: as asked for, else one per core, or one on a GPU. Raises `EvaluationError`."""
    if workers is None:
        return cores() if device == "cpu" else 1
    if not 1 <= workers <= cores():
        raise EvaluationError(f"Between 1 and {cores()} workers can share the cores that there are here, got {workers}.")
    return workers


def end_with_parent() -> None:
    """Wait for the end of the process that started this one, however it comes, and end it too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def become_worker() -> None:
    """One thread for one run; an interrupt is the business of the process that waits, whose end is the end of all."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """On POSIX, processes that start inside pass over an interrupt from their first moment, before `become_worker` says so."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Fresh processes of one thread each; if the block is left early, they have a moment to end, and then are ended."""
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=become_worker)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        end(set(multiprocessing.active_children()) - others)
        raise
    executor.shutdown()


def end(processes: Collection[BaseProcess]) -> None:
    """Wait for processes that are about to end; after `PATIENCE`, or a second interrupt, they are ended."""
    deadline = time.monotonic() + PATIENCE
    try:
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()


@contextmanager
def question_of_end(root: Path) -> Iterator[Callable[[], bool]]:
    """What workers, of whatever process, ask between two steps: whether to end. They should once the block is left early."""
    stop = root / STOP
    stop.unlink(missing_ok=True)
    try:
        yield stop.exists
    except BaseException:
        with suppress(OSError):
            stop.touch()
        raise


def one_sentence(work: Work, cell: Settings, folder: Path) -> None:
    """The work, with its error in a form that comes through from another process."""
    try:
        work(cell, folder)
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise EvaluationError(
            "Out of memory: choose fewer workers, fewer views or a lower resolution; what is done is kept."
        ) from None


def nothing() -> None:
    """Nobody looks on, or waits."""


def work_through(
    root: Path, cells: Sequence[Settings], work: Work, executor: Executor, look: Callable[[], object] = nothing
) -> Iterator[Settings]:
    """Do the cells that are not done; each is yielded as soon as it is, in whatever order. Raises `EvaluationError`.

    Every `TICK` seconds, while they are at work, there is time for a look.
    """
    open_cells = [cell for cell in cells if not is_done(root, cell)]
    with deaf_to_interrupts():
        futures = {executor.submit(one_sentence, work, cell, folder_of(root, cell)): cell for cell in open_cells}
    left = set(futures)
    try:
        while left:
            done, left = wait(left, TICK, FIRST_COMPLETED)
            for future in done:
                future.result()
                yield futures[future]
            look()
    except BrokenProcessPool as error:
        raise EvaluationError(
            "A worker has died, most likely for want of memory: try again with fewer workers; what is done is kept."
        ) from error
    finally:
        for future in futures:
            future.cancel()
