"""Which prompts are run: lines of a file, or objects of the toybox, whose truth is known."""

from collections.abc import Iterable
from pathlib import Path

from torch import Generator

from dreamtime.prompts import checked_prompt
from dreamtime.toybox.kinds import SOLIDS
from dreamtime.toybox.world import (
    Object,
    Pair,
    held_out_objects,
    kinds_named,
    object_of,
    random_object,
    twin,
    vocabulary,
    words_of,
)

TOYBOX = {"toybox:heldout": "the published test set", "toybox:training": "objects that the embedded model was trained on"}
MOST = {"toybox:heldout": 40, "toybox:training": 200}
"""How many prompts of a set there are: eight solids are held out, and they are a fifth of the test set."""
GROUPS = ("solids", "objects", "two colours", "pairs", "free text")


def truth_of(prompt: str) -> Object | None:
    """The object that a prompt asks for, if the toybox has it and the prompt asks for nothing else."""
    what = object_of(prompt)
    told_all = what and {*words_of(prompt)} <= {*vocabulary()} and kinds_named(prompt) == [thing.kind for thing in what.things]
    return what if told_all else None


def group_of(prompt: str) -> str:
    """The sort of prompt, as results are broken down; one of `GROUPS`."""
    what = truth_of(prompt)
    if what is None:
        return "free text"
    if isinstance(what, Pair):
        return "pairs"
    if what.kind in SOLIDS:
        return "solids"
    return "two colours" if what.accent else "objects"


def look_alikes(prompts: Iterable[str]) -> list[tuple[str, str]]:
    """Each prompt whose object looks like that of an earlier one, which comes first: in other words, or as its twin."""
    first, found = dict[frozenset[Object], str](), list[tuple[str, str]]()
    for prompt in prompts:
        if what := truth_of(prompt):
            earlier = first.setdefault(frozenset({what, twin(what)}), prompt)
            found += [(earlier, prompt)] if earlier != prompt else []
    return found


def training_objects(count: int) -> list[Object]:
    """Different objects of the training split, always the same ones: what defaults are tuned on."""
    draw, found = Generator().manual_seed(0), dict[Object, None]()
    while len(found) < count:
        found[random_object(draw)] = None
    return list(found)


def prompts_of(source: str) -> list[str]:
    """The prompts of a file, one per line, or of `toybox:heldout` or `toybox:training`, perhaps with `:COUNT`.

    Blank lines and lines that begin with # do not count. Raises ValueError on what holds no prompt or one twice.
    """
    name, _, count = source.rpartition(":") if source.count(":") == 2 else (source, "", "40")
    if name in TOYBOX:
        most = MOST[name]
        if not count.isdecimal() or not 10 <= int(count) <= most:
            raise ValueError(f"Of {name} between 10 and {most} prompts can be had, got {count!r}.")
        if name == "toybox:heldout" and int(count) % 5:
            raise ValueError(f"Of {name} 10, 15, 20 and so on up to {most} prompts can be had, got {count!r}.")
        objects = held_out_objects(int(count)) if name == "toybox:heldout" else training_objects(int(count))
        return [what.caption for what in objects]
    return prompts_of_file(Path(source))


def prompts_of_file(path: Path) -> list[str]:
    """One prompt per line; raises ValueError. Those that differ in capital letters alone are the same to CLIP, and so here."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # without the mark that some editors begin a file with
    except (OSError, UnicodeDecodeError) as error:
        expected = f"a text file with a prompt per line, or {' or '.join(TOYBOX)}"
        raise ValueError(f"The prompts {str(path)!r} cannot be read: expected {expected}.") from error
    prompts, first_line = list[str](), dict[str, int]()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            prompt = checked_prompt(line)
        except ValueError as error:
            raise ValueError(f"Line {number} of {path.name}: {error}") from error
        if (first := first_line.setdefault(prompt.casefold(), number)) != number:
            raise ValueError(f"The prompt {prompt!r} stands on lines {first} and {number} of {path.name}.")
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"The file {path.name} holds no prompt: expected one per line.")
    return prompts
