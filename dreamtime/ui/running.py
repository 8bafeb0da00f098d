"""What every tab does with runs: start one, follow it, stop it, resume it, show it again."""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamtime import beforehand, runs
from dreamtime.preprocess import Reference
from dreamtime.presets import Settings
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.priors.hub import short_name
from dreamtime.runs import Run
from dreamtime.ui import panels
from dreamtime.ui.controls import QUIET
from dreamtime.ui.driver import PriorUnavailable
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.server import RUNNING, Server, device_in_words
from dreamtime.ui.stage import Stage, id_of
from dreamtime.ui.watching import Updates, model_of, shown, watch

ADVICE_SECONDS = 12.0  # that a notice stays; it stands in the result, too


def show_stage(name: str) -> str:
    """On a phone the stage lies below the controls: JavaScript that brings it into view as a run begins."""
    into_view = f'document.getElementById("{id_of(name)}").scrollIntoView({{behavior: "smooth"}})'
    return f"() => {{ if (window.innerWidth < 900) setTimeout(() => {into_view}, 100) }}"


def advise(settings: Settings) -> None:
    """Show what to know before such a run; a long list would hide the page, and stands in the result."""
    for advice in beforehand.advice(settings):
        short = advice.replace(beforehand.what_it_knows(), "What it knows stands beside the result.")
        gr.Info(escape(short), duration=ADVICE_SECONDS, title="Good to know")


def told_that_it_goes_on(run: Run) -> bool:
    """Whether a run that somebody wants to see still goes on; if so, that is said."""
    if going := runs.goes_on(run):
        gr.Info("This run goes on: its result comes when it is done or stopped.", title="Not yet")
    return going


def start(
    stage: Stage,
    banner: gr.HTML,
    server: Server,
    settings: Settings,
    instead: Settings,
    reference: Reference | None = None,
    reframed: Reference | None = None,
) -> Iterator[Updates]:
    """Run the settings; where their prior is not to be had, say so and run the others, which have embedded ones.

    `reframed` is the picture as those are to be shown it.
    """
    try:
        advise(settings)
        yield from watch(stage, server, runs.create_run(server.root, settings, reference))
    except (ModelUnavailable, PriorUnavailable) as error:
        if (settings.prior, settings.text_prior) == (instead.prior, instead.text_prior):
            raise
        priors = " and ".join(filter(None, [settings.prior, settings.text_prior]))
        gr.Warning(escape(f"{error} The embedded model runs instead."), duration=ADVICE_SECONDS, title="Another prior")
        yield {banner: panels.header(instead.prior, device_in_words(), f"instead of {priors}: {error}")}
        advise(instead)
        yield from watch(stage, server, runs.create_run(server.root, instead, reframed))


def in_use_by(run: Run) -> str:
    """The banner of a run that is taken up again: its own prior, whatever the menu says."""
    prior, beside = short_name(run.settings.prior), short_name(run.settings.text_prior)
    return panels.header(f"{prior} with {beside}" if beside else prior, run.settings.device, "of this run")


def connect_runs(
    stage: Stage,
    server: Server,
    events: Sequence[Any],
    pressed: Callable[..., Iterator[Updates]],
    inputs: Sequence[Component],
    banner: gr.HTML,
    outputs: Sequence[Component] = (),
) -> list[Any]:
    """Connect a tab's way to start a run, which writes to `outputs` beside the stage and the banner, and all that comes after.

    Returns the events that end with a run, for the tab to go on with.
    """

    def resume_pressed(run_id: str) -> Iterator[Updates]:
        with one_sentence(escape):
            run = runs.open_run(server.root, run_id.strip())
            runs.clear_stop(run)
            yield {banner: in_use_by(run)}
            yield from watch(stage, server, run)

    def show_pressed(run_id: str) -> Updates:
        with one_sentence(escape):
            run = runs.open_run(server.root, run_id.strip())
            return {stage.status: gr.skip()} if told_that_it_goes_on(run) else {banner: in_use_by(run), **shown(stage, run)}

    def model_ready(run_id: str) -> Updates:
        with one_sentence(escape):
            return model_of(stage, runs.open_run(server.root, run_id))

    def stop_pressed(run_id: str) -> str:
        with one_sentence(escape):
            runs.request_stop(runs.open_run(server.root, run_id))
        return panels.status("Stopping…", ["the mesh of what is there follows"], busy=True)

    visible: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": [stage.status]}
    # Listeners of one event run one after the other: what only moves the page comes before what takes minutes.
    gr.on([*events, stage.resume.click], None, js=show_stage(stage.name), api_visibility="private")
    started = gr.on(events, pressed, inputs, [*stage.shown, banner, *outputs], **RUNNING, **visible)
    resumed = stage.resume.click(resume_pressed, stage.run_id, [*stage.shown, banner], **RUNNING, **visible)
    for event in (started, resumed):
        event.success(model_ready, stage.current, [stage.view, stage.model], **QUIET)
    stage.show.click(show_pressed, stage.run_id, [*stage.shown, banner], **visible)
    stage.stop.click(stop_pressed, stage.current, stage.status, queue=False, **QUIET)
    return [started, resumed]
