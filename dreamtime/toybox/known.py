"""What the embedded model has been shown, as its training wrote it down beside the weights."""

import json
import re
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.kinds import KINDS, SOLIDS
from dreamtime.toybox.world import COLORS, RELATIONS, kinds_named, vocabulary, words_of

FILE = "known.json"
ALIKE = 0.81  # of `difflib`'s ratio: a letter too many, too few or out of its place; "horse" is no "house" (0.8)


@dataclass(frozen=True)
class Known:
    """The part of the toybox that a training showed."""

    kinds: tuple[str, ...]
    colors: tuple[str, ...]
    pairs: bool  # whether two things were shown together


EVERYTHING = Known(tuple(KINDS), tuple(COLORS), pairs=True)
"""The whole toybox, which the scorer was shown."""


def write_known(folder: Path, known: Known) -> None:
    """Keep it beside the weights."""
    folder.joinpath(FILE).write_text(json.dumps(asdict(known)) + "\n")


@lru_cache(maxsize=2)
def read_known(folder: Path = WEIGHTS) -> Known:
    """What the model in the folder was shown; raises ValueError where its training wrote nothing down."""
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"The folder {folder.name!r} has no {FILE}: the embedded model's training writes one.")
    values = json.loads(path.read_text())
    return Known(tuple(values["kinds"]), tuple(values["colors"]), bool(values["pairs"]))


def spelled(kind: str) -> str:
    """The kind as people write it: "ice cream"."""
    return next((word for word in KINDS[kind].synonyms if word.replace(" ", "") == kind), kind)


def nearest_known(word: str, known: Known | None = None) -> str | None:
    """The thing or colour that a mistyped word or a plural most likely means; None where nothing is near."""
    known = known or read_known()
    names = {color: color for color in known.colors}
    for kind in known.kinds:
        names |= {kind: spelled(kind), **{synonym: synonym for synonym in KINDS[kind].synonyms}}
    singular = next((name for ending in ("s", "es") if (name := word.removesuffix(ending)) in names and name != word), None)
    nearest = [singular] if singular else get_close_matches(word, names, 1, ALIKE)
    return names[nearest[0]] if nearest else None


def unknown_words(prompt: str, known: Known | None = None) -> list[str]:
    """The words of a prompt that the embedded model was never shown, in their order, each once."""
    known = known or read_known()
    familiar = set(vocabulary(known.kinds, known.colors, known.pairs))
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in familiar]


# -- known words, put together as no caption of the toybox has them


def goes_together(prompt: str) -> bool:
    """Whether a prompt names one thing at most, or two solids of which one is on top of or next to the other."""
    kinds = kinds_named(prompt)
    if len(kinds) < 2:
        return True
    solid = "|".join(word for kind in SOLIDS for word in (kind, *KINDS[kind].synonyms))
    relation = "|".join(word for relation, others in RELATIONS.items() for word in (relation, *others))
    pair = rf"\b(?:{solid}) (?:{relation}) (?:an? )?(?:(?:{'|'.join(COLORS)}) )?(?:{solid})\b"
    return len(kinds) == 2 and re.search(pair, " ".join(words_of(prompt))) is not None


def has_own_colors(prompt: str) -> bool:
    """Whether a prompt names no more colours than things and parts, and no part but those of its things: no cube's stem."""
    kinds, words = kinds_named(prompt), {*words_of(prompt)}
    parts = words & {kind.accent for kind in KINDS.values()}
    return parts <= {KINDS[kind].accent for kind in kinds} and len(words & {*COLORS}) <= max(len(kinds), 1) + len(parts)
