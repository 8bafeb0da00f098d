"""What a caption says of a picture of the toybox: something true, something false, or something that the picture cannot show.

The scorer learns from this which captions of a batch fit which pictures, and is asked by it what it has learnt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from dreamtime.prompts import VIEWS, View, with_view
from dreamtime.toybox.kinds import KINDS, SOLIDS
from dreamtime.toybox.world import (
    COLORS,
    RELATIONS,
    TEMPLATES,
    Object,
    Pair,
    Relation,
    Thing,
    indefinite,
    object_of,
    random_caption,
)

Attribute = Literal["kind", "color", "accent", "relation", "view"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)

Slots = tuple[str | None, ...]
"""Shape, two colours, side and order as words. None: a caption that leaves it open, a picture that does not show it."""


def uncolored(what: Object) -> str:
    """The caption without any colour, which is all that a textureless picture can show: "a cube on top of a sphere"."""
    first, *second = (indefinite(thing.kind) for thing in what.things)
    return f"{first} {what.relation} {second[0]}" if isinstance(what, Pair) else first


def facing(what: Object, view: View | None) -> str | None:
    """What can be told of the side an object is seen from: where nothing is a front, going around it changes nothing."""
    if view is None or view == "overhead":
        return view
    if isinstance(what, Pair):
        return "side" if what.relation == "next to" and view == "side" else "across"
    return view if what.what.front else "around"


@dataclass(frozen=True)
class Description:
    """What a caption tells, or a picture shows: an object, perhaps from a side, perhaps without its colours."""

    what: Object
    view: View | None = None
    colored: bool = True

    @property
    def caption(self) -> str:
        text = self.what.caption if self.colored else uncolored(self.what)
        return with_view(text, self.view) if self.view else text

    @property
    def slots(self) -> Slots:
        """The meaning, the same for all that looks the same.

        Two neighbours change places as one walks round them, so their order means something only together with front or back.
        """
        side = facing(self.what, self.view)
        if isinstance(self.what, Thing):
            accent = (self.what.accent or self.what.what.accent_color) if self.what.what.accent else None
            colors = (self.what.color, accent) if self.colored else (None, None)
            return (self.what.kind, *colors, side, None)
        things, order = list(self.what.things), None
        if self.what.relation == "next to":
            things.sort(key=lambda thing: (thing.kind, thing.color))
            if self.view in ("front", "back") and (self.colored or things[0].kind != things[1].kind):
                left = self.what.first if self.view == "front" else self.what.second
                order = "as sorted" if left is things[0] else "reversed"
        colors = (things[0].color, things[1].color) if self.colored else (None, None)
        return (f"{things[0].kind} {self.what.relation} {things[1].kind}", *colors, side, order)

    def contradicts(self, other: "Description") -> bool:
        """Whether the two cannot be of one picture."""
        return any(a != b for a, b in zip(self.slots, other.slots, strict=True) if a is not None and b is not None)


def agreement(
    pictures: Sequence[Description], captions: Sequence[Description]
) -> tuple[Bool[Tensor, "B P"], Bool[Tensor, "B P"]]:
    """Which captions are true of which pictures, and about which a picture does not decide."""
    codes: dict[str | None, int] = {None: -1}

    def coded(descriptions: Sequence[Description]) -> Int[Tensor, "N S"]:
        return torch.tensor([[codes.setdefault(slot, len(codes)) for slot in each.slots] for each in descriptions])

    shown, told = coded(pictures)[:, None], coded(captions)[None]
    possible = ((told == shown) | (told == -1) | (shown == -1)).all(dim=-1)
    hidden = ((told != -1) & (shown == -1)).any(dim=-1)
    return possible & ~hidden, possible & hidden


def changed_thing(thing: Thing, attribute: Attribute) -> list[Thing]:
    """The thing in every kind, colour or second colour."""
    if attribute == "kind":
        return [Thing(kind, thing.color, thing.accent if KINDS[kind].accent else None) for kind in KINDS]
    if attribute == "color":
        return [replace(thing, color=color) for color in COLORS]
    return [replace(thing, accent=color) for color in COLORS] if attribute == "accent" and thing.what.accent else []


def changed(what: Object, attribute: Attribute) -> Sequence[Object]:
    """The object with each of its things changed in every way; of pairs also with their colours exchanged."""
    if isinstance(what, Thing):
        return changed_thing(what, attribute)
    first, second = what.things
    pairs = [replace(what, first=other) for other in changed_thing(first, attribute)]
    pairs += [replace(what, second=other) for other in changed_thing(second, attribute)]
    if attribute == "color":
        pairs.append(replace(what, first=replace(first, color=second.color), second=replace(second, color=first.color)))
    return [pair for pair in pairs if pair.first.color != pair.second.color and {*pair.shape} <= {*SOLIDS, *RELATIONS}]


def rearranged(what: Object) -> list[Object]:
    """The same two things in every arrangement."""
    if isinstance(what, Thing):
        return []
    orders = (what.things, what.things[::-1])
    return [Pair(first, relation, second) for relation in get_args(Relation) for first, second in orders]


def alternatives(description: Description, attribute: Attribute) -> list[Description]:
    """Every choice of that attribute, its own among them; none where there is nothing to tell of it."""
    if attribute == "view":
        return [replace(description, view=view) for view in VIEWS] if description.view else []
    what = description.what
    others = rearranged(what) if attribute == "relation" else changed(what, attribute)
    return [replace(description, what=other) for other in others]


def variants(description: Description, attribute: Attribute) -> list[Description]:
    """Those alternatives that say something else."""
    return [other for other in alternatives(description, attribute) if other.contradicts(description)]


def questions(shown: Description) -> dict[Attribute, list[str]]:
    """What can be asked of a picture: per attribute its true caption, then those that are wrong in that attribute alone.

    Captions tell the view only where it is asked for, of what has a front.
    """
    options: dict[Attribute, list[str]] = {}
    has_front = isinstance(shown.what, Thing) and shown.what.what.front
    for attribute in ATTRIBUTES:
        asked = shown if attribute == "view" else replace(shown, view=None)
        wrong = variants(asked, attribute) if attribute != "view" or has_front else []
        if wrong:
            options[attribute] = [asked.caption, *(other.caption for other in wrong)]
    return options


def answers(
    picture: Float[Tensor, " D"], shown: Description, vectors: Mapping[str, Float[Tensor, " D"]]
) -> dict[Attribute, bool]:
    """For each question about what is shown, whether its true caption is nearer to the picture than every wrong one."""
    found: dict[Attribute, bool] = {}
    for attribute, options in questions(shown).items():
        true, *wrong = (torch.stack([vectors[caption] for caption in options]) @ picture).tolist()
        found[attribute] = true > max(wrong)
    return found


def near_miss(description: Description, generator: Generator) -> Description:
    """A description that is wrong in one attribute, by chance."""
    while True:
        attribute = ATTRIBUTES[int(torch.randint(len(ATTRIBUTES), (), generator=generator))]
        if options := alternatives(description, attribute):
            other = options[int(torch.randint(len(options), (), generator=generator))]
            if other.contradicts(description):
                return other


def wording(description: Description, generator: Generator) -> str:
    """One of the wordings of a description."""

    def choose(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    def noun(thing: Thing) -> str:
        return indefinite(choose((thing.kind, *KINDS[thing.kind].synonyms)))

    what = description.what
    if description.colored:
        text = random_caption(what, generator)
        text = text if object_of(text) else what.caption  # some leave the colour open
    else:
        nouns = [noun(thing) for thing in what.things]
        relation = [choose((what.relation, *RELATIONS[what.relation]))] if isinstance(what, Pair) else []
        text = choose(TEMPLATES).format(thing=" ".join([nouns[0], *relation, *nouns[1:]]))
    return with_view(text, description.view) if description.view else text
