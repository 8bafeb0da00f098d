"""The named endpoints for programs, and the tools for MCP clients; their docstrings are their documentation.

Bounds are written in the docstrings because clients see little else. A run asked for here is a run like any other: it can be
stopped, resumed and looked at by its id, also on the page.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from dreamtime import presets, runs
from dreamtime.diffusion import alphas_cumprod_from_betas
from dreamtime.runs import Run
from dreamtime.ui.driver import drive
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.server import RUNNING, Server
from dreamtime.ui.widgets import KNOBS, PRESET_NAMES, checked_choices, settings_of

FILES = ("glb", "zip", "ply", "stl", "turntable", "normals", "picture")


def stream(run: Run) -> Iterator[tuple[Any, ...]]:
    """Work on a run and deliver it, as the outputs of `/text_to_3d`; the last ones are complete."""
    rest = (gr.skip(),) * 5
    yield run.id, run.settings.seed, runs.steps_done(run), "preparing", *rest
    step = 0
    for frame in drive(run):
        step = frame.step
        if frame.preview is not None:
            status = f"step {frame.step} of {frame.steps}, t = {frame.t}, about {frame.remaining:.0f} s left"
            yield run.id, run.settings.seed, step, status, Image.fromarray(frame.preview.numpy()), *rest[1:]
    yield run.id, run.settings.seed, step, "making the mesh", *rest
    made = runs.deliver(run)
    status = "finished" if made.steps == run.settings.steps else "stopped"
    files = {kind: str(made.files[kind]) for kind in FILES}
    statistics = {**made.statistics, "notes": list(made.notes)}
    others = [files[kind] for kind in FILES if kind not in ("turntable", "picture")]
    yield run.id, run.settings.seed, made.steps, status, files["picture"], files["glb"], files["turntable"], others, statistics


def file_data(path: str) -> dict[str, Any]:
    """A file as Gradio's clients understand it: they see its address, or download it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def state_of(run: Run) -> str:
    """What a run is doing: running, finished, stopped, or unfinished (resume goes on)."""
    try:
        with runs.working_on(run):
            pass
    except runs.RunError:
        return "running"
    if runs.steps_done(run) == run.settings.steps:
        return "finished"
    return "stopped" if runs.stop_requested(run) else "unfinished"


def described(run: Run) -> dict[str, Any]:
    """What a run is and has, as plain values and files."""
    settings, made = run.settings, runs.delivered(run)
    values = {"run_id": run.id, "state": state_of(run), "step": runs.steps_done(run), "steps": settings.steps}
    values |= {"prompt": settings.prompt, "seed": settings.seed}
    if made is not None:
        values |= {kind: file_data(str(made.files[kind])) for kind in ("glb", "turntable", "picture")}
        values |= {"statistics": made.statistics, "notes": list(made.notes)}
    return values


