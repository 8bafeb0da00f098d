"""The toybox: things of a kind and a colour, alone or two together, each with an exact shape, exact colours and a caption.

A thing stands centred, upright along z, its front towards +x (azimuth 0), inside a ball of radius `BOUNDING_RADIUS`.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamtime.isosurface import bisect, cell_centres, crossing_points, edge_points, marching_tetrahedra, padded
from dreamtime.prompts import VIEWS
from dreamtime.toybox.distances import Distance, moved
from dreamtime.toybox.kinds import BOUNDING_RADIUS, KINDS, SOLIDS, Kind, Parts
from dreamtime.types import Mesh

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.86, 0.12),
    "green": (0.12, 0.65, 0.18),
    "cyan": (0.10, 0.78, 0.82),
    "blue": (0.12, 0.22, 0.85),
    "purple": (0.50, 0.15, 0.72),
    "pink": (0.97, 0.52, 0.70),
    "brown": (0.45, 0.26, 0.12),
    "white": (0.93, 0.93, 0.93),
    "black": (0.09, 0.09, 0.09),
}

Relation = Literal["on top of", "next to"]
RELATIONS: dict[Relation, tuple[str, ...]] = {"on top of": ("on",), "next to": ("beside",)}
"""How two things can stand, with other words for it."""

TEMPLATES = ("{thing}", "a photo of {thing}", "a 3d model of {thing}", "a toy: {thing}")

PAIR_SCALE = 0.52  # size of each thing of a pair
PAIR_OFFSET = 0.32  # scene units from the middle to each of two neighbours


def indefinite(noun: str) -> str:
    """The noun with its article: "an orange cube"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@dataclass(frozen=True)
class Thing:
    """One object: its kind, its colour, and the colour of its second part where that is not the kind's usual one."""

    kind: str
    color: str
    accent: str | None = None

    @property
    def what(self) -> Kind:
        return KINDS[self.kind]

    @property
    def caption(self) -> str:
        return self.worded(self.kind)

    def worded(self, noun: str) -> str:
        """The caption with another word for the kind."""
        phrase = indefinite(f"{self.color} {noun}")
        if self.accent is None:
            return phrase
        part = f"{self.accent} {self.what.accent}"
        return f"{phrase} with {part if part.endswith('s') else indefinite(part)}"

    @property
    def things(self) -> tuple["Thing", ...]:
        return (self,)

    @property
    def shape(self) -> tuple[str, ...]:
        """What decides the geometry, colours aside."""
        return (self.kind,)

    def paint(self, part: str) -> tuple[float, float, float]:
        """The colour of a part by its paint."""
        accent = self.accent or self.what.accent_color
        return COLORS[{"body": self.color, "accent": accent}.get(part, part)]

    def parts(self, points: Float[Tensor, "N 3"]) -> Parts:
        return self.what.parts(points)

    def distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Signed distance to the surface: negative inside, never too large."""
        return torch.stack([distance for distance, _ in self.parts(points)]).amin(dim=0)

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The colour of the nearest part."""
        distances, paints = zip(*self.parts(points), strict=True)
        colors = torch.tensor([self.paint(paint) for paint in paints]).to(points)
        return colors[torch.stack(distances).argmin(dim=0)]


