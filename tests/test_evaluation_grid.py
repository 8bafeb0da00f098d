"""The grid with work that is only pretended: what is done stays done, whatever interrupts; folders of others are refused."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from dreamtime.evaluation import grid
from dreamtime.evaluation.cells import note
from dreamtime.evaluation.grid import EvaluationError
from dreamtime.presets import Settings, preset
from dreamtime.toybox import WEIGHTS


def plan(prompts: int = 2, seeds: int = 2, **common: object) -> list[Settings]:
    words = [f"a {color} cube" for color in ("red", "blue", "green")[:prompts]]
    return grid.plan(words, ["uniform", "time-prioritized"], [10, 20], seeds, **{"name": "draft", "device": "cpu", **common})


@pytest.fixture
def thread() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Pretended:
    """Work that writes its cell's file, counts how often it was asked for each, and stops with an error on request."""

    def __init__(self, stop_after: int | None = None, error: BaseException | None = None) -> None:
        self.asked, self.stop_after, self.error = Counter[Path](), stop_after, error

    def __call__(self, cell: Settings, folder: Path) -> None:
        if self.error is not None and len(self.asked) == self.stop_after:
            raise self.error
        self.asked[folder] += 1
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"prompt": cell.prompt, "process": os.getpid()}))


def test_the_plan_is_every_combination_once_and_a_comparison_from_the_start():
    cells = plan()
    combinations = {(cell.prompt, cell.schedule, cell.steps, cell.seed) for cell in cells}
    assert len(combinations) == len(cells) == 2 * 2 * 2 * 2
    # Whoever stops half-way has one seed of everything.
    assert {cell.seed for cell in cells[:8]} == {0}
    assert {cell.schedule for cell in cells[:2]} == {"uniform"}


def test_without_steps_the_preset_decides():
    (cell,) = grid.plan(["a red cube"], ["uniform"], [None], 1, name="draft", device="cpu")
    assert cell.steps == preset("draft", "cpu", prompt="a red cube").steps


def test_settings_reach_every_cell():
    assert {cell.guidance_scale for cell in plan(guidance_scale=3.5)} == {3.5}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((["a"], ["uniform"], [10], 0), "At least one seed"),
        ((["a"], ["uniform", "uniform"], [10], 1), "schedule 'uniform' is asked for twice"),
        ((["a"], ["uniform"], [10, 10], 1), "number of steps 10 is asked for twice"),
        ((["a"], ["cosine"], [10], 1), "Unknown schedule 'cosine'"),
        ((["a"], ["uniform"], [0], 1), "got 0"),
    ],
)
def test_nonsense_is_refused_before_any_work(options: tuple, words: str):
    with pytest.raises(ValueError, match=words):
        grid.plan(*options, name="draft", device="cpu")


def test_every_cell_has_a_folder_of_its_own():
    long = "a " + "very " * 60
    words = [long + "red cube", long + "blue cube", "a red cube!", "A red cube", "ein Würfel", "ein W rfel"]
    cells = grid.plan(words, ["uniform", "linear"], [10, 100], 2, name="draft", device="cpu")
    folders = [grid.folder_of(Path("x"), cell) for cell in cells]
    assert len({str(folder).lower() for folder in folders}) == len(cells)
    assert max(len(folder.name) for folder in folders) < 120


def test_all_cells_are_done_once(tmp_path: Path, thread: Executor):
    work, cells = Pretended(), plan()
    assert set(grid.work_through(tmp_path, cells, work, thread)) == set(cells)
    assert set(work.asked) == {grid.folder_of(tmp_path, cell) for cell in cells}
    assert set(work.asked.values()) == {1}
    assert list(grid.work_through(tmp_path, cells, work, thread)) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), ValueError("The model is gone.")])
def test_interrupted_and_started_again_nothing_is_redone(tmp_path: Path, error: BaseException):
    first, cells = Pretended(stop_after=5, error=error), plan()
    with ThreadPoolExecutor(1) as executor, pytest.raises((type(error), EvaluationError)):
        list(grid.work_through(tmp_path, cells, first, executor))
    assert 5 <= len(first.asked) < len(cells)
    second = Pretended()
    with ThreadPoolExecutor(1) as executor:
        list(grid.work_through(tmp_path, cells, second, executor))
    assert not first.asked.keys() & second.asked.keys()
    assert len(first.asked) + len(second.asked) == len(cells)
    assert all(grid.is_done(tmp_path, cell) for cell in cells)


