"""Runs on borrowed GPUs: an undecorated driver in the main process calls short GPU slices until the run is done.

On a machine of one's own `spaces.GPU` changes nothing and a single slice does it all. On ZeroGPU a slice runs in another
process that the scheduler may kill without a word, so all state lives in the run's folder and the next slice goes on there.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import spaces

from dreamtime import runs
from dreamtime.elevation import Estimate
from dreamtime.image_to_3d import estimated_elevation
from dreamtime.preprocess import Reference
from dreamtime.presets import Settings
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.runs import Frame, Run, RunError

SLICE_SECONDS = 40  # declared for each GPU call; short slices wait less and fit an anonymous visitor's daily quota
SHARE_USED = 0.8  # of a slice, after which it ends itself and saves
FAILURES = 2  # slices in a row that may die without a step
RUN_ERROR = "The run stopped"
PRIOR_ERROR = "The prior is not to be had"
WORKER_ERROR = "ZeroGPU worker error"
BORROWED = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


class PriorUnavailable(RunError):
    """A run whose prior could not be loaded, with the reason in one sentence."""


@spaces.GPU(duration=SLICE_SECONDS)
def gpu_slice(root: str, run_id: str, seconds: float, pictures: bool) -> Iterator[Frame]:
    """Steps of one run for about so many seconds; arguments and frames cross a process boundary by pickling."""
    try:
        yield from runs.work(runs.open_run(Path(root), run_id), seconds, pictures)
    except ValueError as error:
        # Of all that a ZeroGPU worker can raise, only a gr.Error survives the way back.
        title = PRIOR_ERROR if isinstance(error, ModelUnavailable) else RUN_ERROR
        raise gr.Error(str(error), title=title, print_exception=False) from error


@spaces.GPU(duration=SLICE_SECONDS)
def gpu_estimate(settings: Settings, reference: Reference) -> Estimate:
    """From how high a picture was taken; arguments and result cross a process boundary by pickling."""
    try:
        return estimated_elevation(settings, reference)
    except ValueError as error:
        title = PRIOR_ERROR if isinstance(error, ModelUnavailable) else RUN_ERROR
        raise gr.Error(str(error), title=title, print_exception=False) from error


def elevation_found(settings: Settings, reference: Reference) -> float:
    """The elevation that a picture was taken from, in degrees, as the prior of the settings sees it."""
    try:
        return round(math.degrees(gpu_estimate(settings, reference).elevation), 1)
    except gr.Error as error:
        if error.title == PRIOR_ERROR:
            raise PriorUnavailable(error.message) from error
        raise


def drive(run: Run, pictures: bool = True) -> Iterator[Frame]:
    """The steps of a run until its last one or a stop request, over as many slices as it takes."""
    seconds = SHARE_USED * SLICE_SECONDS if BORROWED else math.inf
    failures = 0
    while (reached := runs.steps_done(run)) < run.settings.steps:
        try:
            yield from gpu_slice(str(run.folder.parent), run.id, seconds, pictures)
        except gr.Error as error:
            if error.title == PRIOR_ERROR:
                raise PriorUnavailable(error.message) from error
            if error.title == RUN_ERROR:
                raise RunError(error.message) from error
            failures = 0 if runs.steps_done(run) > reached else failures + 1
            if error.title != WORKER_ERROR or failures > FAILURES:
                raise
        if runs.stop_requested(run):
            return
