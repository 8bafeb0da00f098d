"""The named endpoints for programs, and the tools for MCP clients; their docstrings are their documentation.

Bounds are written there because clients see little else. A run asked for here is a run like any other: it can be
stopped, resumed and looked at by its id, also on the page.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter, getdoc, signature
from typing import Any, TypeVar

import gradio as gr
from gradio.components import Component

from dreamtime import presets, runs
from dreamtime.diffusion import alphas_cumprod_from_betas
from dreamtime.runs import Run
from dreamtime.ui.answers import described, stream, waited_for
from dreamtime.ui.errors import one_sentence
from dreamtime.ui.server import RUNNING, Server
from dreamtime.ui.widgets import (
    AUTOMATIC,
    KNOBS,
    PRESET_NAMES,
    PRIOR_NAMES,
    SCHEDULING,
    Knob,
    SentText,
    check_effect,
    checked_choices,
    settings_of,
)

SCHEDULE_OPTIONS: dict[str, Any] = dict.fromkeys(SCHEDULING) | {"steps": presets.SCHEDULE_STEPS}
del SCHEDULE_OPTIONS["schedule"]

Function = TypeVar("Function", bound=Callable[..., Any])


def taking(knobs_by_name: Mapping[str, Knob], **defaults: Any) -> Callable[[Function], Function]:
    """Spell out the knobs that an endpoint takes last, in its signature and in its documentation, from their one table."""

    def spelled_out(function: Function) -> Function:
        as_written = signature(function)
        own = [known for known in as_written.parameters.values() if known.kind is not Parameter.VAR_POSITIONAL]
        knobs = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=value) for name, value in defaults.items()]
        lines = [f"    {name}: {knobs_by_name[name].documentation}" for name in defaults]
        function.__doc__ = "\n".join([getdoc(function) or "", *lines])
        function.__signature__ = as_written.replace(parameters=[*own, *knobs])  # type: ignore[attr-defined]
        return function

    return spelled_out


@dataclass(frozen=True)
class Endpoints:
    """The functions behind the endpoints, for one server."""

    server: Server

    def opened(self, run_id: Any) -> Run:
        return runs.open_run(self.server.root, run_id)

    @taking(KNOBS, **dict.fromkeys(KNOBS))
    def text_to_3d(
        self, prompt: str, preset: str = "standard", prior: str = AUTOMATIC, seed: int = 0, *choices: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Turn a prompt into a textured 3D model and stream how it takes shape.

        The run id comes first, then a preview about twice a second, at the end the files; /generate_3d gives one answer.
        Every option that is left out keeps the preset's value; the same arguments give the same model.

        Parameters:
            prompt: What to make, one object in up to 400 characters, for example "a red cube".
            preset: "draft", "standard" or "high": how much time to spend.
            prior: The diffusion model: "auto" takes the best within reach, "toybox" is embedded, the others want a GPU.
            seed: Whole number from 0 to 9223372036854775807 that decides all chance.
        """
        with one_sentence():
            knobs = dict(zip(KNOBS, choices, strict=True))
            settings = settings_of(prompt, preset, prior, seed, knobs)
            check_effect(settings.schedule, knobs)
            yield from stream(self.server, runs.create_run(self.server.root, settings))

    def resume(self, run_id: str) -> Iterator[tuple[Any, ...]]:
        """Go on with a stopped or interrupted run on the same schedule; streams as /text_to_3d does.

        Of a run whose steps are all done it makes the mesh.

        Parameters:
            run_id: The run's id, 32 hexadecimal digits.
        """
        with one_sentence():
            run = self.opened(run_id)
            runs.clear_stop(run)
            yield from stream(self.server, run)

    def stop_run(self, run_id: str) -> str:
        """Ask a run to stop after its current step. The mesh of what is there is still delivered, by the call that runs it.

        Where nobody works on it there is nothing to stop, and it says so.

        Parameters:
            run_id: The run's id, 32 hexadecimal digits.
        """
        with one_sentence():
            runs.request_stop(self.opened(run_id))
        return "stopping"

    def run_status(self, run_id: str, request: gr.Request) -> dict[str, Any]:
        """What a run is doing (running, making the mesh, finished, stopped, unfinished), and where its files are once they are.

        Its step is that of the latest checkpoint, which is written every ten seconds. Nobody works on an unfinished run:
        /resume goes on with it, or makes its mesh if all its steps are done.

        Parameters:
            run_id: The run's id, 32 hexadecimal digits.
        """
        with one_sentence():
            return described(self.opened(run_id), request)

    @taking(KNOBS, **SCHEDULE_OPTIONS)
    def schedule(self, name: str = "time-prioritized", *choices: Any) -> dict[str, Any]:
        """The timestep t of every optimisation step under a schedule, on Stable Diffusion's noise levels.

        A schedule that draws its t gives the bounds "low" and "high" of every step instead of "t". What is left out is the
        schedule's own: m 500 and s 125, t from 2 to 98 % of 1000.

        Parameters:
            name: Timestep schedule, for example "time-prioritized", "uniform" or "linear".
        """
        with one_sentence():
            chosen = checked_choices({"schedule": name, **dict(zip(SCHEDULE_OPTIONS, choices, strict=True))})
            name, steps = chosen.pop("schedule", "time-prioritized"), chosen.pop("steps", presets.SCHEDULE_STEPS)
            check_effect(name, chosen)
            timetable = presets.timetable(name, alphas_cumprod_from_betas("scaled_linear"), steps, **chosen)
        low, high = timetable.low.tolist(), timetable.high.tolist()
        return {"name": name, "steps": steps, **({"low": low, "high": high} if timetable.random else {"t": low})}

    def generate_3d(
        self,
        prompt: str,
        request: gr.Request,
        preset: str = "draft",
        seed: int = 0,
        schedule: str | None = None,
        steps: int | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict[str, Any]:
        """Turn a prompt into a textured 3D model and wait for it.

        One answer with the run id, the addresses of the GLB, of a turntable video and of a picture, and statistics. It takes
        from seconds to minutes: choose the preset "draft" for a client that is impatient. The run goes on if the client leaves;
        the progress names its id.

        Parameters:
            prompt: What to make, one object in up to 400 characters, for example "a red cube".
            preset: "draft", "standard" or "high": how much time to spend.
            seed: Whole number from 0 to 9223372036854775807 that decides all chance.
            schedule: Timestep schedule, for example "time-prioritized" or "uniform".
            steps: Optimisation steps, 1 to 50000; the preset's when left out.
        """
        with one_sentence():
            settings = settings_of(prompt, preset, AUTOMATIC, seed, {"schedule": schedule, "steps": steps})
            return waited_for(runs.create_run(self.server.root, settings), request, progress)


def streamed_outputs() -> list[Component]:
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


def menu(names: Iterable[str], value: str, label: str) -> gr.Dropdown:
    """A parameter that is one of some names."""
    return gr.Dropdown(list(names), value=value, label=label, visible=False)


def number(value: int | float | None, label: str) -> gr.Number:
    """A parameter that is a number."""
    return gr.Number(value, label=label, visible=False)


def add_endpoints(server: Server) -> None:
    """Give the app its named endpoints. Their inputs are components that the page never shows."""
    endpoints, outputs = Endpoints(server), streamed_outputs()
    prompt, run_id = SentText(label="Prompt", visible=False), SentText(label="Run id", visible=False)
    seed, prior = number(0, "Seed"), menu(PRIOR_NAMES, AUTOMATIC, "Prior")
    standard, draft = menu(PRESET_NAMES, "standard", "Preset"), menu(PRESET_NAMES, "draft", "Preset")
    options: dict[str, Component] = {name: knob.parameter() for name, knob in KNOBS.items()}
    called = gr.Button(visible=False).click

    called(endpoints.text_to_3d, [prompt, standard, prior, seed, *options.values()], outputs, api_name="text_to_3d", **RUNNING)
    called(endpoints.resume, run_id, outputs, api_name="resume", **RUNNING)
    short = [prompt, draft, seed, options["schedule"], options["steps"]]
    called(endpoints.generate_3d, short, gr.JSON(label="Result", visible=False), api_name="generate_3d", **RUNNING)
    called(endpoints.stop_run, run_id, gr.Textbox(label="State", visible=False), api_name="stop", queue=False)
    # Queued, since only then MCP clients see plain JSON; a stop never waits.
    status, table = gr.JSON(label="Run", visible=False), gr.JSON(label="Schedule", visible=False)
    called(endpoints.run_status, run_id, status, api_name="run_status", concurrency_limit=None)
    name = menu(presets.SCHEDULES, "time-prioritized", "Name")
    shape = [KNOBS[option].parameter(value) for option, value in SCHEDULE_OPTIONS.items()]
    called(endpoints.schedule, [name, *shape], table, api_name="schedule", concurrency_limit=None)
