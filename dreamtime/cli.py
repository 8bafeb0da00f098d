"""The command line: `python -m dreamtime text|image|presets|schedule|resume|stop|evaluate`.

Progress goes to stderr, paths of results to stdout. Every mistake is one line on stderr and exit code 2; nothing that was
computed before it is lost.
"""

import argparse
import csv
import io
import json
import logging
import math
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn, TextIO, get_args

import torch
from tqdm import tqdm

from dreamtime import __version__, beforehand, diffusion, image_to_3d, methods, objectives, preprocess, presets, runs
from dreamtime.elevation import height_in_words
from dreamtime.evaluation import command
from dreamtime.priors import hub, options

log = logging.getLogger(__name__)

UNEXPECTED, USAGE_ERROR = 1, 2
LISTED = (
    "schedule",
    "objective",
    "guidance_scale",
    "image_residual",
    "steps",
    "learning_rate",
    "views",
    "resolution",
    "representation",
)
RUN_ID = "32 hexadecimal digits, as the run told them when it began"
FORMATS = (".glb", ".obj", ".ply", ".stl")
RUNS = Path(os.environ.get("DREAMTIME_RUNS") or "runs")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}. See --help.\n")


def add_schedule_options(parser: argparse.ArgumentParser, name: str) -> None:
    """The options that shape a timestep schedule, shared by the commands that take one."""
    parser.add_argument(name, dest="schedule", metavar="NAME", help=f"one of {', '.join(presets.SCHEDULES)}")
    parser.add_argument("--steps", type=int, metavar="N", help="optimisation steps")
    parser.add_argument("--m", type=float, help="centre of the prior weight W_p, in timesteps (default 500)")
    parser.add_argument("--s", type=float, help="width of the prior weight W_p, in timesteps (default 125)")
    parser.add_argument("--t-min", type=int, help="smallest timestep (default: 2 %% of T, or the schedule's own)")
    parser.add_argument("--t-max", type=int, help="largest timestep (default: 98 %% of T)")
    parser.add_argument("--fixed-t", type=int, metavar="T", help="the timestep of the schedule 'fixed' (default 500)")
    monotone = "timesteps of the schedule 'custom', falling or rising"
    parser.add_argument("--table", type=command.whole_numbers, metavar="T,T,...", help=monotone)


def add_command(commands: Any, name: str, told: str) -> OneLineParser:
    """A command that says what it does both in the list of all and in its own help."""
    parser: OneLineParser = commands.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.")
    return parser