def test_there_is_time_for_a_look_while_cells_are_at_work(tmp_path: Path, thread: Executor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grid, "TICK", 0.01)
    looked_at = threading.Event()

    def work(cell: Settings, folder: Path) -> None:
        assert looked_at.wait(60)

    cells = plan(1, 1)
    assert set(grid.work_through(tmp_path, cells, work, thread, looked_at.set)) == set(cells)


def test_the_steps_of_a_cell_are_counted_from_its_note_to_its_end(tmp_path: Path):
    (cell, *_) = plan()
    folder = grid.folder_of(tmp_path, cell)
    assert grid.steps_done(tmp_path, cell) == 0
    folder.mkdir(parents=True)
    note(folder, 3)
    assert grid.steps_done(tmp_path, cell) == 3
    (folder / "result.json").write_text("{}")
    assert grid.steps_done(tmp_path, cell) == cell.steps == 10


def test_workers_are_asked_to_end_once_a_block_is_left_early(tmp_path: Path):
    before = list[bool]()

    def interrupted() -> None:
        with grid.question_of_end(tmp_path) as asked_to_end:
            before.append(asked_to_end())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert before == [False]
    assert (tmp_path / grid.STOP).exists()
    with grid.question_of_end(tmp_path) as asked_to_end:
        assert not asked_to_end()
    assert not asked_to_end()


class Lingering(BaseProcess):
    """A process that would take so many seconds to its end, on a clock of its own."""

    def __init__(self, seconds: float, clock: list[float], interrupt: bool = False) -> None:
        self.seconds, self.clock, self.interrupt, self.killed = seconds, clock, interrupt, False

    def join(self, timeout: float | None = None) -> None:
        assert timeout is not None
        if self.interrupt:
            raise KeyboardInterrupt
        self.clock[0] += min(timeout, max(0, self.seconds - self.clock[0]))

    def kill(self) -> None:
        self.killed = self.seconds > self.clock[0]