@dataclass(frozen=True)
class Pair:
    """Two solids, the first on top of or next to the second: on the left of it seen from the front."""

    first: Thing
    relation: Relation
    second: Thing

    @property
    def caption(self) -> str:
        return f"{self.first.caption} {self.relation} {self.second.caption}"

    @property
    def things(self) -> tuple[Thing, ...]:
        return (self.first, self.second)

    @property
    def shape(self) -> tuple[str, ...]:
        """What decides the geometry, colours aside."""
        return (self.first.kind, self.relation, self.second.kind)

    @property
    def centers(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Where the two stand, so that they touch or share a ground and the whole is centred in height."""
        (low_1, high_1), (low_2, high_2) = (tuple(PAIR_SCALE * z for z in SOLIDS[thing.kind]) for thing in self.things)
        if self.relation == "on top of":
            half = (high_1 - low_1 + high_2 - low_2) / 2
            return (0.0, 0.0, half - high_1), (0.0, 0.0, -half - low_2)
        half = max(high_1 - low_1, high_2 - low_2) / 2
        return (0.0, -PAIR_OFFSET, -half - low_1), (0.0, PAIR_OFFSET, -half - low_2)

    def placed(self, points: Float[Tensor, "N 3"]) -> list[Float[Tensor, "N 3"]]:
        """The points as each of the two sees them."""
        return [moved(points, center) / PAIR_SCALE for center in self.centers]

    def distances(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "2 N"]:
        pairs = zip(self.things, self.placed(points), strict=True)
        return torch.stack([PAIR_SCALE * thing.distance(where) for thing, where in pairs])

    def distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Signed distance to the nearer surface."""
        return self.distances(points).amin(dim=0)

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The colour of the nearer thing."""
        first, second = (thing.albedo(where) for thing, where in zip(self.things, self.placed(points), strict=True))
        nearer = self.distances(points).argmin(dim=0)
        return torch.where(nearer[:, None] == 0, first, second)


Object = Thing | Pair


# -- all there is, and what training never sees


@lru_cache(maxsize=1)
def all_things() -> list[Thing]:
    """Every kind in every colour, with the kind's usual second colour."""
    return [Thing(kind, color) for kind in KINDS for color in COLORS]


@lru_cache(maxsize=1)
def two_colored_things() -> list[Thing]:
    """Every kind with a second part in every two colours."""
    kinds = [name for name, kind in KINDS.items() if kind.accent]
    return [Thing(kind, color, accent) for kind, color, accent in product(kinds, COLORS, COLORS) if color != accent]


@lru_cache(maxsize=1)
def all_pairs() -> list[Pair]:
    """Every solid in every colour in each relation to every other in another colour."""
    solids = [Thing(kind, color) for kind in SOLIDS for color in COLORS]
    return [
        Pair(first, relation, second)
        for first, relation, second in product(solids, get_args(Relation), solids)
        if first.color != second.color and (first.kind, first.color) != (second.kind, second.color)
    ]


SPLIT = "with twins"
"""What is held out, for whoever keeps pictures of the rest: those of another split are others."""


def held_out(what: Object) -> bool:
    """Whether training never sees this whole combination: a tenth of them, by the SHA-256 of the caption."""
    return digest(what)[0] < 26


def digest(what: Object) -> bytes:
    """The SHA-256 of the caption: chance that is the same everywhere and always."""
    return hashlib.sha256(what.caption.encode()).digest()


def twin(what: Object) -> Object:
    """What looks the same under another name: neighbours seen from behind, the usual second colour named or not."""
    if isinstance(what, Pair):
        return Pair(what.second, "next to", what.first) if what.relation == "next to" else what
    usual = what.what.accent_color
    if not what.what.accent or what.accent not in (None, usual):
        return what
    return Thing(what.kind, what.color, None if what.accent else usual)


def held_out_objects(count: int = 40) -> list[Object]:
    """The published test set: of every ten, two solids, four other kinds, two things of two colours, two pairs; all held out.

    Every kind comes once before any comes twice.
    """

    def first_of_each(options: Sequence[Object], number: int) -> list[Object]:
        seen, ranked = Counter[str](), list[tuple[int, Object]]()
        for what in sorted(filter(held_out, options), key=digest):
            ranked.append((seen[what.things[0].kind], what))
            seen[what.things[0].kind] += 1
        return [what for _, what in sorted(ranked, key=lambda pair: pair[0])][:number]

    solids = [thing for thing in all_things() if thing.kind in SOLIDS]
    others = [thing for thing in all_things() if thing.kind not in SOLIDS]
    shares: list[tuple[Sequence[Object], int]] = [(solids, 2), (others, 4), (two_colored_things(), 2), (all_pairs(), 2)]
    return [what for options, share in shares for what in first_of_each(options, count * share // 10)]


def random_object(generator: Generator) -> Object:
    """A thing or pair that is not held out, nor its twin: 35 % solids, 35 % other kinds, 12 % of two colours, 18 % pairs."""

    def choose(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    solids, others = list(SOLIDS), [kind for kind in KINDS if kind not in SOLIDS]
    while True:
        draw = torch.rand((), generator=generator).item()
        what: Object = Thing(choose(solids if draw < 0.35 else others), choose(list(COLORS)))
        if draw >= 0.82:
            first, second = (Thing(choose(solids), choose(list(COLORS))) for _ in range(2))
            what = Pair(first, "on top of" if draw < 0.91 else "next to", second)
            if first.color == second.color:
                continue
        elif draw >= 0.7:
            what = Thing(what.things[0].kind, what.things[0].color, choose(list(COLORS)))
        if not (held_out(what) or held_out(twin(what))):
            return what


# -- words


def random_caption(what: Object, generator: Generator) -> str:
    """One of the wordings of an object, the plain one half of the time; every twentieth leaves a lone thing's colour open."""

    def chance() -> float:
        return torch.rand((), generator=generator).item()

    def choose(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    def noun(kind: str) -> str:
        return choose((kind, *KINDS[kind].synonyms))

    if chance() < 0.5:
        return what.caption
    if isinstance(what, Pair):
        relation = choose((what.relation, *RELATIONS[what.relation]))
        phrase = f"{what.first.worded(noun(what.first.kind))} {relation} {what.second.worded(noun(what.second.kind))}"
    elif what.accent is None and chance() < 0.1:
        phrase = indefinite(noun(what.kind))
    else:
        phrase = what.worded(noun(what.kind))
    return choose(TEMPLATES).format(thing=phrase if chance() < 0.5 else phrase.split(" ", 1)[1])


def vocabulary(kinds: Iterable[str] = KINDS, colors: Iterable[str] = COLORS, pairs: bool = True) -> list[str]:
    """Every word a caption of these kinds in these colours can hold, sorted; `pairs` of them too."""
    phrases = [*colors, *VIEWS, *TEMPLATES, "a an view"]
    for name in kinds:
        kind = KINDS[name]
        phrases += [name, *kind.synonyms, *([kind.accent, "with"] if kind.accent else [])]
    if pairs:
        phrases += [phrase for relation, others in RELATIONS.items() for phrase in (relation, *others)]
    return sorted({word for phrase in phrases for word in words_of(phrase.replace("{thing}", ""))})


VARIATION_SELECTORS = range(0xFE00, 0xFE10)  # marks that nobody sees, of how a sign is to be drawn


def words_of(text: str) -> list[str]:
    """The text's words in lower case, without punctuation; marks belong to the letters that they stand on."""
    kept = [" "]
    for sign in unicodedata.normalize("NFC", text.lower()):
        is_mark = unicodedata.category(sign) in ("Mn", "Mc") and ord(sign) not in VARIATION_SELECTORS
        kept.append(sign if sign.isalnum() or (is_mark and kept[-1] != " ") else " ")
    return "".join(kept).split()


def kinds_named(caption: str) -> list[str]:
    """The kinds that a caption names, in its order, whether or not it says their colours."""
    nouns = {word: name for name, kind in KINDS.items() for word in (name, *kind.synonyms)}
    found = re.findall(rf"\b({'|'.join(sorted(nouns, key=len, reverse=True))})\b", " ".join(words_of(caption)))
    return [nouns[word] for word in found]


def object_of(caption: str) -> Object | None:
    """The object that a caption names, or None when it names none of this world; the inverse of every full wording."""
    nouns = {word: name for name, kind in KINDS.items() for word in (name, *kind.synonyms)}
    color, noun = "|".join(COLORS), "|".join(sorted(nouns, key=len, reverse=True))
    accents = "|".join(sorted({kind.accent for kind in KINDS.values() if kind.accent}))
    relations = {word: relation for relation, words in RELATIONS.items() for word in (relation, *words)}
    relation = "|".join(sorted(relations, key=len, reverse=True))
    thing = rf"({color}) ({noun})(?: with (?:an? )?({color}) ({accents}))?"
    found = re.search(rf"\b{thing}\b(?: ({relation}) (?:an? )?{thing}\b)?", " ".join(words_of(caption)))
    if found is None:
        return None

    def read(color: str, noun: str, accent: str | None, part: str | None) -> Thing | None:
        kind = nouns[noun]
        return Thing(kind, color, accent) if part in (None, KINDS[kind].accent) else None

    groups = found.groups()
    first = read(*groups[:4])
    if first is None or groups[4] is None:
        return first
    second = read(*groups[5:])
    if second is None or first.kind not in SOLIDS or second.kind not in SOLIDS:
        return None
    return Pair(first, relations[groups[4]], second)


# -- surfaces


def normals_from_distance(distance: Distance, points: Float[Tensor, "N 3"], step: float = 1e-3) -> Float[Tensor, "N 3"]:
    """Unit outward normals by differences over a tetrahedron's corners."""
    corners = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]).to(points)
    samples = distance((points[None] + step * corners[:, None]).reshape(-1, 3)).reshape(4, -1)
    return torch.nn.functional.normalize(torch.einsum("ci,cn->ni", corners, samples), dim=-1)


def ground_truth_mesh(what: Object, resolution: int = 96) -> Mesh:
    """The surface as a closed mesh: marching tetrahedra, each vertex found by bisection along its edge."""

    def depth(points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        return -what.distance(points)

    axis = cell_centres(resolution, BOUNDING_RADIUS)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    values = padded(depth(grid.reshape(-1, 3)).reshape(grid.shape[:3]), 0.0)
    edges, faces = marching_tetrahedra(values > 0)
    ends = bisect(depth, 0.0, values.flatten()[edges], edge_points(edges, resolution, BOUNDING_RADIUS), steps=10)
    points = crossing_points(*ends, 0.0)
    return Mesh(points, faces, what.albedo(points))
