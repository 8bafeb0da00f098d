"""The whole page: header, tabs, footer, endpoints, and how it is served."""

from html import escape
from typing import Any

import gradio as gr

from dreamtime import runs
from dreamtime.ui import panels
from dreamtime.ui.api import add_endpoints
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.schedule_tab import schedule_tab
from dreamtime.ui.server import PRIOR, Server, server_from_environment, start_housekeeping
from dreamtime.ui.text_layout import TextTab, banner_of, preset_choices
from dreamtime.ui.text_tab import QUIET, TAKE_PROMPT, text_tab
from dreamtime.ui.theme import LOGO, STYLE, theme
from dreamtime.ui.watching import Updates, shown

CACHE_SECONDS = (3600, 24 * 3600)  # how often Gradio's copies of files are looked through, and how old they get
MEASURING_SECONDS = 2.0


def build(server: Server) -> gr.Blocks:
    """The app, not yet served."""
    with gr.Blocks(title="DreamTime", analytics_enabled=False, delete_cache=CACHE_SECONDS, fill_width=True) as demo:
        banner = gr.HTML(banner_of(PRIOR), apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Create", id="create"):
                tab = text_tab(server, banner)
            with gr.Tab("Schedules", id="schedules"):
                schedule_tab()
        gr.HTML(panels.footer(server.hours), apply_default_css=False)
        add_endpoints(server)
        connect_page(demo, tab, server)
    return demo


def connect_page(demo: gr.Blocks, tab: TextTab, server: Server) -> None:
    """What happens as the page opens, and what its banner follows."""
    timer = gr.Timer(MEASURING_SECONDS)

    def opened(last_run: str, request: gr.Request) -> Updates:
        with one_sentence(escape):
            asked = request.query_params.get("run")
            return shown(tab, runs.open_run(server.root, asked)) if asked else {tab.run_id: last_run}

    def measured(prior: str, method: str) -> list[Any]:
        return [gr.Radio(preset_choices(server, prior, method)), gr.Timer(active=not server.pace.done)]

    demo.load(opened, tab.last_run, tab.shown, **QUIET)
    demo.load(None, js=TAKE_PROMPT, api_visibility="private")
    timer.tick(measured, [tab.prior, tab.knobs["method"]], [tab.preset, timer], queue=False, **QUIET)
    tab.prior.change(banner_of, tab.prior, tab.banner, queue=False, **QUIET)


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
