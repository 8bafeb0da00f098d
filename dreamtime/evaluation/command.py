"""`python -m dreamtime evaluate`: run a grid of prompts, schedules, steps and seeds, judge the results, write a report."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tqdm import tqdm

from dreamtime import beforehand
from dreamtime.evaluation import SCORERS, TARGETS
from dreamtime.evaluation.prompt_sets import TOYBOX, prompts_of
from dreamtime.presets import SCHEDULES, SHAPING, Settings, resolve_device, resolve_prior, schedule_options
from dreamtime.toybox.known import unknown_words

VARIED = {"prompt", "schedule", "steps", "seed", "prior", "device"}  # have options of their own
QUOTED = 5  # words at most that are said to be unknown


def comma_separated(text: str) -> list[str]:
    if not (parts := [part for part in text.split(",") if part]):
        raise argparse.ArgumentTypeError("expected names with commas between, got nothing")
    return parts


def whole_numbers(text: str) -> tuple[int, ...]:
    """Comma-separated integers, one at least."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, got {text!r}") from None


def fractions(text: str) -> tuple[float, ...]:
    """Comma-separated numbers between 0 and 1, rising."""
    try:
        found = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or not all(0 < each < 1 for each in found):
        raise argparse.ArgumentTypeError(f"expected numbers between 0 and 1 with commas between, got {text!r}")
    return found


def changed_setting(text: str) -> tuple[str, Any]:
    """A setting by its name, such as guidance_scale=5, in the type that it has."""
    kinds = {field.name: field.type for field in fields(Settings) if field.name not in VARIED}
    name, equals, value = text.partition("=")
    if not equals or name not in kinds:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE with one of {', '.join(kinds)}, got {text!r}")
    kind = kinds[name]
    try:
        if kind is str or get_origin(kind) is Literal:
            return name, value
        if get_origin(kind) is tuple:
            found = tuple(get_args(kind)[0](part) for part in value.split(",")) if value else ()
            if get_args(kind)[-1] is not Ellipsis and len(found) != len(get_args(kind)):
                pair = f"expected {len(get_args(kind))} numbers with commas between for {name}, got {value!r}"
                raise argparse.ArgumentTypeError(pair)
            return name, found
        return name, float(value) if kind is float else int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number for {name}, got {value!r}") from None


