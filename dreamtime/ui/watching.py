"""What the page shows while a run goes on and when it is over, as updates of a tab's stage."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import gradio as gr

from dreamtime import assembly, runs
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.runs import Frame, Result, Run
from dreamtime.timesteps import stage_of
from dreamtime.ui import panels
from dreamtime.ui.charts import loss_chart, schedule_chart
from dreamtime.ui.driver import drive
from dreamtime.ui.server import Server
from dreamtime.ui.stage import Stage, model_in_view
from dreamtime.ui.widgets import seed_shown

Updates = dict[Any, Any]
"""Components to their new values; the others stay as they are."""

Curve = list[tuple[int, int, float]]
"""Step, t and loss, row by row."""


def begun(stage: Stage, run: Run) -> Updates:
    """The page as a run begins: its id and seed come first, so that nothing is lost whatever happens."""
    title = panels.title_of(run.settings)
    if run.preview.is_file():
        live = panels.picture_file(title, run.preview, "as it was left")
    elif run.reference.is_file():
        live = panels.picture_file(title, run.reference, "the picture's object, about to take shape")
    else:
        live = panels.picture(f"{title} is about to take shape.")
    return {
        stage.status: panels.status("Preparing", ["the first run loads the model"], busy=True),
        stage.live: live,
        stage.view: gr.HTML(panels.picture("Here you see what the prior is asked about."), visible=True),
        stage.model: gr.Model3D(visible="hidden"),
        stage.run_id: run.id,
        stage.current: run.id,
        stage.last_run: run.id,
        stage.seed: seed_shown(run.settings),
        stage.results: gr.Column(visible=False),
        stage.go: gr.Button(interactive=False),
        stage.stop: gr.Button(visible=True),
    }


def charts(stage: Stage, run: Run) -> Callable[[Curve], Updates]:
    """The schedule and the loss of a run, marked where its curve has come to.

    With an empty schedule where the run's prior, whose noise levels it is drawn with, is out of reach by now.
    """
    settings = run.settings
    try:
        alphas_cumprod, table = assembly.alphas_cumprod_of(settings.source), assembly.timetable_of(settings)
    except ModelUnavailable:
        return lambda rows: {stage.schedule: "", stage.loss: loss_chart(rows, settings.steps)}
    marked = schedule_chart(settings.schedule, alphas_cumprod, table, settings.m, settings.s)

    def at(rows: Curve) -> Updates:
        step, t = rows[-1][:2] if rows else (0, 0)
        return {stage.schedule: marked(step, t), stage.loss: loss_chart(rows, settings.steps)}

    return at


def progress(stage: Stage, run: Run) -> Callable[[Frame], Updates]:
    """Status and pictures of a frame; the run's prior is asked for its noise levels at the first one."""
    settings = run.settings
    gradient = cache(lambda: panels.stage_gradient(assembly.timetable_of(settings), settings.m, settings.s))

    def at(frame: Frame) -> Updates:
        band = stage_of(frame.t, settings.m, settings.s)
        words = f"{panels.title_of(settings)}, step {frame.step}"
        return {
            stage.status: panels.optimising(frame, band, gradient(), runs.stop_requested(run)),
            stage.live: panels.picture(words, frame.preview, "live, from a fixed camera"),
            stage.view: panels.picture("A random view of it", frame.view, "what the prior was shown"),
        }

    return at


def over(stage: Stage, headline: str, *details: str, share: float | None = None) -> Updates:
    """The page when nothing runs any more."""
    return {
        stage.status: panels.status(headline, details, share),
        stage.go: gr.Button(interactive=True),
        stage.stop: gr.Button(visible=False),
    }


def finished(stage: Stage, run: Run, made: Result) -> Updates:
    """The page with a result, all but the viewer."""
    steps, all_steps = made.steps, run.settings.steps
    if steps == all_steps:
        end = over(stage, "Finished", f"{steps:,} steps", share=1.0)
    else:
        left = f"the mesh is that of step {steps:,} of {all_steps:,}; Resume goes on"
        end = over(stage, "Stopped", left, share=steps / all_steps)
    return {
        **end,
        stage.turntable: str(made.files["turntable"]),
        stage.normals: str(made.files["normals"]),
        stage.words: panels.result(run, made),
        stage.results: gr.Column(visible=True),
        **{button: gr.DownloadButton(value=str(made.files[kind])) for kind, button in stage.downloads.items()},
    }


def model_of(stage: Stage, run: Run) -> Updates:
    """The viewer with a run's model, in the place of the prior's view.

    An event of its own brings it: a model that a generator's last yield hands to an empty viewer stays invisible (Gradio 6.31).
    """
    made = runs.delivered(run)
    if made is None:
        return {stage.model: gr.skip()}
    return {stage.view: gr.HTML(visible=False), stage.model: model_in_view(made.files["glb"])}


def watch(stage: Stage, server: Server, run: Run) -> Iterator[Updates]:
    """Work on a run and deliver it, telling the page about twice a second."""
    with runs.attended(run):
        yield begun(stage, run)
        try:
            rows = runs.curve_rows(run, runs.steps_done(run))
            charts_at, progress_at = charts(stage, run), progress(stage, run)
            for frame in drive(run):
                # A slice that was killed may be taken up a few steps earlier.
                rows[frame.step - 1 :] = [(frame.step, frame.t, frame.loss)]
                if frame.preview is not None:
                    yield progress_at(frame) | charts_at(rows)
            yield {stage.status: panels.status("Making the mesh", ["surface, texture, turntable"], busy=True)}
            made = server.deliver(run)
        except Exception:
            yield over(stage, "Not finished", "what was saved before is kept; Resume goes on")
            raise
    yield finished(stage, run, made)


def shown(stage: Stage, run: Run) -> Updates:
    """The page with the result of an earlier run, delivered now if it has not been yet."""
    made = runs.delivered(run)
    if made is None:
        with runs.attended(run):
            made = runs.deliver(run)
    picture = panels.picture_file(panels.title_of(run.settings), made.files["picture"], "the result")
    charted = charts(stage, run)(runs.curve_rows(run, made.steps))
    page = finished(stage, run, made) | model_of(stage, run) | charted
    return {**page, stage.live: picture, stage.run_id: run.id, stage.seed: seed_shown(run.settings)}
