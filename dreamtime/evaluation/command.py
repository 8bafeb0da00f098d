"""`python -m dreamtime evaluate`: run a grid of prompts, schedules, steps and seeds, judge the results, write a report."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tqdm import tqdm

from dreamtime import beforehand
from dreamtime.evaluation import SCORERS, TARGETS
from dreamtime.evaluation.prompt_sets import TOYBOX, look_alikes, prompts_of, truth_of
from dreamtime.presets import SCHEDULES, SHAPING, Settings, resolve_device, resolve_prior, schedule_options
from dreamtime.toybox.known import EVERYTHING, Known, read_known, unknown_words

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


@contextmanager
def said_if_interrupted(tell: Callable[[str], object]) -> Iterator[None]:
    """Whoever interrupts is told at once what becomes of it, while workers still write down what they have."""
    try:
        yield
    except KeyboardInterrupt:
        tell("Interrupted: what is done is kept, and the same command goes on from there.")
        raise


def run_left(root: Path, planned: Sequence[Settings], workers: int, quiet: bool, tell: Callable[[str], object]) -> None:
    """Do what is not done, with progress and the time that is left on stderr, from step to step of the runs at work."""
    from dreamtime.evaluation import cells, grid

    left = [cell for cell in planned if not grid.is_done(root, cell)]
    if not left:
        return
    for cell in left:
        cells.note_what_is_kept(grid.folder_of(root, cell))
    total, open_runs = sum(cell.steps for cell in planned), set(left)

    def steps_done() -> int:
        return total - sum(cell.steps - grid.steps_done(root, cell) for cell in open_runs)

    def show() -> None:
        bar.n = steps_done()
        bar.set_postfix_str(f"{len(planned) - len(open_runs)} of {len(planned)} runs")

    with (
        grid.processes(min(workers, len(left))) as executor,
        grid.question_of_end(root) as asked_to_end,
        said_if_interrupted(tell),
        tqdm(total=total, initial=steps_done(), unit="step", disable=quiet, file=sys.stderr, smoothing=0) as bar,
    ):
        show()
        work = partial(cells.measure, asked_to_end=asked_to_end)
        for cell in grid.work_through(root, left, work, executor, show):
            open_runs.remove(cell)
            show()


def so_many(prompts: Sequence[str], count: int, do: str) -> str:
    """The beginning of a sentence: "1 of 3 prompts holds"."""
    return f"{count} of {len(prompts)} prompts {do}{'s' if count == 1 else ''}"


def never_seen(prompts: Sequence[str], who: str, known: Known) -> str:
    """How many prompts hold words that somebody has never seen, and the first of these; empty where none does."""
    if not (unknown := list(filter(None, (unknown_words(prompt, known) for prompt in prompts)))):
        return ""
    words = list(dict.fromkeys(word for each in unknown for word in each))
    quoted = ", ".join([f'"{word}"' for word in words[:QUOTED]] + ["..."] * (len(words) > QUOTED))
    return f"{so_many(prompts, len(unknown), 'hold')} words that the embedded {who} has never seen ({quoted})"


def known_before(planned: Sequence[Settings], scorer: str) -> Iterator[str]:
    """What to know before the first run: the memory of each, what the embedded models cannot read, what cannot be measured."""
    if foretold := beforehand.memory_foretold(planned[0]):
        yield f"Each run needs {foretold}."
    prompts = list(dict.fromkeys(cell.prompt for cell in planned))
    if planned[0].prior == "toybox" and (unread := never_seen(prompts, "model", read_known())):
        yield f"{unread}: expect a guess there. {beforehand.what_it_knows()}"
    if SCORERS.get(scorer, scorer) == SCORERS["toybox"] and (unread := never_seen(prompts, "scorer", EVERYTHING)):
        yield f"{unread}: its R-Precision means nothing there. Name another judge by --scorer, such as clip-l14."
    if free := sum(truth_of(prompt) is None for prompt in prompts):
        yield (
            f"{so_many(prompts, free, 'name')} no object of the toybox in full, its colours and nothing else: there is no IoU"
            f" for {'it' if free == 1 else 'them'}."
        )
    if alike := look_alikes(prompts):
        first, second = alike[0]
        yield (
            f'{so_many(prompts, len(alike), "look")} the same as an earlier one ("{second}" as "{first}"): R-Precision cannot'
            " tell such prompts apart."
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
    lines = list(known_before(planned, arguments.scorer))
    weights = grid.open_folder(arguments.out, planned[0], grid.derived_from_steps(**common))["weights"]
    for line in lines:
        tell(line)
    resolved = argparse.Namespace(**vars(arguments) | {"device": device, "prior": prior})
    with grid.held(arguments.out):
        run_left(arguments.out, planned, workers, arguments.quiet, tell)
        made = {"made by": command_line(resolved), "on": f"{datetime.now(timezone.utc):%Y-%m-%d}", "judge": scorer.name}
        made |= {"preset": arguments.preset, **({"weights": weights} if weights else {})}
        made |= {"known before": " ".join(lines)} if lines else {}
        total = report.parts_of(planned)
        with (
            said_if_interrupted(tell),
            tqdm(total=total, desc="report", unit="part", disable=arguments.quiet, file=sys.stderr) as bar,
        ):
            return report.write_report(arguments.out, planned, scorer, made, arguments.targets, bar.update).page