def as_typed(value: Any) -> str:
    """The inverse of how `changed_setting` reads a value."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    sets = ", ".join(f"{name} ({what})" for name, what in TOYBOX.items())
    schedules = f"out of {', '.join(SCHEDULES)} (default uniform,time-prioritized)"
    reached = "IoUs whose first step is told"
    judges = f"who judges: {', '.join(SCORERS)}, a folder or a Hub id (default toybox)"

    def option(name: str, help: str, **how: Any) -> None:
        parser.add_argument(f"--{name}", help=help, **how)

    option("prompts", f"one prompt per line; or {sets}, perhaps with :COUNT", required=True, metavar="FILE")
    option("schedules", schedules, type=comma_separated, default=["uniform", "time-prioritized"], metavar="NAME,...")
    option("steps", "numbers of steps (default: the preset's)", type=whole_numbers, metavar="N,...")
    option("seeds", "seeds 0 to N-1 for each (default 1)", type=int, default=1, metavar="N")
    option("out", "an empty folder, or one to go on with", type=Path, required=True, metavar="DIR")
    option("targets", f"{reached} (default {','.join(map(str, TARGETS))})", type=fractions, default=TARGETS, metavar="X,...")
    option("preset", "draft, standard or high (default standard)", default="standard", metavar="NAME")
    option("prior", "as for the command text (default toybox)", default="toybox", metavar="NAME")
    option("device", "auto, cpu or cuda (default auto)", default="auto", metavar="NAME")
    option("set", "any other setting, repeatedly", type=changed_setting, action="append", default=[], metavar="NAME=VALUE")
    option("scorer", judges, default="toybox", metavar="NAME")
    option("workers", "runs at a time (default: one per core, one on a GPU)", type=int, metavar="N")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def check_effect(schedules: Sequence[str], given: Sequence[str]) -> None:
    """Raise ValueError if a setting that somebody gave shapes none of those schedules."""
    taken = {option for schedule in schedules for option in schedule_options(schedule)}
    if idle := sorted(set(given) & set(SHAPING) - taken):
        raise ValueError(f"Of the schedules {', '.join(schedules)} none has {idle[0]}, so it would change nothing.")


def command_line(arguments: argparse.Namespace) -> str:
    """The command that makes the same results again."""
    words = ["python", "-m", "dreamtime", "evaluate", "--prompts", arguments.prompts]
    words += ["--schedules", ",".join(arguments.schedules)]
    words += ["--steps", ",".join(map(str, arguments.steps))] if arguments.steps else []
    words += ["--targets", as_typed(arguments.targets)] if arguments.targets != TARGETS else []
    for name in ("seeds", "preset", "prior", "device", "scorer"):
        words += [f"--{name}", str(getattr(arguments, name))]
    for name, value in arguments.set:
        words += ["--set", f"{name}={as_typed(value)}"]
    return shlex.join([*words, "--out", "DIR"])


def run_left(root: Path, planned: Sequence[Settings], workers: int, quiet: bool) -> None:
    """Do what is not done, with progress and the time that is left on stderr."""
    from dreamtime.evaluation import cells, grid

    left = [cell for cell in planned if not grid.is_done(root, cell)]
    if not left:
        return
    done, total = len(planned) - len(left), sum(cell.steps for cell in planned)
    initial = total - sum(cell.steps for cell in left)
    with (
        grid.processes(min(workers, len(left))) as executor,
        tqdm(total=total, initial=initial, unit="step", disable=quiet, file=sys.stderr, smoothing=0) as bar,
    ):
        for number, cell in enumerate(grid.work_through(root, left, cells.measure, executor), start=done + 1):
            bar.update(cell.steps)
            bar.set_postfix_str(f"run {number} of {len(planned)}")


def known_before(planned: Sequence[Settings]) -> Iterator[str]:
    """What to know before the first run: the memory of each, and which words the embedded model has never seen."""
    if foretold := beforehand.memory_foretold(planned[0]):
        yield f"Each run needs {foretold}."
    prompts = list(dict.fromkeys(cell.prompt for cell in planned)) if planned[0].prior == "toybox" else []
    if unknown := list(filter(None, map(unknown_words, prompts))):
        words = list(dict.fromkeys(word for each in unknown for word in each))
        quoted = ", ".join([f'"{word}"' for word in words[:QUOTED]] + ["..."] * (len(words) > QUOTED))
        hold = "holds" if len(unknown) == 1 else "hold"
        yield (
            f"{len(unknown)} of {len(prompts)} prompts {hold} words that the embedded model has never seen ({quoted}): expect a"
            f" guess there. {beforehand.what_it_knows()}"
        )


def evaluate(arguments: argparse.Namespace, tell: Callable[[str], object]) -> Path:
    """Do what is not done yet, judge, and write the report; where its page lies. Raises ValueError.

    `tell` is given each line to read before the first run.
    """
    prompts = prompts_of(arguments.prompts)
    # Imported late: transformers takes seconds, and mistakes in the options should not wait for it.
    from dreamtime.evaluation import grid, report, scorers

    device = resolve_device(arguments.device)
    prior, _ = resolve_prior(arguments.prior, device)
    common = {"name": arguments.preset, "device": device, "prior": prior, **dict(arguments.set)}
    planned = grid.plan(prompts, arguments.schedules, arguments.steps or [None], arguments.seeds, **common)
    check_effect(arguments.schedules, [name for name, _ in arguments.set])
    workers = grid.checked_workers(arguments.workers, planned[0].device)
    beforehand.check_ingredients(planned[0])
    scorer = scorers.load_scorer(arguments.scorer, planned[0].device)
    lines = list(known_before(planned))
    grid.open_folder(arguments.out, planned[0], grid.derived_from_steps(**common))
    for line in lines:
        tell(line)
    with grid.held(arguments.out):
        run_left(arguments.out, planned, workers, arguments.quiet)
        made = {"made by": command_line(arguments), "on": f"{datetime.now(timezone.utc):%Y-%m-%d}", "judge": scorer.name}
        return report.write_report(arguments.out, planned, scorer, made, arguments.targets).page
