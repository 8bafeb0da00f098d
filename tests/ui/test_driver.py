"""The driver goes on over slices that end, die or fail, as ZeroGPU's do (their errors as the real package raises them)."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import pytest
import torch

from dreamtime import presets, runs
from dreamtime.elevation import Estimate
from dreamtime.image_to_3d import image_preset
from dreamtime.preprocess import Reference
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.runs import Frame, Run, RunError
from dreamtime.ui import driver

Slice = Callable[[str, str, float], Iterator[Frame]]


class Disk:
    """A run's progress as its folder would keep it, and the slices that were asked for."""

    def __init__(self, script: list[tuple[int, Exception | None]]) -> None:
        self.script, self.saved, self.stop, self.slices, self.pictures = script, 0, False, 0, list[bool]()

    def gpu_slice(self, root: str, run_id: str, seconds: float, pictures: bool) -> Iterator[Frame]:
        """As many steps as the script says, then its error, if any."""
        steps, error = self.script[self.slices]
        self.slices += 1
        self.pictures.append(pictures)
        for _ in range(steps):
            self.saved += 1
            yield Frame(self.saved, 10, 500, 1.0, 1.0, 1.0, None, None)
        if error:
            raise error


@pytest.fixture
def run() -> Run:
    return Run(Path("/nowhere") / ("0" * 32), presets.preset("draft", prompt="a red cube", steps=10))


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[int, Exception | None]]], Disk]:
    def make(script: list[tuple[int, Exception | None]]) -> Disk:
        disk = Disk(script)
        monkeypatch.setattr(driver, "gpu_slice", disk.gpu_slice)
        monkeypatch.setattr(runs, "steps_done", lambda run: disk.saved)
        monkeypatch.setattr(runs, "stop_requested", lambda run: disk.stop)
        return disk

    return make


def killed() -> gr.Error:
    return gr.Error("GPU task aborted", title="ZeroGPU worker error")


def test_slices_follow_each_other_until_the_last_step(run: Run, on_disk: Callable[..., Disk]) -> None:
    disk = on_disk([(4, None), (4, None), (2, None)])
    assert [frame.step for frame in driver.drive(run)] == list(range(1, 11))
    assert disk.slices == 3


def test_a_killed_worker_is_replaced_as_long_as_there_is_progress(run: Run, on_disk: Callable[..., Disk]) -> None:
    disk = on_disk([(2, killed()), (2, killed()), (2, killed()), (2, killed()), (2, None)])
    assert [frame.step for frame in driver.drive(run)] == list(range(1, 11))
    assert disk.slices == 5


def test_workers_that_only_die_are_given_up(run: Run, on_disk: Callable[..., Disk]) -> None:
    disk = on_disk([(1, None)] + [(0, killed())] * 9)
    with pytest.raises(gr.Error, match="aborted"):
        list(driver.drive(run))
    assert disk.slices == 1 + driver.FAILURES + 1


def test_a_refusal_of_the_scheduler_ends_it_at_once(run: Run, on_disk: Callable[..., Disk]) -> None:
    disk = on_disk([(3, None), (0, gr.Error("You have exceeded your quota", title="ZeroGPU quota exceeded"))])
    with pytest.raises(gr.Error, match="quota"):
        list(driver.drive(run))
    assert disk.slices == 2


def test_a_run_that_went_wrong_says_so_as_a_run_does(run: Run, on_disk: Callable[..., Disk]) -> None:
    on_disk([(3, gr.Error("The loss is no longer a finite number.", title=driver.RUN_ERROR))])
    with pytest.raises(RunError, match=r"^The loss is no longer a finite number\.$"):
        list(driver.drive(run))


def test_a_stop_request_ends_it_after_the_slice(run: Run, on_disk: Callable[..., Disk]) -> None:
    disk = on_disk([(3, None), (7, None)])
    disk.stop = True
    assert [frame.step for frame in driver.drive(run)] == [1, 2, 3]


def test_a_finished_run_asks_for_no_gpu(run: Run, on_disk: Callable[..., Disk]) -> None:
    disk = on_disk([])
    disk.saved = 10
    assert list(driver.drive(run)) == []


def test_the_slice_reports_errors_in_the_form_that_crosses_processes(tmp_path: Path) -> None:
    with pytest.raises(gr.Error, match="no run with this id") as refusal:
        list(driver.gpu_slice(str(tmp_path), "0" * 32, 1.0, True))
    assert refusal.value.title == driver.RUN_ERROR


@pytest.mark.parametrize("pictures", [True, False])
def test_every_slice_knows_whether_somebody_watches(run: Run, on_disk: Callable[..., Disk], pictures: bool) -> None:
    disk = on_disk([(4, None), (6, None)])
    assert len(list(driver.drive(run, pictures))) == 10
    assert disk.pictures == [pictures] * 2


def test_a_prior_that_is_not_to_be_had_is_told_apart(run: Run, on_disk: Callable[..., Disk]) -> None:
    on_disk([(0, gr.Error("'owner/model' is not on the Hub.", title=driver.PRIOR_ERROR))])
    with pytest.raises(driver.PriorUnavailable, match="is not on the Hub"):
        list(driver.drive(run))


def test_the_slice_says_when_it_is_the_prior(monkeypatch, tmp_path: Path) -> None:
    def work(run: Run, seconds: float, pictures: bool) -> Iterator[Frame]:
        raise ModelUnavailable("owner/model", "is not on the Hub")
        yield

    monkeypatch.setattr(runs, "open_run", lambda root, run_id: None)
    monkeypatch.setattr(runs, "work", work)
    with pytest.raises(gr.Error, match="'owner/model' is not on the Hub") as refusal:
        list(driver.gpu_slice(str(tmp_path), "0" * 32, 1.0, True))
    assert refusal.value.title == driver.PRIOR_ERROR


REFERENCE = Reference(torch.ones(16, 16, 3), torch.ones(16, 16, 1))


def test_an_elevation_is_told_in_degrees(monkeypatch) -> None:
    monkeypatch.setattr(driver, "estimated_elevation", lambda settings, reference: Estimate(math.radians(30), {}))
    assert driver.elevation_found(image_preset("draft", "cpu"), REFERENCE) == 30


def test_an_estimate_without_its_prior_is_told_apart(monkeypatch) -> None:
    def unavailable(settings: presets.Settings, reference: Reference) -> Estimate:
        raise ModelUnavailable("owner/model", "is not on the Hub")

    monkeypatch.setattr(driver, "estimated_elevation", unavailable)
    with pytest.raises(driver.PriorUnavailable, match="'owner/model' is not on the Hub"):
        driver.elevation_found(image_preset("draft", "cpu"), REFERENCE)
