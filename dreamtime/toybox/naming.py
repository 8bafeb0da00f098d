"""The names of what a picture of the toybox shows, one by one.

The scorer and its teacher learn to tell them before captions, and the embedded model's text encoder from captions (`reading`).

A pair has two kinds and two colours, each with a name of its own. There are 128 ways to arrange two solids, and of each a
training set holds a hundred pictures or two; of every solid as the first or second of a pair it holds thousands.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamtime.prompts import VIEWS
from dreamtime.toybox.kinds import KINDS, SOLIDS
from dreamtime.toybox.meanings import Description, facing
from dreamtime.toybox.world import COLORS, RELATIONS, Pair

Names = tuple[str | None, ...]
"""An answer to each of the questions; None where the picture does not show it."""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": tuple(KINDS),
    "arrangement": ("alone", *RELATIONS),
    "second kind": tuple(SOLIDS),
    "color": tuple(COLORS),
    "second color": tuple(COLORS),  # of a pair's second thing, or of a lone thing's second part
    "side": (*VIEWS, "across", "around"),
}
NAMES = sum(map(len, QUESTIONS.values()))


def names_of(shown: Description) -> Names:
    """What there is to be named. Of two neighbours, the one on the left of the picture is the first."""
    what, side = shown.what, facing(shown.what, shown.view)
    if isinstance(what, Pair):
        first, second = what.things if shown.view != "back" or what.relation == "on top of" else what.things[::-1]
        colors = (first.color, second.color) if shown.colored else (None, None)
        return (first.kind, what.relation, second.kind, *colors, side)
    kind, color, accent, _, _ = shown.slots
    return (kind, "alone", None, color, accent, side)


def exchanged(shown: Description) -> Names:
    """The same names, with two neighbours exchanged where the view does not tell which of them is on the left."""
    names = kind, arrangement, second_kind, color, second_color, side = names_of(shown)
    if arrangement == "next to" and shown.view not in ("front", "back"):
        return (second_kind, arrangement, kind, second_color, color, side)
    return names


def numbered(names: Sequence[Names]) -> Int[Tensor, "B Q"]:
    """The answers' places in the questions' lists; -100 where there is none."""

    def number(answer: str | None, answers: Sequence[str]) -> int:
        return -100 if answer is None else answers.index(answer)

    return torch.tensor([[*map(number, each, QUESTIONS.values())] for each in names])


def naming_loss(logits: Float[Tensor, "B K"], shown: Sequence[Description]) -> Float[Tensor, ""]:
    """Cross-entropy of the answers, averaged for each question over the pictures that show it, and summed over the questions.

    Where it cannot be told which of two neighbours is the first, the better of both ways counts.
    """
    parts = logits.split([len(answers) for answers in QUESTIONS.values()], dim=1)
    either_way = [numbered([way(each) for each in shown]).to(logits.device) for way in (names_of, exchanged)]
    share = 1 / (either_way[0] >= 0).sum(dim=0).clamp(min=1)
    losses = [
        sum(
            weight * F.cross_entropy(part, answer, ignore_index=-100, reduction="none")
            for weight, part, answer in zip(share, parts, answers.T, strict=True)
        )
        for answers in either_way
    ]
    return torch.minimum(*losses).sum()