@dataclass(frozen=True)
class Endpoints:
    """The functions behind the endpoints, for one server."""

    server: Server

    def opened(self, run_id: Any) -> Run:
        return runs.open_run(self.server.root, run_id)

    def text_to_3d(
        self,
        prompt: str,
        preset: str = "standard",
        prior: str = "toybox",
        seed: int = 0,
        schedule: str | None = None,
        steps: int | None = None,
        m: float | None = None,
        s: float | None = None,
        t_min: int | None = None,
        t_max: int | None = None,
        fixed_t: int | None = None,
        table: str | None = None,
        guidance_scale: float | None = None,
        weighting: str | None = None,
        negative_prompt: str | None = None,
        representation: str | None = None,
        background: str | None = None,
        views: int | None = None,
        albedo_share: float | None = None,
        textureless_share: float | None = None,
        light_spread: float | None = None,
        ambient: float | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Turn a prompt into a textured 3D model. Streams: the run id comes first, then a preview about twice a second, at the end the files. Every option that is left out keeps the preset's value; the same arguments give the same model.

        Parameters:
            prompt: What to make, one object in up to 400 characters, for example "a red cube".
            preset: "draft", "standard" or "high": how much time to spend.
            prior: The diffusion model: "toybox" is embedded, the others need a GPU.
            seed: Whole number from 0 to 2147483647 that decides all chance.
            schedule: Timestep schedule, for example "time-prioritized" or "uniform".
            steps: Optimisation steps, 1 to 20000.
            m: Centre of the prior weight W_p in timesteps, -1000 to 2000.
            s: Width of the prior weight W_p in timesteps, 1 to 10000.
            t_min: Smallest timestep, 0 to 999.
            t_max: Largest timestep, 0 to 999.
            fixed_t: The timestep of the schedule "fixed", 0 to 999.
            table: The falling timesteps of the schedule "custom", commas between.
            guidance_scale: Classifier-free guidance, 0 to 1000; 1 is none.
            weighting: The gradient's weight w(t): "sds", "uniform" or "fantasia3d".
            negative_prompt: What to steer away from.
            representation: "feature-grid", "hash-grid" or "mlp".
            background: "grey", "color" or "environment".
            views: Images per step, 1 to 16.
            albedo_share: Share of the steps rendered without light, 0 to 1.
            textureless_share: Share of the steps rendered white, 0 to 1.
            light_spread: How far the light strays from the camera in scene units, 0 to 10.
            ambient: Mean share of ambient light, 0 to 1.
        """
        values = locals()
        with one_sentence():
            settings = settings_of(prompt, preset, prior, seed, {name: values[name] for name in KNOBS})
            yield from stream(runs.create_run(self.server.root, settings))

    def resume(self, run_id: str) -> Iterator[tuple[Any, ...]]:
        """Go on with a stopped or interrupted run on the same schedule; streams as /text_to_3d does.

        Parameters:
            run_id: The run's id, 32 hexadecimal digits.
        """
        with one_sentence():
            run = self.opened(run_id)
            runs.clear_stop(run)
            yield from stream(run)

    def stop_run(self, run_id: str) -> str:
        """Ask a run to stop after its current step. The mesh of what is there is still delivered, by the call that runs it.

        Parameters:
            run_id: The run's id, 32 hexadecimal digits.
        """
        with one_sentence():
            runs.request_stop(self.opened(run_id))
        return "stopping"

    def run_status(self, run_id: str) -> dict:
        """What a run is doing (running, finished, stopped, unfinished), how far it is, and its files once they exist.

        Parameters:
            run_id: The run's id, 32 hexadecimal digits.
        """
        with one_sentence():
            return described(self.opened(run_id))

    def schedule(
        self,
        name: str = "time-prioritized",
        steps: int = 400,
        m: float = 500.0,
        s: float = 125.0,
        t_min: int | None = None,
        t_max: int | None = None,
        fixed_t: int | None = None,
        table: str | None = None,
    ) -> dict:
        """The timestep t of every optimisation step under a schedule, on Stable Diffusion's noise levels. A schedule that draws its t gives the bounds "low" and "high" of every step instead of "t".

        Parameters:
            name: Timestep schedule, for example "time-prioritized", "uniform" or "linear".
            steps: Number of steps, 1 to 20000.
            m: Centre of the prior weight W_p in timesteps, -1000 to 2000.
            s: Width of the prior weight W_p in timesteps, 1 to 10000.
            t_min: Smallest timestep, 0 to 999.
            t_max: Largest timestep, 0 to 999.
            fixed_t: The timestep of the schedule "fixed", 0 to 999.
            table: The falling timesteps of the schedule "custom", commas between.
        """
        given = {"steps": steps, "m": m, "s": s, "t_min": t_min, "t_max": t_max, "fixed_t": fixed_t, "table": table}
        with one_sentence():
            chosen = checked_choices({"schedule": name, **given})
            name, steps = chosen.pop("schedule"), chosen.pop("steps")
            timetable = presets.timetable(name, alphas_cumprod_from_betas("scaled_linear"), steps, **chosen)
        low, high = timetable.low.tolist(), timetable.high.tolist()
        return {"name": name, "steps": steps, **({"low": low, "high": high} if timetable.random else {"t": low})}

    def generate_3d(
        self,
        prompt: str,
        preset: str = "draft",
        seed: int = 0,
        schedule: str | None = None,
        steps: int | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Turn a prompt into a textured 3D model and wait for it: one answer with the run id, the GLB file, a turntable video, a picture and statistics. Takes from seconds to minutes; choose the preset "draft" if the client is impatient.

        Parameters:
            prompt: What to make, one object in up to 400 characters, for example "a red cube".
            preset: "draft", "standard" or "high": how much time to spend.
            seed: Whole number from 0 to 2147483647 that decides all chance.
            schedule: Timestep schedule, for example "time-prioritized" or "uniform".
            steps: Optimisation steps, 1 to 20000; the preset's when left out.
        """
        with one_sentence():
            settings = settings_of(prompt, preset, "toybox", seed, {"schedule": schedule, "steps": steps})
            run = runs.create_run(self.server.root, settings)
            for frame in drive(run):
                progress((frame.step, frame.steps), desc="optimising", unit="steps")
            runs.deliver(run)
            return described(run)


def streamed_outputs() -> list[gr.components.Component]:
    """The outputs of the streaming endpoints: never on the page, but with the labels that name them for programs."""
    return [
        gr.Textbox(label="Run id", visible=False),
        gr.Number(label="Seed", visible=False),
        gr.Number(label="Step", visible=False),
        gr.Textbox(label="Status", visible=False),
        gr.Image(label="Preview", format="webp", visible=False),
        gr.Model3D(label="Mesh", visible=False),
        gr.Video(label="Turntable", visible=False),
        gr.Files(label="Files", visible=False),
        gr.JSON(label="Statistics", visible=False),
    ]


def add_endpoints(server: Server) -> None:
    """Give the app its named endpoints; those that stream are for clients that can follow a stream, not for MCP."""
    endpoints = Endpoints(server)
    outputs = streamed_outputs()
    prompt = gr.Textbox(label="Prompt", visible=False)
    preset = gr.Dropdown(list(PRESET_NAMES), value="standard", label="Preset", visible=False)
    draft = gr.Dropdown(list(PRESET_NAMES), value="draft", label="Preset", visible=False)
    prior = gr.Dropdown(list(presets.PRIORS), value="toybox", label="Prior", visible=False)
    seed = gr.Number(0, label="Seed", precision=0, visible=False)
    options = {name: knob.widget(None, visible=False) for name, knob in KNOBS.items()}
    run_id = gr.Textbox(label="Run id", visible=False)
    answer = gr.JSON(label="Result", visible=False)
    hidden = gr.Button(visible=False)
    hidden.click(endpoints.text_to_3d, [prompt, preset, prior, seed, *options.values()], outputs, api_name="text_to_3d", **RUNNING)
    hidden.click(endpoints.resume, run_id, outputs, api_name="resume", **RUNNING)
    short = [prompt, draft, seed, options["schedule"], options["steps"]]
    hidden.click(endpoints.generate_3d, short, answer, api_name="generate_3d", **RUNNING)
    gr.api(endpoints.stop_run, api_name="stop", queue=False)
    gr.api(endpoints.run_status, api_name="run_status", queue=False)
    gr.api(endpoints.schedule, api_name="schedule", queue=False)
