"""The whole page: header, tabs, footer, endpoints, and how it is served."""

from html import escape
from typing import Any

import gradio as gr

from dreamtime import runs
from dreamtime.ui import panels
from dreamtime.ui.api import add_endpoints
from dreamtime.ui.controls import QUIET, banner_of
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.picture_layout import PictureTab, picture_presets
from dreamtime.ui.picture_tab import picture_tab
from dreamtime.ui.schedule_tab import schedule_tab
from dreamtime.ui.server import PRIOR, Server, server_from_environment, start_housekeeping
from dreamtime.ui.stage import Stage
from dreamtime.ui.text_layout import TextTab, text_presets
from dreamtime.ui.text_tab import TAKE_PROMPT, text_tab
from dreamtime.ui.theme import LOGO, STYLE, theme
from dreamtime.ui.watching import Updates, shown

CACHE_SECONDS = (3600, 24 * 3600)  # how often Gradio's copies of files are looked through, and how old they get
MEASURING_SECONDS = 2.0


def build(server: Server) -> gr.Blocks:
    """The app, not yet served."""
    with gr.Blocks(title="DreamTime", analytics_enabled=False, delete_cache=CACHE_SECONDS, fill_width=True) as demo:
        banner = gr.HTML(banner_of(PRIOR), apply_default_css=False)
        with gr.Tabs() as tabs:
            with gr.Tab("From text", id="text") as first:
                told = text_tab(server, banner)
            with gr.Tab("From a picture", id="image") as second:
                pictured = picture_tab(server, banner)
            with gr.Tab("Schedules", id="schedules"):
                schedule_tab()
        gr.HTML(panels.footer(server.hours), apply_default_css=False)
        add_endpoints(server)
        for shown_tab, tab in ((first, told), (second, pictured)):
            shown_tab.select(banner_of, tab.prior, banner, queue=False, **QUIET)
        connect_page(demo, tabs, {"text": told.stage, "image": pictured.stage}, server)
        connect_estimates(told, pictured, server)
    return demo


def connect_page(demo: gr.Blocks, tabs: gr.Tabs, stages: dict[str, Stage], server: Server) -> None:
    """What happens as the page opens: a link to a run shows it on the tab of its task, and browsers remember their last."""

    def opened(last_from_text: str, last_from_picture: str, request: gr.Request) -> Updates:
        with one_sentence(escape):
            if (asked := request.query_params.get("run")) is None:
                return {stages["text"].run_id: last_from_text, stages["image"].run_id: last_from_picture}
            run = runs.open_run(server.root, asked)
            return shown(stages[run.settings.task], run) | {tabs: gr.Tabs(selected=run.settings.task)}

    written = [component for stage in stages.values() for component in stage.shown]
    demo.load(opened, [stage.last_run for stage in stages.values()], [tabs, *written], **QUIET)
    demo.load(None, js=TAKE_PROMPT, api_visibility="private")


def connect_estimates(told: TextTab, pictured: PictureTab, server: Server) -> None:
    """The presets say their time as soon as it is measured."""
    timer = gr.Timer(MEASURING_SECONDS)

    def measured(text_prior: str, method: str, picture_prior: str) -> list[Any]:
        choices = text_presets(server, text_prior, method), picture_presets(server, picture_prior)
        return [*map(gr.Radio, choices), gr.Timer(active=not server.pace.done)]

    priors = [told.prior, told.knobs["method"], pictured.prior]
    timer.tick(measured, priors, [told.preset, pictured.preset, timer], queue=False, **QUIET)


def launch() -> None:
    """Serve the app as the environment says (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, DREAMTIME_RUNS, DREAMTIME_KEEP_HOURS)."""
    server = server_from_environment()
    demo = build(server)
    demo.queue(max_size=20)
    start_housekeeping(server)
    demo.launch(
        theme=theme(),
        css_paths=[STYLE],
        favicon_path=LOGO,
        mcp_server=True,
        show_error=True,
        max_file_size="10mb",
        run_history=False,
        enable_monitoring=False,
        allowed_paths=[str(server.root)],
        footer_links=["api", "settings"],
    )
