"""Pictures of everything in the toybox, held out or not, each with what it shows: what the scorer learns from.

Besides lit pictures there are those of the albedo alone, and textureless ones, which show the geometry and no colour.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from tqdm import tqdm

from dreamtime.cameras import angles_from_position, sample_cameras
from dreamtime.prompts import View, view_of
from dreamtime.shading import sample_light
from dreamtime.toybox.kinds import SOLIDS
from dreamtime.toybox.meanings import Description
from dreamtime.toybox.pictures import AT_ONCE, CPU, RESOLUTION, WORLD_CAMERAS, of_one_shape, render, setting
from dreamtime.toybox.world import Object, all_pairs, all_things, two_colored_things
from dreamtime.types import Cameras, Light

Part = TypeVar("Part")
Made = TypeVar("Made")
Shares = tuple[float, float, float, float]

BARE_SHARE = 0.2  # of the scenes are drawn twice more: their albedo alone, and without colours
SHARES = (0.30, 0.35, 0.15, 0.20)  # of pictures: solids, other kinds, things of two colours, pairs
VIEW_MARGIN = 0.14  # radians, 8 degrees: closer to the border between two views, a picture's view is not told


@dataclass(frozen=True)
class Pictures:
    """Pictures and what each of them shows."""

    images: UInt8[Tensor, "B H W 3"]
    descriptions: list[Description]


# -- pictures of everything


def random_objects(count: int, generator: Generator, shares: Shares = SHARES) -> list[Object]:
    """Objects of the whole world by their shares."""
    pools: list[Sequence[Object]] = [
        [thing for thing in all_things() if thing.kind in SOLIDS],
        [thing for thing in all_things() if thing.kind not in SOLIDS],
        two_colored_things(),
        all_pairs(),
    ]
    chosen = torch.tensor(shares).multinomial(count, replacement=True, generator=generator)
    places = torch.rand(count, generator=generator)
    return [pools[pool][int(place * len(pools[pool]))] for pool, place in zip(chosen.tolist(), places.tolist(), strict=True)]


def sure_view(elevation: float, azimuth: float) -> View | None:
    """The view at these angles in radians, or None close to the border between two."""
    around = [(e, a) for e in (-VIEW_MARGIN, VIEW_MARGIN) for a in (-VIEW_MARGIN, VIEW_MARGIN)]
    views = {view_of(elevation + e, azimuth + a) for e, a in around}
    return views.pop() if len(views) == 1 else None


def three_ways(
    objects: Sequence[Object], cameras: Cameras, light: Light, background: Float[Tensor, "B 3"]
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"]]:
    """Pictures of objects of one shape: lit, their albedo alone, and textureless.

    Lambert's law is linear in the albedo (DreamFusion, Eq. 7), so the light alone is the lit picture over the albedo.
    """
    black = torch.zeros_like(background)
    lit, cover = render(objects, cameras, light, black)
    albedo, _ = render(objects, cameras, Light(light.positions, torch.ones_like(light.ambient)), black)
    bare = cover * (lit / albedo.clamp(min=1e-6)).mean(dim=-1, keepdim=True).expand_as(lit)
    behind = (1 - cover) * background[:, None, None]
    return lit + behind, albedo + behind, bare + behind


def on_threads(make: Callable[[Part], Made], parts: Sequence[Part], device: torch.device) -> Iterator[Made]:
    """What is made of each part, in their order: on a CPU by as many threads as torch has, each by itself.

    The parts' tensors are too small for several threads to share one.
    """
    if device.type != "cpu":
        yield from map(make, parts)
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(make, parts)
    finally:
        torch.set_num_threads(threads)  # what a thread sets for itself, later ones begin with


def draw(count: int, generator: Generator, device: torch.device = CPU, shares: Shares = SHARES) -> Pictures:
    """About `count` pictures of random objects, under the cameras, lights and backgrounds of the embedded model's training.

    All of them are lit, some are there in the two other ways, too. They are on the device that drew them, in an order that
    does not depend on it.
    """
    at_once = AT_ONCE[device.type]
    objects = random_objects(round(count / (1 + 2 * BARE_SHARE)) + 1, generator, shares)
    cameras = sample_cameras(len(objects), RESOLUTION, WORLD_CAMERAS, generator)
    light = sample_light(cameras, generator)
    grey = torch.rand(len(objects), 1, generator=generator).expand(-1, 3)
    thrice = torch.rand(len(objects), generator=generator) < BARE_SHARE
    angles = torch.stack(angles_from_position(cameras.positions)[:2], dim=-1).tolist()
    shown = [Description(what, sure_view(*angle)) for what, angle in zip(objects, angles, strict=True)]
    chosen = [(~thrice).nonzero()[:, 0], thrice.nonzero()[:, 0]]
    parts = [rows[part] for rows in chosen for part in of_one_shape([objects[row] for row in rows.tolist()], at_once)]

    def pictures_of(rows: Int[Tensor, " R"]) -> list[UInt8[Tensor, "R H W 3"]]:
        some, where = [objects[row] for row in rows.tolist()], setting(cameras, light, grey, rows, device)
        ways = three_ways(some, *where) if thrice[rows[0]] else render(some, *where)[:1]
        return [(picture * 255 + 0.5).to(torch.uint8) for picture in ways]

    images = tuple(list[Tensor]() for _ in range(3))  # lit, albedo alone, bare
    told = tuple(list[Description]() for _ in range(3))
    for rows, drawn in zip(parts, tqdm(on_threads(pictures_of, parts, device), "draw", len(parts)), strict=True):
        which = [shown[row] for row in rows.tolist()]
        for way, picture in enumerate(drawn):
            images[way].append(picture)
            told[way].extend(which if way < 2 else [replace(each, colored=False) for each in which])
    return Pictures(torch.cat([*chain(*images)]), [*chain(*told)])