def test_processes_have_a_moment_together_to_end(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(grid.time, "monotonic", lambda: clock[0])
    lingering = [Lingering(seconds, clock) for seconds in (9.0, 3.0, 60.0, 70.0)]
    grid.end(lingering)
    assert [process.killed for process in lingering] == [False, False, True, True]
    assert clock[0] == grid.PATIENCE


def test_a_second_interrupt_waits_for_nobody(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    lingering = [Lingering(3.0, clock, interrupt=True), Lingering(3.0, clock)]
    with pytest.raises(KeyboardInterrupt):
        grid.end(lingering)
    assert all(process.killed for process in lingering)


def test_a_half_written_cell_is_done_again(tmp_path: Path, thread: Executor):
    cells = plan(prompts=1, seeds=1)
    folder = grid.folder_of(tmp_path, cells[0])
    folder.mkdir(parents=True)
    (folder / "color.png").write_bytes(b"half")
    done = []

    def work(cell: Settings, folder: Path) -> None:
        done.append(cell)

    list(grid.work_through(tmp_path, cells, work, thread))
    assert done == cells


def test_more_seeds_go_on_where_fewer_ended(tmp_path: Path, thread: Executor):
    work = Pretended()
    list(grid.work_through(tmp_path, plan(seeds=1), work, thread))
    assert [cell.seed for cell in grid.work_through(tmp_path, plan(seeds=2), work, thread)] == [1] * 8


def test_what_a_worker_objects_to_is_one_sentence(tmp_path: Path, thread: Executor):
    class Odd(ValueError):
        def __init__(self, what: str, reason: str) -> None:  # cannot be rebuilt from its message, as some errors
            super().__init__(f"{what} {reason}.")

    with pytest.raises(EvaluationError, match=r"^The prior is not there\.$"):
        list(grid.work_through(tmp_path, plan(1, 1), Pretended(0, Odd("The prior", "is not there")), thread))


def test_a_worker_without_memory_is_one_sentence(tmp_path: Path, thread: Executor):
    for number, error in enumerate([MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")]):
        with pytest.raises(EvaluationError, match=r"^Out of memory: choose fewer workers, .* what is done is kept\.$"):
            list(grid.work_through(tmp_path / str(number), plan(1, 1), Pretended(0, error), thread))
    with pytest.raises(RuntimeError, match="something else"):
        list(grid.work_through(tmp_path / "else", plan(1, 1), Pretended(0, RuntimeError("something else")), thread))


def test_a_folder_is_held_by_one_command(tmp_path: Path):
    with grid.held(tmp_path):
        with pytest.raises(EvaluationError, match="Another evaluation works in"), grid.held(tmp_path):
            pass
    with grid.held(tmp_path):
        pass


def test_interrupts_are_heard_again_once_workers_have_started():
    heard = signal.getsignal(signal.SIGINT)
    with grid.deaf_to_interrupts():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == heard


def test_workers_start_where_interrupts_are_passed_over(tmp_path: Path):
    class Noting(ThreadPoolExecutor):
        heard: ClassVar[list[object]] = []

        def submit(self, *work: Any, **options: Any) -> Future:
            self.heard.append(signal.getsignal(signal.SIGINT))
            return super().submit(*work, **options)

    with Noting(1) as executor:
        list(grid.work_through(tmp_path, plan(1, 1), Pretended(), executor))
    assert set(Noting.heard) == {signal.SIG_IGN}


def test_a_dead_worker_is_one_sentence(tmp_path: Path, thread: Executor):
    with pytest.raises(EvaluationError, match=r"A worker has died.*fewer workers"):
        list(grid.work_through(tmp_path, plan(1, 1), Pretended(0, BrokenProcessPool()), thread))


def threads_and_process(cell: Settings, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps([os.getpid(), torch.get_num_threads()]))


def test_workers_are_processes_of_one_thread(tmp_path: Path):
    cells = plan(1, 1)
    with grid.processes(1) as executor:
        assert len(list(grid.work_through(tmp_path, cells, threads_and_process, executor))) == len(cells)
    told = [json.loads((grid.folder_of(tmp_path, cell) / "result.json").read_text()) for cell in cells]
    assert {threads for _, threads in told} == {1}
    assert os.getpid() not in {process for process, _ in told}


ENDLESS = """
import os, sys, time
from pathlib import Path
from typing import Any, ClassVar
from dreamtime.evaluation import grid

def endless(place):
    Path(place).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    with grid.processes(1) as executor:
        executor.submit(endless, sys.argv[1]).result()
"""


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.posix
def test_workers_end_with_whoever_started_them(tmp_path: Path):
    """Killed, it can tell them nothing."""
    script, place = tmp_path / "endless.py", tmp_path / "place"
    script.write_text(ENDLESS)
    environment = {**os.environ, "PYTHONPATH": str(Path(grid.__file__).parents[2])}  # a script finds its own folder alone
    deadline = time.monotonic() + 120
    with subprocess.Popen([sys.executable, str(script), str(place)], env=environment) as parent:
        try:
            while not (place.exists() and place.read_text()) and time.monotonic() < deadline:
                assert parent.poll() is None
                time.sleep(0.1)
            worker = int(place.read_text())
            assert is_there(worker)
        finally:
            parent.kill()
    while is_there(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_there(worker)


def test_workers_are_bounded_by_the_cores():
    assert 1 <= grid.checked_workers(None, "cpu") == grid.cores()
    assert grid.checked_workers(None, "cuda") == 1
    assert grid.checked_workers(1, "cpu") == 1
    for workers in (0, grid.cores() + 1):
        with pytest.raises(EvaluationError, match=f"Between 1 and {grid.cores()} workers .* got {workers}"):
            grid.checked_workers(workers, "cpu")


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "what is this\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, math.inf),
    ],
)
def test_a_containers_quota_is_read(tmp_path: Path, files: dict[str, str], quota: float):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert grid.quota(tmp_path) == quota


@pytest.mark.parametrize(("affinity", "quota", "cores"), [(8, math.inf, 8), (8, 2.5, 2), (2, 3.0, 2), (8, 0.2, 1)])
def test_a_container_has_no_more_cores_than_its_quota_is_worth(
    affinity: int, quota: float, cores: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(grid.os, "sched_getaffinity", lambda process: set(range(affinity)), raising=False)
    monkeypatch.setattr(grid, "quota", lambda: quota)
    assert grid.cores() == cores
    assert grid.checked_workers(None, "cpu") == cores


def test_a_folder_is_made_and_opened_again(tmp_path: Path):
    for _ in range(2):
        grid.open_folder(tmp_path / "new", plan()[0])
    common = grid.open_folder(tmp_path / "new", plan()[-1])  # another prompt, schedule, number of steps and seed
    assert common == json.loads((tmp_path / "new" / "settings.json").read_text())
    assert common["weights"] == grid.weights_of(plan()[0])
    assert (tmp_path / "new" / "cells").is_dir()


def test_a_folder_of_other_settings_is_refused(tmp_path: Path):
    grid.open_folder(tmp_path / "new", plan(guidance_scale=5.0)[0])
    with pytest.raises(EvaluationError, match=r"guidance_scale is 5\.0 there and 7\.5 here"):
        grid.open_folder(tmp_path / "new", plan(guidance_scale=7.5)[0])


@pytest.mark.parametrize(("now", "goes_on"), [(Settings("a red cube").eikonal, True), (7.5, False)])
def test_a_folder_from_before_there_was_a_setting_has_its_default(tmp_path: Path, now: float, goes_on: bool):
    grid.open_folder(tmp_path / "new", plan(eikonal=now)[0])
    path = tmp_path / "new" / "settings.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "eikonal"}))
    if goes_on:
        grid.open_folder(tmp_path / "new", plan(eikonal=now)[0])
    else:
        with pytest.raises(EvaluationError, match=r"eikonal is 30\.0 there and 7\.5 here"):
            grid.open_folder(tmp_path / "new", plan(eikonal=now)[0])


def test_a_folder_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another one has taken the place of the embedded model."""
    grid.open_folder(tmp_path / "new", plan()[0])
    (tmp_path / "models" / "toybox").mkdir(parents=True)
    (tmp_path / "models" / "toybox" / "model.safetensors").write_bytes(b"retrained")
    monkeypatch.setenv("DREAMTIME_MODEL_DIR", str(tmp_path / "models"))
    with pytest.raises(EvaluationError, match="weights is"):
        grid.open_folder(tmp_path / "new", plan()[0])


def test_the_embedded_model_is_known_by_the_bytes_of_its_weights():
    digest = hashlib.sha256()
    for path in sorted(WEIGHTS.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    assert grid.weights_of(plan()[0]) == digest.hexdigest()[:12]


@pytest.mark.parametrize("setting", ["prior", "lora", "embedding"])
@pytest.mark.parametrize("file", ["model.safetensors", "folder/unet/model.safetensors"])
def test_whatever_lies_on_this_disk_is_known_by_its_bytes(tmp_path: Path, setting: str, file: str):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    source = tmp_path / "folder" if "folder" in file else path
    cell = replace(plan()[0], **{"prior": "owner/model", setting: str(source)})
    path.write_bytes(b"trained")
    grid.open_folder(tmp_path / "new", cell)
    grid.open_folder(tmp_path / "new", cell)
    path.write_bytes(b"trained on")
    with pytest.raises(EvaluationError, match="weights is"):
        grid.open_folder(tmp_path / "new", cell)


def test_what_only_the_hub_has_is_known_by_its_id():
    assert grid.weights_of(replace(plan()[0], prior="owner/model", lora="owner/style")) == ""


@pytest.mark.parametrize("objective", ["vsd", "csd", "nfsd", "asd", "sdi", "ism"])
def test_a_folder_goes_on_with_other_numbers_of_steps(tmp_path: Path, objective: str):
    """With these objectives the preset derives the learning rate from the steps."""
    common = {"name": "standard", "device": "cpu", "objective": objective}
    short, long = (grid.plan(["a red cube"], ["uniform"], [steps], 1, **common)[0] for steps in (100, 400))
    assert short.learning_rate != long.learning_rate
    derived = grid.derived_from_steps(**common)
    assert derived == {"learning_rate"}
    for cell in (short, long):
        grid.open_folder(tmp_path / "new", cell, derived)
    # Who names a learning rate means that one for all steps.
    named = {**common, "learning_rate": short.learning_rate}
    assert grid.derived_from_steps(**named) == set()
    (cell,) = grid.plan(["a red cube"], ["uniform"], [100], 1, **named)
    with pytest.raises(EvaluationError, match=r"learning_rate is 'by the steps' there and 0\.024 here"):
        grid.open_folder(tmp_path / "new", cell, grid.derived_from_steps(**named))


def test_other_objectives_derive_nothing_from_the_steps():
    assert grid.derived_from_steps(name="draft", device="cpu") == set()
    assert grid.derived_from_steps(name="high", device="cpu", prior="owner/model", objective="vsd") == set()


def test_a_folder_with_something_else_is_refused(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(EvaluationError, match="no empty folder and none of an evaluation"):
        grid.open_folder(tmp_path, plan()[0])
    with pytest.raises(EvaluationError, match="no empty folder"):
        grid.open_folder(tmp_path / "thesis.tex", plan()[0])


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", "null"])
def test_a_damaged_folder_is_refused(tmp_path: Path, content: str):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(EvaluationError, match="is damaged"):
        grid.open_folder(tmp_path, plan()[0])