def build_parser() -> argparse.ArgumentParser:
    told = "Text and pictures to textured 3D models by time-prioritized score distillation."
    parser = OneLineParser(prog="dreamtime", description=told)
    parser.add_argument("--version", action="version", version=f"dreamtime {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)

    text = add_command(commands, "text", "turn a prompt into a 3D model")
    text.add_argument("prompt", help='for example "a red cube"')
    add_recipe_options(text, "auto")
    text.add_argument(
        "--negative-prompt",
        metavar="TEXT",
        help=f"what to steer away from; a preset without guidance has a scale of {presets.STEERED_GUIDANCE_SCALE:g} then",
    )
    text.add_argument(
        "--guidance",
        metavar="NAME",
        help=f"one of {', '.join(objectives.GUIDANCES)}; with {' or '.join(objectives.IDLE_AT_SCALE_1)} a preset without"
        f" guidance has a scale of {presets.STEERED_GUIDANCE_SCALE:g}",
    )
    text.add_argument(
        "--image-residual",
        type=float,
        metavar="X",
        help=f"weight of --objective sds between decoded images (default {presets.STANDARD.image_residual:g} with the embedded"
        " prior, else 0), decoded by a tiny VAE that must lie beside a model's own; 0: between latents, with the guidance and"
        " cameras that suit those",
    )
    text.add_argument("--background", metavar="NAME", help=f"one of {', '.join(presets.BACKGROUNDS)}")
    text.add_argument("--lora", metavar="FILE", help="adapters to merge into the prior: safetensors file, folder or Hub id")
    text.add_argument("--lora-scale", type=float, metavar="X", help="their strength (default 1)")
    text.add_argument("--embedding", metavar="FILE", help="a textual inversion to add to the prior")
    add_run_options(text, objectives.OBJECTIVES)
    add_output_options(text)

    add_image_command(add_command(commands, "image", "turn a picture of one object into a 3D model"))

    listing = add_command(commands, "presets", "list the methods with their settings and sources, or show one in full")
    listing.add_argument("method", nargs="?", metavar="METHOD", help=f"one of {', '.join(methods.METHODS)}")
    add_recipe_options(listing, "stable-diffusion-2.1-base", choose_method=False)
    listing.add_argument("--json", action="store_true", help="print one JSON object")

    resume = add_command(commands, "resume", "go on with a stopped run, on the same schedule")
    resume.add_argument("run_id", metavar="RUN_ID", help=RUN_ID)
    add_output_options(resume)

    stop = add_command(commands, "stop", "ask a run in another process to stop and deliver its mesh")
    stop.add_argument("run_id", metavar="RUN_ID", help=RUN_ID)
    stop.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where run folders live (default as for text)")

    command.add_arguments(add_command(commands, "evaluate", "run a grid of prompts and schedules and measure the results"))

    schedule = add_command(commands, "schedule", "print or plot a timestep schedule")
    add_schedule_options(schedule, "--name")
    schedule.set_defaults(schedule="time-prioritized", steps=presets.SCHEDULE_STEPS)
    schedule.add_argument("--betas", default="scaled_linear", help="linear, scaled_linear or squaredcos_cap_v2")
    schedule.add_argument("--seed", type=int, default=0, help="for schedules that draw")
    schedule.add_argument("--format", default="json", choices=("json", "csv", "png"), help="(default json)")
    schedule.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there instead of stdout")
    return parser


def add_image_command(image: argparse.ArgumentParser) -> None:
    """The picture, how its object is taken out of it, and what is said beside it."""
    image.add_argument("picture", type=Path, help=f"as it comes from the camera: {', '.join(preprocess.FORMATS)}")
    image.add_argument("--preset", default="standard", metavar="NAME", help="draft, standard or high (default standard)")
    image.add_argument(
        "--prior",
        default=image_to_3d.EMBEDDED,
        metavar="NAME",
        help=f"{', '.join(image_to_3d.PRIORS)}, a Hub id or a folder (default {image_to_3d.EMBEDDED})",
    )
    lowest, highest = presets.RANGES["elevation"]
    image.add_argument(
        "--elevation",
        type=elevation_or_none,
        default=image_to_3d.ELEVATION,
        metavar="auto|DEG",
        help=f"from how high the picture was taken, {lowest} to {highest} degrees; auto estimates it"
        f" (default {image_to_3d.ELEVATION:g})",
    )
    image.add_argument("--foreground-ratio", type=float, metavar="X", help="share of the frame that the object is to fill")
    image.add_argument(
        "--remove-background",
        default="auto",
        choices=get_args(preprocess.RemoveBackground),
        help="auto respects the picture's transparency (default auto)",
    )
    image.add_argument("--show-input", type=Path, metavar="FILE", help="write what the model sees, as a transparent PNG")
    image.add_argument(
        "--prompt",
        metavar="TEXT",
        help="say what it is: a second prior that reads it guides, too, and takes the picture for the front",
    )
    image.add_argument("--text-prior", metavar="NAME", help="which one, as --prior of the command text; by SDS (default auto)")
    image.add_argument("--text-weight", type=float, metavar="X", help="how much it counts (default 1; with large priors 0.025)")
    image.add_argument("--rgb", type=float, metavar="X", help="weight of the picture's colours")
    image.add_argument("--mask", type=float, metavar="X", help="weight of its outline")
    lowest, highest = presets.RANGES["doublings"]
    doubles = f"how often the resolution doubles on the way to --resolution, {lowest} to {highest}"
    image.add_argument("--doublings", type=int, metavar="N", help=doubles)
    for name, told in presets.REGULARIZERS.items():
        image.add_argument(flag(name), type=float, metavar="X", help=f"weight of {told}")
    add_run_options(image, objectives.WITHOUT_TEXTS)
    add_output_options(image)


def elevation_or_none(text: str) -> float | None:
    """Degrees, or None for `auto`."""
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected auto or degrees, got {text!r}") from None


def add_run_options(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """What shapes a run, whatever it starts from; `names` are the objectives that it can have."""
    parser.add_argument("--memory", metavar="NAME", help=f"how sparing the prior is: {', '.join(options.MEMORIES)}")
    parser.add_argument("--attention", metavar="NAME", help=f"one of {', '.join(options.ATTENTIONS)}")
    parser.add_argument(
        "--precision", metavar="NAME", help=f"of the prior on a GPU: {' or '.join(options.PRECISIONS)} (default fp16)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    add_schedule_options(parser, "--schedule")
    parser.add_argument("--seed", type=int, help="decides all chance (default 0)")
    parser.add_argument("--objective", metavar="NAME", help=f"one of {', '.join(names)} (default sds)")
    parser.add_argument("--guidance-scale", type=float, metavar="X", help="pull of prompt or picture; 1 is none")
    parser.add_argument("--weighting", metavar="NAME", help=f"w(t) of the gradient: {', '.join(presets.WEIGHTINGS)}")
    parser.add_argument("--representation", metavar="NAME", help=f"one of {', '.join(presets.REPRESENTATIONS)}")
    parser.add_argument("--views", type=int, metavar="B", help="images per step")
    parser.add_argument("--resolution", type=int, metavar="PX", help="side of those images")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="of the scene's grids; networks get less")


def add_recipe_options(parser: argparse.ArgumentParser, prior: str, choose_method: bool = True) -> None:
    """What the settings of a run from a prompt start from."""
    parser.add_argument("--preset", default="standard", metavar="NAME", help="draft, standard or high (default standard)")
    parser.add_argument(
        "--prior",
        default=prior,
        metavar="NAME",
        help=f"{', '.join(presets.PRIORS)}, a Hub id, a folder, or auto: Stable Diffusion on a GPU that can have it, else the"
        f" embedded toybox (default {prior})",
    )
    if choose_method:
        parser.add_argument(
            "--method",
            default="dreamtime",
            metavar="NAME",
            help=f"whose schedule and objective, and with a large prior whose numbers: {', '.join(methods.METHODS)} (default"
            " dreamtime; see the command presets); other options win",
        )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"copy the model there; {', '.join(FORMATS)}")
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help="where run folders live (default $DREAMTIME_RUNS or ./runs)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of paths")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def given(arguments: argparse.Namespace, names: set[str]) -> dict[str, Any]:
    """The options a person really typed, as settings."""
    return {name: value for name, value in vars(arguments).items() if name in names and value is not None}


