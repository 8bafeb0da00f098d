"""From any picture to the object alone: reading, cutting out, centring.

Three steps, each a function of its own: `read_picture` makes eight-bit RGBA of whatever a person sends, `cut_out` finds the
object where the picture's alpha does not already say it, `centred` puts it into the middle of a square. `process` is all three.
Pictures are read in bounded memory, nothing is downloaded, and only `save_reference` writes.
"""

import importlib.util
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg
from scipy.spatial import cKDTree
from skimage.color import rgb2lab
from torch import Tensor

from dreamtime.checkpoints import write_atomically

Source: TypeAlias = str | Path | bytes | Image.Image
RemoveBackground = Literal["auto", "always", "never"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 80_000_000  # below Pillow's own alarm
MIN_SIDE = 16  # pixels
MAX_ASPECT = 32  # long side over short side
LONG_SIDE = 1024  # pixels that a picture keeps
WHITES = {"I;16": (65535.0,), "I;16B": (65535.0,), "I": (255.0, 65535.0, 2.0**31), "F": (1.0, 255.0, 65535.0)}

SEE_THROUGH = 250  # an alpha below this lets something through
CUTTING_SIDE = 144  # pixels of the long side at which object and background are told apart
LEAST_OBJECT = 0.003  # of a picture's pixels; less is dust


class BadPicture(ValueError):
    """A picture that no object can be taken from, with the one sentence that says why."""


@dataclass(frozen=True)
class Picture:
    """A picture as read: RGBA with eight bits, at most `LONG_SIDE` pixels long, upright, and what was done to it."""

    image: Image.Image
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """The object alone on white, as the model sees it, and what was done to get there.

    Colour and mask are multiples of 1/255 before they are composited, so that saving loses nothing.
    """

    image: Float[Tensor, "H W 3"]  # in [0, 1]
    mask: Float[Tensor, "H W 1"]  # the object's share of each pixel
    notes: tuple[str, ...] = ()


# -- reading


def opened_file(path: Path) -> io.BufferedReader:
    """The file, open; raises `BadPicture` where it may not be read."""
    try:
        return path.open("rb")
    except OSError as error:
        raise BadPicture(f"The picture {path.name} cannot be read: {error.strerror or error}.") from error


def read_picture(source: Source) -> Picture:
    """Whatever a person sends as an upright RGBA picture of bounded size; raises `BadPicture` for what is none.

    The size is checked in the header, before a pixel is decoded; of an animation the first frame is taken.
    """
    name = Path(source).name if isinstance(source, str | Path) else "the picture"
    if isinstance(source, Image.Image):
        check_size(source, name)
        return decoded(source, name)
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise BadPicture(f"A picture file is needed, but there is no file {name}.")
    with io.BytesIO(source) if isinstance(source, bytes) else opened_file(Path(source)) as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadPicture(f"A picture may have at most {MAX_PIXELS // 10**6} megapixels, and {name} has more.") from error
        except UnidentifiedImageError as error:
            file.seek(0)
            raise BadPicture(unknown_format(name, file.read(1024))) from error
        except Exception as error:  # a decoder fails on damaged bytes in whatever way it happens to
            raise BadPicture(f"The header of {name} is damaged: the picture cannot be read.") from error
        check_size(image, name)
        scale = 2 * LONG_SIDE / max(image.size)
        image.draft(None, tuple(int(scale * side) for side in image.size))  # a large JPEG is decoded at 1/2, 1/4 or 1/8
        return decoded(image, name)


def unknown_format(name: str, start: bytes) -> str:
    """Why a file that starts with these bytes is no picture, in one sentence."""
    known = f"a picture in one of the formats {', '.join(FORMATS)} is needed"
    if not start:
        return f"The file {name} is empty: {known}."
    if b"<svg" in start.lower():
        return f"The file {name} is an SVG drawing: {known}, so export it as PNG first."
    if b"\0" not in start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return f"The file {name} holds text, whatever its name says: {known}."
    return f"The file {name} is of no known format: {known}."


def check_size(image: Image.Image, name: str) -> None:
    """Refuse what is too large, too small or too thin, by the header alone."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise BadPicture(f"A picture may have at most {limit} megapixels, and {name} has {width} × {height} pixels.")
    if min(width, height) < MIN_SIDE:
        raise BadPicture(f"A picture needs at least {MIN_SIDE} pixels per side, and {name} has {width} × {height}.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadPicture(f"A picture may be at most {MAX_ASPECT} times as long as wide, and {name} has {width} × {height}.")


def decoded(opened: Image.Image, name: str) -> Picture:
    """The first frame of an opened picture, reduced as early as possible, upright, RGBA."""
    notes = list[str]()
    try:
        frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)  # an MPO's others are previews
        if frames > 1:
            opened.seek(0)
            notes.append(f"first of {frames} {'pages' if opened.format == 'TIFF' else 'frames'}")
        orientation = opened.getexif().get(0x0112, 1)
        image = reduced(opened)
        if orientation in range(2, 9):
            image.getexif()[0x0112] = orientation
            image = ImageOps.exif_transpose(image)
            notes.append("turned as its EXIF tag says")
        return Picture(image.convert("RGBA"), tuple(notes))
    except BadPicture:
        raise
    except Exception as error:  # as above
        raise BadPicture(f"{name[0].upper()}{name[1:]} is damaged or cut off: it cannot be decoded to its end.") from error


def reduced(opened: Image.Image) -> Image.Image:
    """At most `LONG_SIDE` pixels long and eight bits deep; what is deeper is scaled, not cut."""
    if opened.mode in WHITES:
        low, high = opened.getextrema()
        if not np.isfinite([low, high]).all():
            raise BadPicture("A picture of floating point numbers needs finite ones, and this one has others.")
        white = next((white for white in WHITES[opened.mode] if high <= white), high)
        values = np.asarray(shrunk(opened.convert("F"))) * (255 / white)
        return Image.fromarray((values + 0.5).clip(0, 255).astype(np.uint8))
    direct = opened.mode in ("L", "RGB", "CMYK", "LA", "RGBA") and "transparency" not in opened.info
    return shrunk(opened if direct else opened.convert("RGBA"))


def shrunk(image: Image.Image) -> Image.Image:
    """The picture itself, or a smaller one of `LONG_SIDE` pixels."""
    scale = LONG_SIDE / max(image.size)
    if scale >= 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


# -- cutting out


def cut_out(picture: Picture, remove_background: RemoveBackground = "auto") -> Picture:
    """The picture with an alpha that is the object; raises `BadPicture` where there is nothing to see.

    An alpha that says something is respected; otherwise rembg removes the background if it and its weights are here already,
    else `object_mask` does. "always" ignores the alpha, "never" removes nothing.
    """
    alpha = np.asarray(picture.image.getchannel("A"))
    if alpha.max() < 256 - SEE_THROUGH:
        raise BadPicture("The picture is fully transparent: an object is needed.")
    says_something = (alpha < SEE_THROUGH).mean() > LEAST_OBJECT and np.ptp(alpha) >= 256 - SEE_THROUGH
    if remove_background == "never" or (remove_background == "auto" and says_something):
        note = "object taken from the picture's alpha" if says_something else "background kept"
        return Picture(picture.image, (*picture.notes, note))
    white = Image.new("RGBA", picture.image.size, "white")
    opaque = Image.alpha_composite(white, picture.image).convert("RGB")
    weights = rembg_weights()
    mask = object_mask(np.asarray(opaque, dtype=np.float32) / 255) if weights is None else rembg_mask(opaque, weights)
    share = float((mask > 0.5).mean())
    if share < LEAST_OBJECT:
        raise BadPicture("Nothing in the picture stands out from its background: an object before a plainer one is needed.")
    how = "its colours at the border" if weights is None else "rembg"
    return Picture(with_alpha(opaque, mask), (*picture.notes, f"background removed by {how}"))


def rembg_weights() -> Path | None:
    """Where rembg's weights lie on this disk, or None if it or they are not here; nothing is ever downloaded."""
    home = os.environ.get("U2NET_HOME") or os.path.join(os.environ.get("XDG_DATA_HOME", "~"), ".u2net")
    weights = Path(home).expanduser() / "u2net.onnx"
    return weights if weights.is_file() and importlib.util.find_spec("rembg") else None


def rembg_mask(opaque: Image.Image, weights: Path) -> Float[np.ndarray, "H W"]:
    """The object as rembg's U2-Net sees it; a session of its own model file never looks for another."""
    from rembg import new_session, remove

    mask = remove(opaque, session=new_session("u2net_custom", model_path=str(weights)), only_mask=True)
    return np.asarray(mask.convert("L"), dtype=np.float32) / 255


def object_mask(rgb: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """What stands out from the colours at the picture's border, in [0, 1], zero everywhere where nothing does.

    How unlike the border each pixel is gives a first guess; a random walk spreads it up to the edges of things. What is
    background then tells, pixel by pixel, which of the rest is only its shadow, twice.
    """
    small = resized(rgb, CUTTING_SIDE / max(rgb.shape))
    lab = rgb2lab(small)
    smooth = ndimage.gaussian_filter(lab, (0.7, 0.7, 0))
    at_border = frame(*small.shape[:2])
    trust = np.where(at_border, 20.0, 1.0)
    unlike = unlike_the_border(lab, at_border)
    inside = random_walk(unlike, trust, smooth)
    for _ in range(2):
        lit = unlike_its_surroundings(small, inside)
        in_doubt = (lit < 0.5) & (unlike > 0.5) & ~at_border
        inside = random_walk(np.minimum(unlike, lit), np.where(in_doubt, 0.05, trust), smooth)
    solid = main_parts(inside > 0.5, np.minimum(unlike, lit)).astype(np.float32)
    if not solid.any():
        return np.zeros_like(rgb[..., 0])
    return sharpened(guided_filter(resized(solid[..., None], size=rgb.shape[:2])[..., 0], rgb))


def frame(height: int, width: int, share: float = 0.03) -> Bool[np.ndarray, "H W"]:
    """The pixels along the four sides."""
    thickness = max(2, round(share * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[thickness:-thickness, thickness:-thickness] = True
    return ~inside


def coordinates(height: int, width: int) -> Float[np.ndarray, "H W 2"]:
    """Row and column of each pixel, from -1 to 1."""
    return np.stack(np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"), axis=-1)


def smooth_background(lab: Float[np.ndarray, "H W 3"], at_border: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W 3"]:
    """The quadratic in x and y that passes through most of the border, fitted by reweighted least squares (Cauchy weights)."""
    y, x = np.moveaxis(coordinates(*at_border.shape), -1, 0)
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    terms, seen = basis[at_border], lab[at_border]
    weights = np.ones(len(seen))
    for _ in range(10):
        coefficients = np.linalg.lstsq(terms * weights[:, None], seen * weights[:, None], rcond=None)[0]
        residual = seen - terms @ coefficients
        spread = 1.4826 * np.median(np.abs(residual), axis=0) + 0.5
        weights = (1 + ((residual / spread) ** 2).sum(-1) / 9) ** -0.5
    return basis @ coefficients


def unlike_the_border(lab: Float[np.ndarray, "H W 3"], at_border: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """How sure it is, in [0, 1], that a pixel's colour is none of the border's, nor of the gradient through it.

    The distance is that to the fourth-nearest border pixel in CIELAB and, lightly, in place, relative to what is usual at
    the border itself: noise and texture widen it.
    """
    place = 3.0 * coordinates(*at_border.shape)
    distances = list[np.ndarray]()
    for expected in (np.zeros_like(lab), smooth_background(lab, at_border)):
        features = np.concatenate([lab - expected, place], axis=-1)
        known = features[at_border]
        tree = cKDTree(known[:: max(1, len(known) // 1500)])
        usual = np.quantile(tree.query(tree.data, k=5)[0][:, -1], 0.7)
        distances.append(tree.query(features, k=4)[0][..., -1] / (3.0 + usual))
    return surely(np.minimum(*distances))


def unlike_its_surroundings(
    rgb: Float[np.ndarray, "H W 3"], inside: Float[np.ndarray, "H W"], darkest: float = 0.45
) -> Float[np.ndarray, "H W"]:
    """How sure it is, in [0, 1], that a pixel is neither the background around it nor that background in shadow.

    The background under the object is that outside, blurred inwards. A shadow scales all channels alike, by no less than
    `darkest`; the darker, the less it is believed.
    """
    outside = np.clip(1 - 4 * ndimage.maximum_filter(inside, 3), 0, 1) + 1e-6
    background, total = np.zeros_like(rgb), np.zeros_like(outside)
    for sigma, share in ((5.0, 1e-1), (15.0, 1e-3), (45.0, 1e-9)):  # near pixels count most, far ones fill
        background += share * ndimage.gaussian_filter(rgb * outside[..., None], (sigma, sigma, 0), mode="nearest")
        total += share * ndimage.gaussian_filter(outside, sigma, mode="nearest")
    background /= total[..., None]
    brightness = (rgb * background).sum(-1) / (background**2).sum(-1).clip(1e-4)
    shade = brightness.clip(darkest, 1)
    distance = np.linalg.norm(rgb2lab(rgb / shade[..., None]) - rgb2lab(background), axis=-1)
    usual = np.quantile(distance[inside < 0.1], 0.7) if (inside < 0.1).any() else 0.0
    return surely(distance / (4.0 + usual) + 2.0 * (1 - shade))


def surely(distance: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """A distance in units of what is usual as a probability of being something else."""
    return 1 - np.exp(-((distance / 2) ** 2))


def random_walk(
    guess: Float[np.ndarray, "H W"], trust: Float[np.ndarray, "H W"], lab: Float[np.ndarray, "H W 3"], gamma: float = 0.05
) -> Float[np.ndarray, "H W"]:
    """The x that minimises sum_ij w_ij (x_i - x_j)^2 + gamma sum_i trust_i (x_i - guess_i)^2 over neighbours in the picture.

    w falls with the difference in colour, so x changes at edges (Grady 2005, random walks with priors). The minimum solves
    (L + gamma diag(trust)) x = gamma trust guess with the graph's Laplacian L, which is positive definite.
    """
    index = np.arange(guess.size).reshape(guess.shape)
    most, rest, whole = slice(None, -1), slice(1, None), slice(None)
    here = [(whole, most), (most, whole), (most, most), (rest, most)]
    there = [(whole, rest), (rest, whole), (rest, rest), (most, rest)]  # to the right, below, and along the two diagonals
    gaps = [((lab[a] - lab[b]) ** 2).sum(-1).ravel() for a, b in zip(here, there, strict=True)]
    width = 2 * np.concatenate(gaps).mean() + 1e-6
    weights = [(np.exp(-gap / width) + 1e-3) / length for gap, length in zip(gaps, (1, 1, 2**0.5, 2**0.5), strict=True)]
    ends = [np.concatenate([index[some].ravel() for some in side]) for side in (here, there)]
    one_way = sparse.coo_matrix((np.concatenate(weights), tuple(ends)), (guess.size, guess.size))
    both_ways = (one_way + one_way.T).tocsr()
    pull = gamma * trust.ravel()
    system = sparse.diags_array(np.asarray(both_ways.sum(axis=1)).ravel() + pull) - both_ways
    return cg(system.tocsr(), pull * guess.ravel(), guess.ravel(), rtol=1e-4)[0].reshape(guess.shape)


def main_parts(inside: Bool[np.ndarray, "H W"], unlike: Float[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The large pieces of a mask, their holes filled except where background is seen through them."""
    pieces, count = ndimage.label(inside, np.ones((3, 3)))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    areas[0] = 0
    kept = (areas >= max(0.1 * areas.max(), LEAST_OBJECT * inside.size, 1))[pieces]
    holes, count = ndimage.label(ndimage.binary_fill_holes(kept) & ~kept)
    sizes, surety = np.bincount(holes.ravel()), ndimage.mean(unlike, holes, range(count + 1))
    filled = (sizes < 8) | (np.asarray(surety) > 0.3)
    filled[0] = False
    return kept | filled[holes]


def resized(
    image: Float[np.ndarray, "H W c"], scale: float = 1.0, size: Sequence[int] | None = None
) -> Float[np.ndarray, "h w c"]:
    """An image by a factor or to (height, width), antialiased."""
    height, width = size or (max(8, round(side * scale)) for side in image.shape[:2])
    channels = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(image.shape[-1])]
    return np.stack([np.asarray(c.resize((width, height), Image.Resampling.BICUBIC)) for c in channels], axis=-1)


def guided_filter(values: Float[np.ndarray, "H W"], rgb: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """Values that follow the edges of a picture: locally linear in its colours (He, Sun & Tang 2010, Eq. 19)."""
    size = 2 * max(1, round(1.5 * max(values.shape) / CUTTING_SIDE)) + 1

    def mean(image: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(image, (size, size, *([0] * (image.ndim - 2))), mode="nearest")

    center, level = mean(rgb), mean(values)
    products = mean((rgb[..., :, None] * rgb[..., None, :]).reshape(*values.shape, 9)).reshape(*values.shape, 3, 3)
    covariance = products - center[..., :, None] * center[..., None, :] + 1e-4 * np.eye(3)
    shared = mean(rgb * values[..., None]) - center * level[..., None]
    slope = np.linalg.solve(covariance, shared[..., None])[..., 0]
    return (mean(slope) * rgb).sum(-1) + mean(level - (slope * center).sum(-1))


def sharpened(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """The same border at one half, steeper around it, in [0, 1]."""
    return (0.5 + 2.0 * (values - 0.5)).clip(0, 1)


def with_alpha(opaque: Image.Image, mask: Float[np.ndarray, "H W"]) -> Image.Image:
    """The picture under a mask; pixels that are part background take the colour of the nearest that is all object."""
    rgb = np.asarray(opaque)
    whole = mask > 0.95
    if whole.any():
        rows, columns = ndimage.distance_transform_edt(~whole, return_distances=False, return_indices=True)
        rgb = rgb[rows, columns]
    return Image.fromarray(np.dstack([rgb, (mask * 255 + 0.5).astype(np.uint8)]))


# -- centring


def centred(rgba: Image.Image, resolution: int, foreground_ratio: float = 0.85) -> Float[Tensor, "H W 4"]:
    """The object in the middle of a square, its larger side `foreground_ratio` of the square's: straight RGBA in [0, 1].

    Resampled with alpha-weighted colours, so that what is seen through never bleeds into the edge, and by a filter that is
    never negative, so that no edge rings.
    """
    if not 0.3 <= foreground_ratio <= 1:
        raise ValueError(f"The foreground ratio must be from 0.3 to 1, got {foreground_ratio}.")
    if resolution < MIN_SIDE:
        raise ValueError(f"The resolution must be at least {MIN_SIDE}, got {resolution}.")
    straight = np.asarray(rgba, dtype=np.float32) / 255
    alpha = straight[..., 3]
    rows, columns = (np.flatnonzero((alpha >= alpha.max() / 2).any(axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left) / foreground_ratio
    margin = int(np.ceil(side)) + 1
    padded = np.pad(np.dstack([straight[..., :3] * alpha[..., None], alpha]), ((margin, margin), (margin, margin), (0, 0)))
    x, y = (left + right - side) / 2 + margin, (top + bottom - side) / 2 + margin
    square = (resolution, resolution)
    channels = [
        Image.fromarray(padded[..., c]).resize(square, Image.Resampling.HAMMING, (x, y, x + side, y + side)) for c in range(4)
    ]
    premultiplied = torch.from_numpy(np.stack([np.asarray(channel) for channel in channels], axis=-1))
    color, opacity = premultiplied.split([3, 1], dim=-1)
    visible = opacity > 0.5 / 255
    color = torch.where(visible, color / opacity.clamp(min=1e-6), 1.0)
    return torch.cat([color, opacity], dim=-1).clamp(0, 1)


def process(
    source: Source, resolution: int, foreground_ratio: float = 0.85, remove_background: RemoveBackground = "auto"
) -> Reference:
    """Any picture as the reference of a model of this resolution; raises `BadPicture`, or ValueError for the numbers."""
    picture = cut_out(read_picture(source), remove_background)
    return on_white(centred(picture.image, resolution, foreground_ratio), picture.notes)


def on_white(rgba: Float[Tensor, "H W 4"], notes: tuple[str, ...]) -> Reference:
    """Straight RGBA, rounded to eight bits, over white."""
    color, mask = ((rgba * 255).round() / 255).split([3, 1], dim=-1)
    return Reference(color * mask + (1 - mask), mask, notes)


def straight_rgba(reference: Reference) -> Image.Image:
    """A reference as the RGBA picture that it was before white came behind it; the inverse of `on_white`."""
    visible = reference.mask > 0
    color = torch.where(visible, 1 - (1 - reference.image) / reference.mask.clamp(min=1 / 255), 1.0)
    rgba = torch.cat([color, reference.mask], dim=-1)
    return Image.fromarray((rgba * 255).round().clamp(0, 255).byte().numpy())


def on_checkerboard(reference: Reference, tile: int = 8) -> Image.Image:
    """The object over grey tiles, for people: what is transparent shows."""
    tiles = np.indices(reference.mask.shape[:2]) // tile
    grey = np.where(tiles.sum(axis=0) % 2, 190, 225).astype(np.uint8)
    board = Image.fromarray(np.dstack([grey] * 3)).convert("RGBA")
    return Image.alpha_composite(board, straight_rgba(reference)).convert("RGB")


# -- to disk and back


def save_reference(path: Path, reference: Reference) -> None:
    """One RGBA PNG that holds the reference exactly, its notes in a text chunk."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("notes", "\n".join(reference.notes))
    write_atomically(path, lambda temporary: straight_rgba(reference).save(temporary, "PNG", pnginfo=text))


def load_reference(path: Path) -> Reference:
    """What `save_reference` wrote; raises `BadPicture` for anything that is no RGBA PNG."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            rgba, notes = image.copy(), image.text.get("notes", "")
    except (OSError, SyntaxError, ValueError) as error:
        raise BadPicture(f"The reference {path.name} cannot be read: {error}.") from error
    if rgba.mode != "RGBA":
        raise BadPicture(f"A reference is an RGBA picture, and {path.name} is {rgba.mode}.")
    return on_white(torch.from_numpy(np.array(rgba)).float() / 255, tuple(notes.splitlines()))
