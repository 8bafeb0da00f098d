"""The whole page: header, tabs, footer, endpoints, and how it is served."""

import math
import sys
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from dreamtime import runs
from dreamtime.ui import panels
from dreamtime.ui.api import add_endpoints
from dreamtime.ui.bodies import BoundsBodies
from dreamtime.ui.controls import QUIET, banner_of, quiet
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.fetching import MAX_BYTES
from dreamtime.ui.picture_api import add_picture_endpoints
from dreamtime.ui.picture_layout import PictureTab, picture_presets
from dreamtime.ui.picture_tab import NAME_EXAMPLES, picture_again, picture_tab
from dreamtime.ui.privacy import ServesResultsAlone
from dreamtime.ui.running import told_that_it_goes_on
from dreamtime.ui.schedule_tab import schedule_tab
from dreamtime.ui.server import Server, server_from_environment, start_housekeeping
from dreamtime.ui.stage import Stage
from dreamtime.ui.text_layout import EXAMPLES, TextTab, text_presets
from dreamtime.ui.text_tab import TAKE_PROMPT, prompt_again, text_tab
from dreamtime.ui.theme import LOGO, STYLE, theme
from dreamtime.ui.watching import Updates, model_of, shown
from dreamtime.ui.widgets import AUTOMATIC

MEASURING_SECONDS = 2.0


def cache_seconds(hours: float) -> tuple[int, int]:
    """How often Gradio's copies of files are looked through, and how old they get: as old as runs, a day where those stay."""
    age = max(round(3600 * hours), 60) if hours < math.inf else 24 * 3600
    return min(max(age // 24, 60), 3600), age


def build(server: Server) -> gr.Blocks:
    """The app, not yet served."""
    cache = cache_seconds(server.hours)
    with gr.Blocks(title="DreamTime", analytics_enabled=False, delete_cache=cache, fill_width=True) as demo:
        banner = gr.HTML(banner_of(AUTOMATIC), apply_default_css=False)
        with gr.Tabs() as tabs:
            with gr.Tab("From text", id="text") as first:
                told = text_tab(server, banner)
            with gr.Tab("From a picture", id="image") as second:
                pictured = picture_tab(server, banner)
            with gr.Tab("Schedules", id="schedules"):
                schedule_tab()
        gr.HTML(panels.footer(server.hours), apply_default_css=False)
        add_endpoints(server)
        add_picture_endpoints(server)
        for shown_tab, tab in ((first, told), (second, pictured)):
            shown_tab.select(banner_of, tab.prior, banner, queue=False, **QUIET)
        second.select(None, js=NAME_EXAMPLES, api_visibility="private")
        opened = connect_page(demo, tabs, told, pictured, server)
        connect_estimates(opened, told, pictured, server)
    return demo


def connect_page(demo: gr.Blocks, tabs: gr.Tabs, told: TextTab, pictured: PictureTab, server: Server) -> Any:
    """What happens as the page opens: a link to a run shows it on the tab of its task, and browsers remember their last.

    Returns the event, for others to go on with.
    """
    stages: dict[str, Stage] = {"text": told.stage, "image": pictured.stage}

    def opened(last_from_text: str, last_from_picture: str, request: gr.Request) -> Updates:
        with one_sentence(escape):
            remembered = {stages["text"].run_id: last_from_text, stages["image"].run_id: last_from_picture}
            if (asked := request.query_params.get("run")) is None:
                return remembered
            run = runs.open_run(server.root, asked)
            if told_that_it_goes_on(run):
                return remembered
            stage = stages[run.settings.task]
            controls = picture_again(pictured, run) if run.settings.task == "image" else prompt_again(told, run)
            page = shown(stage, run) | controls | {tabs: gr.Tabs(selected=run.settings.task), stage.current: run.id}
            return {component: value for component, value in page.items() if component not in (stage.view, stage.model)}

    def model_ready(*run_ids: str) -> Updates:
        with one_sentence(escape):
            updates: Updates = {}
            for stage, run_id in zip(stages.values(), run_ids, strict=True):
                updates |= model_of(stage, runs.open_run(server.root, run_id)) if run_id else {stage.model: gr.skip()}
            return updates

    written = [*told.stage.shown, *pictured.stage.shown, *told.asked, *pictured.asked]
    last = [stage.last_run for stage in stages.values()]
    first = demo.load(opened, last, [tabs, *dict.fromkeys(written)], **quiet(told.banner))
    # A viewer that appears with its tab stays blank (Gradio 6.31), so the model comes when the tab is there.
    viewers = [component for stage in stages.values() for component in (stage.view, stage.model)]
    first.success(model_ready, [stage.current for stage in stages.values()], viewers, **QUIET)
    demo.load(None, js=TAKE_PROMPT, api_visibility="private")
    return first


def connect_estimates(opened: Any, told: TextTab, pictured: PictureTab, server: Server) -> None:
    """The presets say their time as soon as it is measured, and once a link has chosen another prior."""
    timer = gr.Timer(MEASURING_SECONDS)

    def measured(text_prior: str, method: str, picture_prior: str) -> list[Any]:
        choices = text_presets(server, text_prior, method), picture_presets(server, picture_prior)
        return [*map(gr.Radio, choices), gr.Timer(active=not server.pace.done)]

    priors = [told.prior, told.knobs["method"], pictured.prior]
    for event in (opened.success, timer.tick):
        event(measured, priors, [told.preset, pictured.preset, timer], queue=False, **QUIET)


def launch() -> None:
    """Serve the app as the environment says (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, DREAMTIME_RUNS, DREAMTIME_KEEP_HOURS)."""
    try:
        server = server_from_environment()
    except ValueError as error:
        sys.exit(f"dreamtime: {error}")
    demo, public = build(server), (EXAMPLES, Path(get_upload_folder()))
    demo.queue(max_size=20)
    start_housekeeping(server)
    try:
        demo.launch(
            theme=theme(),
            css_paths=[STYLE],
            favicon_path=LOGO,
            mcp_server=True,
            show_error=True,
            max_file_size=MAX_BYTES,
            run_history=False,
            enable_monitoring=False,
            allowed_paths=[str(server.root), str(EXAMPLES)],
            num_workers=0,  # others would serve files without what follows
            app_kwargs={
                "middleware": [Middleware(BoundsBodies), Middleware(ServesResultsAlone, root=server.root, public=public)]
            },
            footer_links=["api", "settings"],
        )
    except OSError as error:  # all ports that it may take are taken
        sys.exit(f"dreamtime: {error}")