def check_effect(arguments: argparse.Namespace, schedule: str) -> None:
    """Raise ValueError on a typed option that would change nothing."""
    presets.check_effect(schedule, given(arguments, set(presets.SHAPING)), flag)
    if getattr(arguments, "lora_scale", None) is not None and not arguments.lora:
        raise ValueError("The option --lora-scale is the strength of a --lora, and there is none.")
    if arguments.command == "image" and not arguments.prompt and (idle := given(arguments, {"text_prior", "text_weight"})):
        raise ValueError(f"The option {flag(min(idle))} is about who reads a --prompt, and there is none.")


def flag(name: str) -> str:
    """A setting as the option that sets it."""
    return f"--{name.replace('_', '-')}"


def check_output(path: Path | None, formats: tuple[str, ...] = FORMATS) -> None:
    """Raise ValueError before any work if the result could not be written there."""
    if path is None:
        return
    if path.suffix.lower() not in formats:
        names = f"one of {', '.join(formats)}" if len(formats) > 1 else formats[0]
        raise ValueError(f"The output must end in {names}, got {path.name!r}.")
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(
            f"Cannot write {str(path)!r}: its folder must exist and be writable, and it must not be a folder itself."
        )


def watched(frames: Generator[runs.Frame, None, None], run: runs.Run, quiet: bool) -> None:
    """Iterate with a progress bar; a signal before the first step ends it all.

    After that the first signal asks the run to stop and lets it deliver, a second one ends it all.
    """
    before: dict[signal.Signals, Any] = {}

    def asked_to_stop(number: int, frame: object) -> None:
        as_before()
        bar.write("Stopping: the mesh of what is there follows.", file=sys.stderr)
        runs.request_stop(run)

    def as_before() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    with tqdm(total=run.settings.steps, initial=runs.steps_done(run), unit="step", disable=quiet, file=sys.stderr) as bar:
        try:
            for frame in frames:
                if not before:
                    # An interrupt in the middle of a step would leave it half done: the run ends itself after the step.
                    before = {number: signal.signal(number, asked_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
                bar.update(frame.step - bar.n)
                bar.set_postfix(t=frame.t, loss=f"{frame.loss:.3g}", refresh=False)
        finally:
            as_before()


def names_beside(output: Path) -> dict[str, Path]:
    """What an OBJ's material and texture are called, so that many fit into one folder, by the keyword that names each.

    `duck.obj` comes with `duck.mtl` and `duck-texture.png`: `duck.png` may well be the picture that it was made from. Readers
    split lines at blanks, so `my duck.obj` comes with `my-duck.mtl`.
    """
    name = re.sub(r"\s+", "-", output.stem)
    return {"mtllib": output.with_name(f"{name}.mtl"), "map_Kd": output.with_name(f"{name}-texture.png")}


def copy_obj(source: Path, output: Path) -> dict[str, str]:
    """The OBJ with its material and texture; where the two lie."""
    names = names_beside(output)
    shutil.copyfile(source.with_suffix(".png"), names["map_Kd"])
    for old, new in ((source, output), (source.with_suffix(".mtl"), names["mtllib"])):
        text = old.read_text(encoding="utf-8")
        for keyword, path in names.items():
            text = text.replace(f"{keyword} {source.stem}{path.suffix}", f"{keyword} {path.name}")
        new.write_text(text, encoding="utf-8", errors="surrogateescape")  # names need not be of any encoding
    return {"material": str(names["mtllib"]), "texture": str(names["map_Kd"])}


def copy_result(result: runs.Result, output: Path) -> dict[str, str]:
    """The model under the name that was asked for, and with an OBJ the material and texture that it refers to: what lies where.

    Raises ValueError, with where the model lies.
    """
    source = result.files[output.suffix.lower()[1:]]
    beside: dict[str, str] = {}
    try:
        if output.exists() and output.samefile(source):
            return {"output": str(output)}
        if output.suffix.lower() == ".obj":
            beside = copy_obj(source, output)
        else:
            shutil.copyfile(source, output)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"The model lies in {str(source)!r}; it could not be copied to {str(output)!r}: {reason}.") from error
    return {"output": str(output), **beside}


def work_and_deliver(run: runs.Run, arguments: argparse.Namespace) -> None:
    """Optimise, extract, and print where the results lie."""
    again = shlex.join(["python", "-m", "dreamtime", "resume", run.id, "--runs", str(arguments.runs)])
    try:
        watched(runs.work(run, pictures=False), run, arguments.quiet)
        result = runs.deliver(run)
    except KeyboardInterrupt:
        print(f"What was saved is kept; go on with: {again}", file=sys.stderr)
        raise
    for note in result.notes:
        print(note, file=sys.stderr)
    files = {name: str(path) for name, path in result.files.items()}
    written = copy_result(result, arguments.output) if arguments.output else {}
    files |= written
    stopped = result.steps < run.settings.steps
    if arguments.json:
        print(
            json.dumps(
                {
                    "run_id": run.id,
                    "seed": run.settings.seed,
                    "state": "stopped" if stopped else "finished",
                    "steps": result.steps,
                    "of": run.settings.steps,
                    "files": files,
                    "statistics": result.statistics,
                }
            )
        )
    else:
        print(*(written.values() or [files["glb"]]), sep="\n")
    if stopped:
        print(f"Stopped at step {result.steps} of {run.settings.steps}; go on with: {again}", file=sys.stderr)


def text(arguments: argparse.Namespace) -> None:
    check_output(arguments.output)
    chosen = given(arguments, {field.name for field in fields(presets.Settings)} - {"prior", "device"})
    device = presets.resolve_device(arguments.device)
    prior, why = presets.resolve_prior(arguments.prior, device)
    settings = presets.preset(arguments.preset, device, prior, arguments.method, **chosen)
    check_effect(arguments, settings.schedule)
    run = runs.create_run(arguments.runs, settings)
    if arguments.prior == "auto":
        print(f"The prior is {prior}: {why}.", file=sys.stderr)
    with runs.attended(run):
        tell(settings, run)
        work_and_deliver(run, arguments)


def tell(settings: presets.Settings, run: runs.Run) -> None:
    """What runs, what it needs, and what to know before."""
    print(f"Run {run.id}: {beforehand.describe(settings)}", file=sys.stderr)
    if foretold := beforehand.memory_foretold(settings):
        print(f"It needs {foretold}.", file=sys.stderr)
    for advice in beforehand.advice(settings):
        print(advice, file=sys.stderr)


def text_prior_of(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """Who reads the prompt beside a picture, if there is one."""
    if not arguments.prompt:
        return {}
    return {"text_prior": presets.resolve_prior("auto" if arguments.text_prior is None else arguments.text_prior, device)[0]}


def check_overwrites_no_picture(arguments: argparse.Namespace) -> None:
    """Raise ValueError if something that is to be written would take the place of the picture, or of what is shown of it."""

    def same(one: Path, other: Path) -> bool:
        return one.absolute() == other.absolute() or (one.exists() and other.exists() and one.samefile(other))

    shown, picture = arguments.show_input, arguments.picture
    if shown and same(shown, picture):
        raise ValueError(f"The option --show-input would overwrite the picture itself, {str(picture)!r}.")
    if arguments.output and arguments.output.suffix.lower() == ".obj":
        texture = names_beside(arguments.output)["map_Kd"]
        for taken in filter(None, (picture, shown)):
            if same(texture, taken):
                raise ValueError(
                    f"The texture of {str(arguments.output)!r} would overwrite {str(taken)!r}: choose another name."
                )


def image(arguments: argparse.Namespace) -> None:
    check_output(arguments.output)
    check_output(arguments.show_input, (".png",))
    check_overwrites_no_picture(arguments)
    device = presets.resolve_device(arguments.device)
    names = {field.name for field in fields(presets.Settings)} - {"prior", "device", "text_prior"}
    chosen = given(arguments, names) | text_prior_of(arguments, device)
    settings = image_to_3d.image_preset(arguments.preset, device, arguments.prior, **chosen)
    check_effect(arguments, settings.schedule)
    beforehand.check_ingredients(settings)
    ratio = arguments.foreground_ratio
    reference = preprocess.process(
        arguments.picture,
        image_to_3d.REFERENCE_SIDE,
        image_to_3d.foreground_ratio(settings.prior) if ratio is None else ratio,
        arguments.remove_background,
    )
    for note in reference.notes:
        print(f"{note[0].upper()}{note[1:]}.", file=sys.stderr)
    if arguments.show_input:
        preprocess.save_reference(arguments.show_input, reference)
    if arguments.elevation is None:
        found = math.degrees(image_to_3d.estimated_elevation(settings, reference).elevation)
        seems = f"The picture seems to be taken from about {height_in_words(round(found, 0))}"
        print(f"{seems}; it is an estimate: give --elevation if you know better.", file=sys.stderr)
        settings = replace(settings, elevation=round(found, 1))
    run = runs.create_run(arguments.runs, settings, reference)
    with runs.attended(run):
        tell(settings, run)
        work_and_deliver(run, arguments)


def recipe(settings: presets.Settings) -> dict[str, Any]:
    """Settings as plain values, without what belongs to one run alone."""
    values = presets.settings_to_dict(settings)
    return {name: value for name, value in values.items() if name not in ("prompt", "seed", "device")}


def plain(value: Any) -> str:
    """A setting as a word of a table."""
    if value in (None, "", ()):
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def silence(stream: TextIO) -> None:
    """Whatever is still to be written there goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Whoever reads our output may have had enough of it, as `head` has: what is left to say goes nowhere."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)


def gpu_memory(settings: presets.Settings) -> str:
    """What a run would need on a GPU, in words; nothing for a Hub id whose parts nobody here knows."""
    if hub.known(settings.source) is None and hub.on_this_disk(settings.source) is None:
        return ""
    return beforehand.memory_foretold(replace(settings, device="cuda"))


@reader_may_leave()
def list_presets(arguments: argparse.Namespace) -> None:
    names = [arguments.method] if arguments.method else list(methods.METHODS)
    prior, _ = presets.resolve_prior(arguments.prior, presets.resolve_device("auto"))
    beforehand.check_reader(prior)  # needs no weights: a Hub id that nobody here knows may be one
    made, unfit, memory = dict[str, dict[str, Any]](), dict[str, str](), dict[str, str]()
    for name in names:
        try:
            settings = presets.preset(arguments.preset, prior=prior, method=name)
            made[name], memory[name] = recipe(settings), gpu_memory(settings)
        except ValueError as error:
            if arguments.method:
                raise
            unfit[name] = str(error)
    if not made:
        raise ValueError(unfit[names[0]])
    if arguments.json:
        told = {name: methods.METHODS[name] for name in names}
        words = {name: {"title": it.title, "source": it.source, "differs": it.differs} for name, it in told.items()}
        listed = {name: {**words[name], "memory": memory[name], "settings": made[name]} for name in made}
        print(json.dumps(listed[arguments.method] if arguments.method else listed, indent=1))
        return
    if arguments.method:
        print_table([[name.replace("_", " "), plain(value)] for name, value in made[arguments.method].items()])
    else:
        print(f"The preset {arguments.preset} with the prior {prior}:")
        head = ["method", *(name.replace("_", " ") for name in LISTED)]
        print_table([head, *([name, *(plain(values[column]) for column in LISTED)] for name, values in made.items())])
    for name in made:
        print(f"\n{methods.METHODS[name].title}: {methods.METHODS[name].source}. {methods.METHODS[name].differs}")
        if memory[name]:
            print(f"On a GPU it needs {memory[name]}.")
    for name, reason in unfit.items():
        print(f"\n{methods.METHODS[name].title} is left out. {reason}")
    print(f"\n{methods.IN_ALL}")


def opened(arguments: argparse.Namespace) -> runs.Run:
    """The run that was named, or a ValueError that says where it was looked for."""
    try:
        return runs.open_run(arguments.runs, arguments.run_id)
    except runs.RunError as error:
        raise ValueError(f"{error} It was looked for in {str(arguments.runs)!r}; --runs names another folder.") from error


def resume(arguments: argparse.Namespace) -> None:
    check_output(arguments.output)
    run = opened(arguments)
    runs.clear_stop(run)
    if not run.checkpoint.exists():
        print("There is no checkpoint of this run: it begins anew, as it began before.", file=sys.stderr)
    with runs.attended(run):
        work_and_deliver(run, arguments)


def stop(arguments: argparse.Namespace) -> None:
    runs.request_stop(opened(arguments))


@reader_may_leave()
def schedule(arguments: argparse.Namespace) -> None:
    alphas_cumprod = diffusion.alphas_cumprod_from_betas(arguments.betas)
    check_effect(arguments, arguments.schedule)
    options = given(arguments, set(presets.SHAPING))
    table = presets.timetable(arguments.schedule, alphas_cumprod, arguments.steps, **options)
    presets.within("seed", arguments.seed, *presets.RANGES["seed"])
    generator = torch.Generator().manual_seed(arguments.seed)
    drawn = [table(i, generator) for i in range(1, len(table) + 1)]
    check_output(arguments.output, (f".{arguments.format}",))
    if arguments.format == "png":
        from dreamtime import plots

        shape = (options.get("m", 500.0), options.get("s", 125.0))
        beside = Path(f"schedule-{arguments.schedule}.png") if sys.stdout.isatty() else None  # no picture into a terminal
        target = arguments.output or beside
        plots.schedule_png(target or sys.stdout.buffer, alphas_cumprod, table, drawn, arguments.schedule, *shape)
        if target:
            print(target)
        return
    with arguments.output.open("w", newline="") if arguments.output else nullcontext(sys.stdout) as file:
        if arguments.format == "json":
            bands = {"low": table.low.tolist(), "high": table.high.tolist()} if table.random else {}
            json.dump(
                {
                    "name": arguments.schedule,
                    "steps": arguments.steps,
                    "betas": arguments.betas,
                    **options,
                    "t": drawn,
                    **bands,
                },
                file,
            )
            file.write("\n")
        else:
            csv.writer(file, lineterminator="\n").writerows([("i", "t"), *enumerate(drawn, start=1)])


def evaluate(arguments: argparse.Namespace) -> None:
    print(command.evaluate(arguments, lambda line: print(line, file=sys.stderr)))


COMMANDS = {
    "text": text,
    "image": image,
    "presets": list_presets,
    "resume": resume,
    "stop": stop,
    "schedule": schedule,
    "evaluate": evaluate,
}


def in_words(error: ValueError | OSError) -> str:
    """An error as a sentence; what the system says without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {str(error.filename)!r}." if error.filename else f"{error.strerror}."
    return str(error)


class Speaker(logging.Handler):
    """Prints what a record says where progress goes."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stderr)  # above a progress bar, if there is one


def make_streams_usable() -> None:
    """Whoever closed a stream hears nothing of it, and a name that its encoding cannot write is escaped."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # for as long as the program runs
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    make_streams_usable()
    arguments = build_parser().parse_args(argv)
    if not hub.said.handlers:
        hub.said.addHandler(Speaker())
        hub.said.setLevel(logging.INFO)
    try:
        COMMANDS[arguments.command](arguments)
        sys.stdout.flush()  # here a reader who has left is a mistake in a sentence, at exit it would be a traceback
    except BrokenPipeError:
        silence(sys.stdout)
        print("dreamtime: nobody read the answer to its end.", file=sys.stderr)
        return USAGE_ERROR
    except (ValueError, OSError) as error:
        print(f"dreamtime: {in_words(error)}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("dreamtime: interrupted.", file=sys.stderr)
        return 130
    except Exception as error:  # the last net: people get a sentence, the log what a developer needs
        log.info("unexpected", exc_info=True)
        first, *_ = [*str(error).splitlines(), ""]
        print(f"dreamtime: something unexpected went wrong ({type(error).__name__}: {first}).", file=sys.stderr)
        return UNEXPECTED
    return 0
