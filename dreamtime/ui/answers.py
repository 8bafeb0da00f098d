"""What programs are told about a run: the stream of its outputs, its state, and where its files are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.route_utils import get_request_origin
from PIL import Image

from dreamtime import beforehand, runs
from dreamtime.elevation import height_in_words
from dreamtime.runs import Result, Run
from dreamtime.ui.driver import drive
from dreamtime.ui.server import Server

FILES = ("glb", "zip", "ply", "stl", "turntable", "normals", "picture")


def notes(run: Run, made: Result) -> list[str]:
    """What to know about a result: of its prompt, and of its mesh."""
    return [*beforehand.advice(run.settings), *made.notes]


def stream(server: Server, run: Run) -> Iterator[tuple[Any, ...]]:
    """Work on a run and deliver it, as the outputs of `/text_to_3d` and `/image_to_3d`; the last ones are complete."""
    rest = (gr.skip(),) * 5
    taken = f", the picture taken from {height_in_words(run.settings.elevation)}" if run.settings.task == "image" else ""
    told = ". ".join([f"preparing{taken}", *beforehand.advice(run.settings)])
    with runs.attended(run):
        step = runs.steps_done(run)
        yield run.id, run.settings.seed, step, told, *rest
        for frame in drive(run):
            step = frame.step
            if frame.preview is not None:
                status = f"step {frame.step} of {frame.steps}, t = {frame.t}, about {frame.remaining:.0f} s left"
                yield run.id, run.settings.seed, step, status, Image.fromarray(frame.preview.numpy()), *rest[1:]
        yield run.id, run.settings.seed, step, "making the mesh", *rest
        made = server.deliver(run)
    status = "finished" if made.steps == run.settings.steps else "stopped"
    files = {kind: str(made.files[kind]) for kind in FILES}
    statistics = {**made.statistics, "notes": notes(run, made)}
    others = [files[kind] for kind in FILES if kind not in ("turntable", "picture")]
    yield run.id, run.settings.seed, made.steps, status, files["picture"], files["glb"], files["turntable"], others, statistics


def waited_for(run: Run, request: gr.Request, progress: gr.Progress) -> dict[str, Any]:
    """The run worked on to its end and delivered, as one answer.

    Its progress tells the run's id, without which nobody could stop it: it goes on where the one who waits has left.
    """
    with runs.attended(run):
        progress((0, run.settings.steps), desc=f"run {run.id}, preparing", unit="steps")
        for frame in drive(run, pictures=False):
            progress((frame.step, frame.steps), desc=f"run {run.id}, optimising", unit="steps")
        runs.deliver(run)  # its pace says nothing about runs that are watched
    return described(run, request)


def state_of(run: Run) -> str:
    """What a run is doing: running, making the mesh, finished, stopped, or unfinished.

    Whoever resumes an unfinished one goes on with it, or makes its mesh where nothing else is left to do.
    """
    if runs.mesh_is_made(run):
        return "making the mesh"
    if runs.goes_on(run):
        return "running"
    if (made := runs.delivered(run)) is None:
        return "unfinished"
    if made.steps == run.settings.steps:
        return "finished"
    return "stopped" if runs.stop_requested(run) else "unfinished"


def address_of(path: Path, request: gr.Request) -> str:
    """Where a file of a run can be fetched, as whoever asks sees this server."""
    origin = get_request_origin(request.request, request.request.url.path)
    return f"{str(origin).rstrip('/')}/gradio_api/file={quote(path.as_posix())}"


def described(run: Run, request: gr.Request) -> dict[str, Any]:
    """What a run is and has, in plain values."""
    settings, state = run.settings, state_of(run)
    made = runs.delivered(run)  # after its state: whoever reads that it is finished has the files, too
    step = runs.steps_done(run) if made is None else made.steps
    values = {"run_id": run.id, "state": state, "step": step, "steps": settings.steps}
    values |= {"prompt": settings.prompt, "seed": settings.seed}
    values |= {"elevation": settings.elevation} if settings.task == "image" else {}
    if made is not None:
        values |= {f"{kind}_url": address_of(made.files[kind], request) for kind in ("glb", "turntable", "picture")}
        values |= {"statistics": made.statistics, "notes": notes(run, made)}
    return values
