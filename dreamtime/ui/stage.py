"""The stage of a tab: what a person watches while a run goes on, takes home when it is over, and finds again later."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from dreamtime.exports import radius_of_glb
from dreamtime.ui import panels
from dreamtime.ui.charts import loss_chart

DOWNLOADS = {"glb": "GLB", "zip": "OBJ + MTL + PNG", "ply": "PLY", "stl": "STL"}

DIRECTION = (70, 75)  # from where the viewer looks at first: about the vertical axis, and down from it, in degrees
FIELD_OF_VIEW = 0.8  # of the viewer's camera from top to bottom, in radians: Babylon's own
MARGIN = 1.1  # of the picture's height over a model's


def model_in_view(glb: Path) -> gr.Model3D:
    """The viewer with a model, from so far that all of it is seen from every side: left alone, it cuts off what is tall."""
    distance = MARGIN * radius_of_glb(glb) / math.sin(FIELD_OF_VIEW / 2)
    return gr.Model3D(str(glb), camera_position=(*DIRECTION, distance), visible=True)


@dataclass(frozen=True)
class Stage:
    """The components that a run writes to, whatever it started from."""

    name: str  # of the tab, in ids of the page

    go: gr.Button
    seed: gr.Number
    run_id: gr.Textbox
    resume: gr.Button
    show: gr.Button

    status: gr.HTML
    stop: gr.Button
    live: gr.HTML
    view: gr.HTML
    model: gr.Model3D
    schedule: gr.HTML
    loss: gr.HTML
    results: gr.Column
    turntable: gr.Video
    normals: gr.Video
    downloads: dict[str, gr.DownloadButton]  # by kind of file
    words: gr.HTML

    current: gr.State  # id of this page's run
    last_run: gr.BrowserState  # id of this browser's last run

    @property
    def shown(self) -> list[Block]:
        """Everything that a run writes to."""
        stage = [self.status, self.live, self.view, self.model, self.schedule, self.loss, self.results, self.words]
        files = [self.turntable, self.normals, *self.downloads.values()]
        return [*stage, *files, self.go, self.stop, self.seed, self.run_id, self.current, self.last_run]


def id_of(name: str) -> str:
    """What the page calls a stage."""
    return f"dt-stage-{name}"


def build_stage(name: str, invitation: str, idle: str, schedule: str, steps: int, left: Mapping[str, Any]) -> Stage:
    """Build it beside the controls that it needs: `go`, `seed`, `run_id`, `resume` and `show` of `left`.

    Until the first run it shows an invitation, the HTML `idle` in the place of the object, and the schedule's chart.
    """
    plain: dict[str, Any] = {"apply_default_css": False}
    with gr.Row(equal_height=True):
        with gr.Column(scale=9, min_width=260):
            status = gr.HTML(panels.status("Ready", [invitation]), **plain)
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=110, visible=False)
    with gr.Row(elem_classes="dt-views"):
        with gr.Column(min_width=300):
            live = gr.HTML(idle, **plain)
        with gr.Column(min_width=300):
            view = gr.HTML(panels.picture("Then it stands here, to turn and to download."), **plain)
            # Hidden, not absent: a viewer that appears together with its value stays blank (Gradio 6.31).
            model = gr.Model3D(label="3D model", camera_position=(*DIRECTION, None), elem_classes="dt-model", visible="hidden")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            chart = gr.HTML(schedule, **plain)
        with gr.Column(scale=2, min_width=260):
            loss = gr.HTML(loss_chart([], steps), **plain)
    with gr.Column(visible=False) as results:
        turntable, normals, downloads = files_to_take_home()
        words = gr.HTML(**plain)
    # The secret hides nothing: a browser's own run ids are no secret to it. Without one they are lost at every restart.
    last_run = gr.BrowserState("", storage_key=f"dreamtime-last-{name}", secret="dreamtime")
    parts = {"status": status, "stop": stop, "live": live, "view": view, "model": model, "schedule": chart, "loss": loss}
    parts |= {"results": results, "turntable": turntable, "normals": normals, "downloads": downloads, "words": words}
    needed = {control: left[control] for control in ("go", "seed", "run_id", "resume", "show")}
    return Stage(name, **needed, **parts, current=gr.State(""), last_run=last_run)


def files_to_take_home() -> tuple[gr.Video, gr.Video, dict[str, gr.DownloadButton]]:
    """Both turntables and a button for every format."""
    with gr.Row():
        video: dict[str, Any] = {"loop": True, "autoplay": True, "buttons": ["download"], "height": 280, "min_width": 200}
        video["elem_classes"] = "dt-video"
        turntable = gr.Video(label="Turntable", **video)
        normals = gr.Video(label="Turntable, normals", **video)
        with gr.Column(min_width=200, elem_classes="dt-downloads"):
            downloads = {kind: gr.DownloadButton(f"Download {what}", min_width=120) for kind, what in DOWNLOADS.items()}
    return turntable, normals, downloads
