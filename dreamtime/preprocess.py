"""From any picture to the object alone: reading, cutting out, centring.

Three steps, each a function of its own: `read_picture` makes eight-bit RGBA of whatever a person sends, `cut_out` finds the
object where the picture's alpha does not already say it, `centred` puts it into the middle of a square. `process` is all three.
Pictures are read in bounded memory, nothing is downloaded, and only `save_reference` writes.
"""

import io
import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError, features
from torch import Tensor

from dreamtime.checkpoints import write_atomically
from dreamtime.matting import LEAST_OBJECT, object_mask, rembg_mask, rembg_weights, with_alpha

log = logging.getLogger(__name__)
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)  # nobody reads a warning: `read_picture` refuses

Source: TypeAlias = str | Path | bytes | Image.Image
RemoveBackground = Literal["auto", "always", "never"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", *(["AVIF"] if features.check("avif") else []))
HEIC = (
    b"heic",
    b"heix",
    b"hevc",
    b"heim",
    b"heis",
    b"mif1",
    b"msf1",
)  # brands of the format that telephones take photographs in
TIFF = (b"II*\0", b"MM\0*")  # what such a file begins with, its bytes in either order
MAX_PIXELS = 80_000_000  # below Pillow's own alarm
MIN_SIDE = 16  # pixels
MAX_ASPECT = 32  # long side over short side
LONG_SIDE = 1024  # pixels that a picture keeps
WHITES = {"I;16": (65535.0,), "I;16B": (65535.0,), "I": (255.0, 65535.0, 2.0**31), "F": (1.0, 255.0, 65535.0)}

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of that EXIF orientation upright."""

LEAST_PIXELS = 64  # that must be visible where a picture's own alpha is taken
SEE_THROUGH = 250  # an alpha below this lets something through
NOTICEABLE = 4  # of 255, that some colour changes by where a profile means anything but sRGB


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
        found = f"{name!r} is a folder" if Path(source).is_dir() else f"there is no file {name!r} on this disk"
        raise BadPicture(f"A picture file is needed, but {found}.")
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
    if start[4:8] == b"ftyp" and start[8:12] in HEIC:
        return f"The file {name} is a HEIC photograph: {known}, so export it as JPEG first."
    if b"<svg" in start.lower():
        return f"The file {name} is an SVG drawing: {known}, so export it as PNG first."
    if start[:4] in TIFF:
        return f"The file {name} is a TIFF of a kind that cannot be read here: save it with 8 or 16 bits, or as PNG."
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
        if opened.mode == "CMYK":
            notes.append("inks turned into red, green and blue")
        elif opened.mode in WHITES:
            notes.append("brightness scaled to eight bits")
        if opened.format == "PNG":
            opened.load()  # or `turn_of` would, as the EXIF block may come last, and take the picture's damage for that one's
        turn = turn_of(opened)
        image, profile = in_srgb(reduced(opened), opened.info.get("icc_profile"))
        if profile:
            notes.append(f"colours converted from {profile}")
        if turn is not None:
            image = image if opened.format == "TIFF" else image.transpose(turn)  # a TIFF Pillow has turned already
            notes.append("turned as its EXIF tag says")
        return Picture(image.convert("RGBA"), tuple(notes))
    except BadPicture:
        raise
    except Exception as error:  # as above
        raise BadPicture(f"The data of {name} is damaged or cut off: it cannot be decoded to its end.") from error


def turn_of(opened: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright by its EXIF tag; None where it is, or where there is none that can be read."""
    try:
        return TURNS.get(opened.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow raises this and that over a block that is not as it should be; the picture may well be
        return None


def reduced(opened: Image.Image) -> Image.Image:
    """At most `LONG_SIDE` pixels long and eight bits deep; what is deeper is scaled, not cut."""
    if opened.mode in WHITES:
        deep = opened.convert("F")  # of other modes the extrema are not always to be had
        kept = np.asarray(shrunk(deep))
        if not np.isfinite(kept).all():  # what is no number makes none of what it is blended with
            raise BadPicture("A picture of floating point numbers needs finite ones, and this one has others.")
        _, high = deep.getextrema()
        white = next((white for white in WHITES[opened.mode] if high <= white), high)
        values = kept * (255 / white)
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


def in_srgb(image: Image.Image, profile: object) -> tuple[Image.Image, str]:
    """A picture as the colour profile that came with it means it, and what that profile calls itself.

    The picture as it is, and no name, where there is no profile that can be read and applied, or where it changes next to
    nothing: most pictures come with one of sRGB.
    """
    if not isinstance(profile, bytes) or image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image, ""
    bare = image.convert(image.mode.removesuffix("A"))
    try:
        meant = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = printable(ImageCms.getProfileDescription(meant)) or "their profile"
        converted = ImageCms.profileToProfile(bare, meant, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception:  # a damaged profile, one for other pictures, or a Pillow without the library for them
        return image, ""
    if converted is None:  # only where one was to be changed in its place
        return image, ""
    changes = np.asarray(converted, dtype=np.int16) - np.asarray(bare.convert("RGB"))
    if abs(changes).max() < NOTICEABLE:
        return image, ""
    if image.mode.endswith("A"):
        converted.putalpha(image.getchannel("A"))
    return converted, name


def printable(text: str) -> str:
    """The beginning of a text that a stranger has written, in one line and without what would move a terminal's cursor."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())[:60]


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
        if (seen := int((alpha >= alpha.max() / 2).sum())) < LEAST_PIXELS:
            raise BadPicture(
                f"Only {seen} of the picture's pixels are visible: an object of at least {LEAST_PIXELS} is needed."
            )
        note = "object taken from the picture's alpha" if says_something else "background kept"
        return Picture(picture.image, (*picture.notes, note))
    white = Image.new("RGBA", picture.image.size, "white")
    opaque = Image.alpha_composite(white, picture.image).convert("RGB")
    mask, how = object_in(opaque)
    share = float((mask > 0.5).mean())
    if share < LEAST_OBJECT:
        raise BadPicture("Nothing in the picture stands out from its background: an object before a plainer one is needed.")
    notes = (*picture.notes, f"background removed by {how}")
    if touches_the_frame(mask):
        notes += ("the object reaches the picture's edge, where it may be cut",)
    return Picture(with_alpha(opaque, mask), notes)


def touches_the_frame(mask: Float[np.ndarray, "H W"]) -> bool:
    """Whether an object holds a tenth of one of the picture's sides."""
    seen = mask > 0.5
    return any(side.mean() > 0.1 for side in (seen[0], seen[-1], seen[:, 0], seen[:, -1]))


def object_in(opaque: Image.Image) -> tuple[Float[np.ndarray, "H W"], str]:
    """Which pixels are the object, and what told it: rembg if it and its weights are here and work, else the border."""
    failed = ""
    if weights := rembg_weights():
        try:
            return rembg_mask(opaque, weights), "rembg"
        except (Exception, SystemExit):  # an optional package, its runtime and a file of weights: whatever is wrong with them
            log.warning("rembg failed", exc_info=True)
            failed = " (rembg is installed and failed)"
    return object_mask(np.asarray(opaque, dtype=np.float32) / 255), f"its colours at the border{failed}"


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
    alpha = np.asarray(rgba.getchannel("A"))
    rows, columns = (np.flatnonzero((alpha >= np.max(alpha) / 2).any(axis)) for axis in (1, 0))
    top, bottom, left, right = (int(end) for end in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    side = max(bottom - top, right - left) / foreground_ratio
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    reach = math.ceil(side / resolution) + 1  # that the filter looks beyond the square
    corner = (math.floor(x) - reach, math.floor(y) - reach)
    size = math.ceil(side) + 2 * reach + 1
    straight = np.asarray(rgba.crop((*corner, corner[0] + size, corner[1] + size)), dtype=np.float32) / 255  # zero outside
    padded = np.dstack([straight[..., :3] * straight[..., 3:], straight[..., 3]])
    x, y = x - corner[0], y - corner[1]
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
