import io
import math
import struct
import subprocess
import sys
import types
import zlib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw
from torch import Generator

from dreamtime import preprocess
from dreamtime.preprocess import (
    LONG_SIDE,
    BadPicture,
    Reference,
    centred,
    cut_out,
    load_reference,
    on_checkerboard,
    process,
    read_picture,
    save_reference,
)


@pytest.fixture(autouse=True)
def without_rembg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test meets the weights that someone may have."""
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "nowhere"))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def sticker(width: int = 80, height: int = 60, box: tuple[int, int, int, int] = (10, 20, 50, 40)) -> Image.Image:
    """An opaque red box on nothing; `box` is left, top, right, bottom, the last two outside it."""
    image = Image.new("RGBA", (width, height), (0, 0, 255, 0))
    image.paste((200, 30, 20, 255), box)
    return image


def photo(size: int = 128) -> Image.Image:
    """A red disc before a grey gradient."""
    grey = np.linspace(150, 220, size)[:, None, None].repeat(size, 1).repeat(3, 2)
    image = Image.fromarray(grey.astype(np.uint8))
    ImageDraw.Draw(image).ellipse((size // 4, size // 4, 3 * size // 4, 3 * size // 4), fill=(200, 30, 20))
    return image


def pixels(source: preprocess.Source) -> np.ndarray:
    return np.asarray(read_picture(source).image)


def test_an_object_that_the_frame_cuts_is_cut_out_and_told():
    image = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(image).ellipse((60, 30, 170, 110), fill=(200, 30, 20))
    found = cut_out(read_picture(encoded(image)))
    assert found.notes[-1] == "the object reaches the picture's edge, where it may be cut"
    assert np.asarray(found.image)[70, 120, 3] == 255
    assert cut_out(read_picture(encoded(photo()))).notes[-1].startswith("background removed by")


# -- bad input: one sentence each

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
PNG, JPEG = encoded(NOISE), encoded(NOISE, "JPEG")
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
NOT_A_NUMBER = Image.fromarray(np.full((20, 20), np.nan, dtype=np.float32))

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"a picture of a red cube\n", "holds text, whatever its name says"),
    "svg": (SVG, "SVG drawing"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC photograph"),
    "random bytes": (bytes(range(256)) * 4, "no known format"),
    "another format": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\0", "no known format"),
    "truncated png": (PNG[: len(PNG) // 2], "damaged or cut off"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "damaged or cut off"),
    "corrupt png": (PNG[:60] + bytes(200) + PNG[260:], "damaged"),
    "only a signature": (PNG[:8], "no known format"),
    "one pixel": (encoded(Image.new("RGB", (1, 1))), "at least 16 pixels per side.*1 × 1"),
    "one row": (encoded(Image.new("RGB", (400, 15))), "at least 16 pixels per side.*400 × 15"),
    "a ribbon": (encoded(Image.new("RGB", (2000, 16))), "at most 32 times as long as wide.*2000 × 16"),
    "100 megapixels": (png_header(10_000, 10_000), "at most 80 megapixels"),
    "just too many": (png_header(8_944, 8_945), "at most 80 megapixels.*8944 × 8945"),
    "a bomb": (png_header(2**30, 2**30), "at most 80 megapixels"),
    "no numbers": (encoded(NOT_A_NUMBER, "TIFF"), "finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_one_sentence(name: str, tmp_path: Path):
    data, words = BAD[name]
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        with pytest.raises(BadPicture, match=words) as refusal:
            read_picture(source)
        sentence = str(refusal.value)
        assert sentence.endswith(".")
        assert sentence[0].isupper()
        assert "Photo.png" not in sentence, "a name stays as it is"
        assert "\n" not in sentence
        assert str(tmp_path) not in sentence
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    for source, found in (
        (tmp_path / "photo.png", "there is no file 'photo.png' on this disk"),
        ("https://pictures.example/a.png", "there is no file 'a.png' on this disk"),
        (tmp_path, f"'{tmp_path.name}' is a folder"),
    ):
        with pytest.raises(BadPicture, match=f"A picture file is needed, but {found}"):
            read_picture(source)


def test_an_opened_picture_is_checked_like_a_file():
    with pytest.raises(BadPicture, match="at least 16 pixels"):
        read_picture(Image.new("RGB", (1, 1)))
    with pytest.raises(BadPicture, match="The data of the picture is damaged or cut off"):
        read_picture(Image.open(io.BytesIO(PNG[: len(PNG) // 2])))


@pytest.mark.parametrize("mode", ["auto", "always", "never"])
def test_a_fully_transparent_picture_is_refused(mode: preprocess.RemoveBackground):
    with pytest.raises(BadPicture, match="fully transparent"):
        process(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), 32, remove_background=mode)


def shades(low: int, high: int) -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(low, high, 96).astype(np.uint8)[:, None, None], (1, 96, 3)))


@pytest.mark.parametrize(
    "nothing", [Image.new("RGB", (96, 96), (40, 90, 200)), shades(60, 220), NOISE], ids=["flat", "gradient", "noise"]
)
def test_where_nothing_stands_out_there_is_no_object(nothing: Image.Image):
    with pytest.raises(BadPicture, match="Nothing in the picture stands out"):
        process(nothing, 32)


@pytest.mark.parametrize("ratio", [0.29, 1.01, -1.0, math.nan])
def test_a_foreground_ratio_outside_its_range_is_refused(ratio: float):
    with pytest.raises(ValueError, match=r"from 0.3 to 1, got"):
        centred(sticker(), 32, ratio)


def test_a_resolution_too_small_is_refused():
    with pytest.raises(ValueError, match="at least 16, got 8"):
        centred(sticker(), 8)


# -- memory


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(monkeypatch: pytest.MonkeyPatch):
    large = encoded(Image.new("RGB", (8_000, 4_000), (10, 200, 90)), "JPEG")
    decoded_sizes = list[tuple[int, int]]()
    reduced = preprocess.reduced
    monkeypatch.setattr(preprocess, "reduced", lambda image: decoded_sizes.append(image.size) or reduced(image))
    picture = read_picture(large)
    assert decoded_sizes == [(4_000, 2_000)]  # the smallest power of two above twice what is kept
    assert picture.image.size == (LONG_SIDE, LONG_SIDE // 2)
    assert np.abs(np.asarray(picture.image).astype(int) - (10, 200, 90, 255)).max() <= 2


PEAK = """
import re, sys
from contextlib import suppress
from pathlib import Path
from dreamtime.preprocess import BadPicture, read_picture
kilobytes = lambda name: int(re.search(rf"{name}:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
with suppress(OSError):
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak that came of importing
before = kilobytes("VmRSS")
with suppress(BadPicture):
    read_picture(Path(sys.argv[1]))
print(1024 * (kilobytes("VmHWM") - before))
"""
"""By how many bytes the memory of a process of its own has grown at most when it has read a picture."""

LARGE = (5_000, 4_000)  # a quarter of the largest that are taken
LARGE_FILES: dict[str, Callable[[], bytes]] = {
    "colours": lambda: encoded(Image.new("RGB", LARGE, (10, 200, 90))),
    "palette": lambda: encoded(Image.new("P", LARGE), transparency=0),
    "16 bits": lambda: encoded(Image.new("I;16", LARGE, 40_000)),
    "32 bits": lambda: encoded(Image.new("I", LARGE, 40_000), "TIFF", compression="tiff_adobe_deflate"),
    "floating point": lambda: encoded(Image.new("F", LARGE, 0.5), "TIFF", compression="tiff_adobe_deflate"),
    "animated": lambda: encoded(
        Image.new("RGBA", LARGE, "red"), save_all=True, append_images=[Image.new("RGBA", LARGE, "blue")]
    ),
    "too many pixels": lambda: png_header(20_000, 20_000),
}


@pytest.mark.linux
@pytest.mark.parametrize("kind", LARGE_FILES)
def test_memory_stays_bounded_whatever_a_file_says(kind: str, tmp_path: Path):
    file = tmp_path / "large"
    file.write_bytes(LARGE_FILES[kind]())
    assert file.stat().st_size < 2 * 2**20, "as small as what is taken from anybody"
    told = subprocess.run([sys.executable, "-c", PEAK, str(file)], capture_output=True, text=True, check=True)
    copies = int(told.stdout) / (4 * LARGE[0] * LARGE[1])
    assert (0 if kind == "too many pixels" else 0.9) <= copies + 0.1 < (0.4 if kind == "too many pixels" else 3.1)


def test_a_picture_that_fits_keeps_its_pixels_and_the_senders_stays_as_it_is():
    image = NOISE.copy()
    assert (pixels(image)[..., :3] == np.asarray(NOISE)).all()
    large = Image.new("RGB", (2_000, 100))
    read_picture(large)
    assert (large.size, large.mode) == ((2_000, 100), "RGB")


# -- formats


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_lossless_formats_give_their_pixels(kind: str):
    image = Image.new("RGB", (32, 24), (10, 20, 30))
    image.paste((200, 100, 0), (8, 8, 16, 16))
    data = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    picture = read_picture(data)
    assert (np.asarray(picture.image)[..., :3] == np.asarray(image)).all()
    assert (np.asarray(picture.image)[..., 3] == 255).all()
    assert picture.notes == ()


@pytest.mark.parametrize("kind", [kind for kind in preprocess.FORMATS if kind in ("JPEG", "AVIF")])
def test_lossy_formats_give_nearly_theirs(kind: str):
    picture = read_picture(encoded(photo(), kind))
    assert np.abs(np.asarray(picture.image)[..., :3].astype(int) - np.asarray(photo())).mean() < 3
    assert picture.notes == ()


ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # from stored to upright, by the EXIF standard's table
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_obeyed(orientation: int, format: str):
    stored = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(encoded(Image.fromarray(stored), format, exif=exif))
    assert (np.asarray(picture.image)[..., :3] == ORIENTATIONS[orientation](stored)).all()
    assert picture.notes == (() if orientation == 1 else ("turned as its EXIF tag says",))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_deep_tiff_is_turned_once(orientation: int):
    """Pillow turns a TIFF as it loads it, before it is made shallower."""
    stored = np.zeros((20, 30), np.uint16)
    stored[:5, :5] = 65535
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(encoded(Image.fromarray(stored), "TIFF", exif=exif))
    assert (np.asarray(picture.image)[..., 0] == ORIENTATIONS[orientation](stored) // 257).all()


def test_a_large_rotated_jpeg_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read_picture(encoded(Image.new("RGB", (3_000, 1_500)), "JPEG", exif=exif))
    assert picture.image.size == (LONG_SIDE // 2, LONG_SIDE)


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"Exif\0\0nonsense", b"nonsense that is no TIFF"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_broken_exif_block_breaks_no_picture(format: str, block: bytes):
    assert read_picture(encoded(Image.new("RGB", (64, 32)), format, exif=block)).image.size == (64, 32)


def test_a_tag_of_the_wrong_type_keeps_no_picture_from_being_turned():
    """Pillow cannot write it anew."""
    resolution_unit_as_text = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x01\x28\0\x02\0\0\0\x02\x32\0\0\0\0\0\0\0"
    )
    picture = read_picture(encoded(Image.new("RGB", (64, 32)), "JPEG", exif=resolution_unit_as_text))
    assert picture.image.size == (32, 64)
    assert picture.notes == ("turned as its EXIF tag says",)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str):
    frames = [Image.new("RGB", (32, 32), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    picture = read_picture(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(np.asarray(picture.image).astype(int) - (255, 0, 0, 255)).max() <= 3
    assert picture.notes == ("first of 3 pages" if kind == "TIFF" else "first of 3 frames",)


def test_sixteen_bits_are_scaled_and_not_cut():
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    for data in (encoded(Image.fromarray(values)), encoded(Image.fromarray(values), "TIFF")):
        assert (pixels(data)[..., 0] == np.floor(values / 257 + 0.5)).all()
        assert (pixels(data)[..., 3] == 255).all()
        assert read_picture(data).notes == ("brightness scaled to eight bits",)


def test_sixteen_bits_come_in_either_order():
    grey = np.linspace(0, 65_535, 64 * 32).reshape(32, 64).astype(">u2")
    big_endian = Image.frombytes("I;16B", (64, 32), grey.tobytes())
    assert (pixels(encoded(big_endian, "TIFF"))[..., 0] == np.floor(grey / 257 + 0.5)).all()


def test_one_number_that_is_none_is_refused_wherever_it_stands():
    numbers = np.full((32, 64), 0.5, np.float32)
    numbers[20, 30] = np.nan
    with pytest.raises(BadPicture, match="needs finite ones"):
        read_picture(encoded(Image.fromarray(numbers), "TIFF"))


def test_a_tiff_of_a_kind_that_nobody_reads_is_told_as_one():
    with pytest.raises(BadPicture, match="a TIFF of a kind that cannot be read here"):
        read_picture(b"MM\0*" + bytes(60))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0, 1e6])
def test_floating_point_pictures_are_scaled_by_their_white(top: float):
    values = np.linspace(0, top, 400, dtype=np.float32).reshape(20, 20)
    assert np.abs(pixels(encoded(Image.fromarray(values), "TIFF"))[..., 0] - values * (255 / top)).max() <= 0.51


def test_cmyk_becomes_rgb():
    ink = Image.merge("CMYK", [Image.new("L", (32, 32), value) for value in (0, 255, 128, 51)])
    # (1 - ink)(1 - black) of each channel
    expected = (204, 0, 204 * (1 - 128 / 255))
    assert np.abs(pixels(encoded(ink, "TIFF"))[..., :3] - expected).max() <= 1
    assert np.abs(pixels(encoded(ink, "JPEG"))[..., :3] - expected).max() <= 4
    assert read_picture(encoded(ink, "TIFF")).notes == ("inks turned into red, green and blue",)


def test_a_palette_keeps_its_transparency():
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 250, 120, 10])
    palette.paste(1, (8, 8, 24, 24))
    result = pixels(encoded(palette, transparency=0))
    inside = np.zeros((32, 32), dtype=bool)
    inside[8:24, 8:24] = True
    assert (result[..., 3] == inside * 255).all()
    assert (result[inside] == (250, 120, 10, 255)).all()


def test_grey_with_and_without_alpha_and_one_bit():
    grey = np.random.default_rng(2).integers(0, 255, (20, 20), dtype=np.uint8)
    alpha = np.random.default_rng(3).integers(0, 255, (20, 20), dtype=np.uint8)
    both = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    assert (pixels(encoded(both)) == np.dstack([grey, grey, grey, alpha])).all()
    assert (pixels(encoded(Image.fromarray(grey))) == np.dstack([grey, grey, grey, np.full_like(grey, 255)])).all()
    bits = Image.fromarray(grey > 127)
    assert (pixels(encoded(bits))[..., 1] == (grey > 127) * 255).all()


# -- colour profiles

SRGB: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
SWAPPED = SRGB.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")  # what it calls red is blue


def made_profile(space: bytes, connection: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    """A colour profile of version 2.4 (ICC.1:2001-04): its header, the table of its tags, and what they hold."""
    told = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name.encode() + bytes(1 + 8 + 3 + 67)
    held = {b"desc": told, b"wtpt": b"XYZ " + struct.pack(">4I", 0, 0xF6D6, 0x10000, 0xD32D), **tags}
    padded = {tag: data + bytes(-len(data) % 4) for tag, data in held.items()}
    place, table = 128 + 4 + 12 * len(held), struct.pack(">I", len(held))
    for tag, data in padded.items():
        table += tag + struct.pack(">II", place, len(data))
        place += len(data)
    kind = struct.pack(">4sI4s4s4s12x", bytes(4), 0x02400000, b"prtr" if space == b"CMYK" else b"mntr", space, connection)
    white = struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    header = struct.pack(">I", place) + kind + b"acsp" + bytes(28) + white
    return header.ljust(128, b"\0") + table + b"".join(padded.values())


LINEAR = made_profile(b"GRAY", b"XYZ ", "As light adds up", {b"kTRC": b"curv" + bytes(8)})
"""Grey in proportion to the light."""


def colourless_inks() -> bytes:
    """A press whose cyan, magenta and yellow are water: only black darkens."""
    ramp = bytes(range(256))
    corners = b"".join(bytes([0 if corner % 2 else 255, 128, 128]) for corner in range(2**4))
    unmixed = struct.pack(">9I", *(0x10000 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unmixed + 4 * ramp + corners + 3 * ramp
    return made_profile(b"CMYK", b"Lab ", "Water", {b"A2B0": table})


def red_and(mode: str) -> Image.Image:
    image = Image.new("RGB", (32, 32), (200, 30, 20))
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((32, 32)))
    return image if mode != "P" else image.quantize(4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_those_that_the_pictures_profile_means(mode: str, kind: str):
    image = red_and(mode)
    lossless = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = read_picture(encoded(image, kind, icc_profile=SWAPPED, **lossless))
    expected = np.asarray(image.convert("RGBA"))[..., [2, 1, 0, 3]].astype(int)
    assert np.abs(np.asarray(found.image) - expected).max() <= 1
    assert found.notes == ("colours converted from sRGB built-in",)


def test_grey_and_inks_are_those_that_the_pictures_profile_means():
    grey = read_picture(encoded(Image.new("L", (32, 32), 128), icc_profile=LINEAR))
    shown = 255 * (1.055 * (128 / 255) ** (1 / 2.4) - 0.055)  # the sRGB of half the light
    assert np.abs(np.asarray(grey.image)[..., :3] - shown).max() <= 1
    assert grey.notes == ("colours converted from As light adds up",)
    ink = Image.merge("CMYK", [Image.new("L", (32, 32), value) for value in (255, 128, 0, 0)])
    found = read_picture(encoded(ink, "TIFF", icc_profile=colourless_inks()))
    assert np.asarray(found.image).min() >= 254, "white paper"
    assert found.notes == ("inks turned into red, green and blue", "colours converted from Water")


def test_a_profile_of_srgb_changes_nothing():
    found = read_picture(encoded(NOISE, icc_profile=SRGB))
    assert (np.asarray(found.image)[..., :3] == np.asarray(NOISE)).all()
    assert found.notes == ()


@pytest.mark.parametrize(
    "profile",
    [SWAPPED[:100], SWAPPED[:300], bytes(range(256)), SWAPPED.replace(b"RGB ", b"CMYK"), LAB, LINEAR, colourless_inks()],
    ids=["a header cut off", "cut off", "no profile", "says it is of inks", "of Lab", "of grey", "of inks"],
)
def test_a_profile_that_does_not_fit_leaves_the_picture_as_it_is(profile: bytes):
    found = read_picture(encoded(NOISE, icc_profile=profile))
    assert (np.asarray(found.image)[..., :3] == np.asarray(NOISE)).all()
    assert found.notes == ()


def test_only_what_is_kept_of_a_large_picture_is_converted(monkeypatch: pytest.MonkeyPatch):
    converted = list[tuple[int, int]]()
    in_srgb = preprocess.in_srgb
    monkeypatch.setattr(preprocess, "in_srgb", lambda image, profile: converted.append(image.size) or in_srgb(image, profile))
    read_picture(encoded(Image.new("RGB", (3_000, 1_500), (200, 30, 20)), icc_profile=SWAPPED))
    assert converted == [(LONG_SIDE, LONG_SIDE // 2)]


def test_what_a_profile_calls_itself_is_one_short_line():
    """It goes to terminals, and into a list of which every line is a note."""
    name = "Mine\n\x1b[2Jand " + 100 * "y" + "ours"
    inside = made_profile(b"GRAY", b"XYZ ", name, {b"kTRC": b"curv" + bytes(8)})
    (note,) = read_picture(encoded(Image.new("L", (32, 32), 128), icc_profile=inside)).notes
    assert note == f"colours converted from {('Mine [2Jand ' + 100 * 'y')[:60]}"


# -- the object alone


def test_an_alpha_that_says_something_is_respected():
    picture = cut_out(read_picture(sticker()))
    assert (np.asarray(picture.image) == np.asarray(sticker())).all()
    assert picture.notes == ("object taken from the picture's alpha",)


def test_background_is_removed_only_when_asked_or_needed():
    """Opaque corners cut round, as of a window's screenshot, say nothing."""
    rounded = photo().convert("RGBA")
    rounded.putpixel((0, 0), (0, 0, 0, 0))
    for image, mode in ((photo(), "auto"), (rounded, "auto"), (photo(), "always")):
        mask = process(image, 64, remove_background=mode).mask  # type: ignore[arg-type]
        assert 0.5 < mask.mean() < 0.62, "a disc of 0.85 of the side covers 0.567"
    whole = process(photo(), 64, 1.0, remove_background="never")
    assert (whole.mask[1:-1, 1:-1] > 0.999).all()
    assert whole.notes == ("background kept",)
    assert process(sticker(), 64, remove_background="always").notes == ("background removed by its colours at the border",)


def test_no_background_bleeds_into_the_edge():
    """Each pixel of the cut-out has the disc's colour, however little of the disc is in it."""
    rgba = np.asarray(cut_out(read_picture(photo())).image).astype(int)
    assert np.abs(rgba[rgba[..., 3] > 0][:, :3] - (200, 30, 20)).max() <= 8


def test_the_same_picture_gives_the_same_reference():
    first, second = process(photo(), 48), process(photo(), 48)
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.mask, second.mask)
    assert first.notes == second.notes


def test_rembg_is_used_where_it_and_its_weights_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    weights = tmp_path / "u2net.onnx"
    weights.write_bytes(b"weights")
    asked = list[tuple[str, str]]()
    rembg = types.ModuleType("rembg")
    rembg.__spec__ = ModuleSpec("rembg", None)

    def new_session(name: str, model_path: str) -> str:
        asked.append((name, model_path))
        return "session"

    def remove(image: Image.Image, session: str, only_mask: bool) -> Image.Image:
        assert (image.mode, session, only_mask) == ("RGB", "session", True)
        mask = Image.new("L", image.size)
        mask.paste(255, (10, 20, 50, 60))
        return mask

    rembg.new_session, rembg.remove = new_session, remove  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rembg", rembg)
    assert process(photo(), 32).notes == ("background removed by its colours at the border",), "no weights, no rembg"
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    picture = cut_out(read_picture(photo()))
    assert picture.notes == ("background removed by rembg",)
    assert picture.image.getchannel("A").getbbox() == (10, 20, 50, 60)
    assert asked == [("u2net_custom", str(weights))]


# -- centring


@pytest.mark.parametrize("ratio", [0.3, 0.62, 0.85, 1.0])
@pytest.mark.parametrize("box", [(10, 20, 50, 40), (0, 0, 5, 60), (70, 3, 80, 9), (0, 0, 80, 60)])
def test_the_object_fills_its_share_in_the_middle(ratio: float, box: tuple[int, int, int, int]):
    rgba = centred(sticker(box=box), 96, ratio)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = ratio * 96 / max(width, height)
    rows, columns = ((rgba[..., 3] >= 0.5).any(dim).nonzero()[:, 0] for dim in (1, 0))
    for seen, side in ((rows, height), (columns, width)):
        assert abs(len(seen) - side * scale) <= 1
        assert abs((seen[0] + seen[-1] + 1) / 2 - 48) <= 1
    visible = rgba[rgba[..., 3] > 0.02][:, :3]
    assert (visible - torch.tensor([200, 30, 20]) / 255).abs().max() < 0.02, "blue is behind and must not be seen"
    assert rgba.min() >= 0
    assert rgba.max() <= 1


def test_reference_is_the_object_on_white():
    reference = process(sticker(), 64)
    assert reference.image.shape == (64, 64, 3)
    assert reference.mask.shape == (64, 64, 1)
    assert (reference.image[0, 0] == 1).all()
    torch.testing.assert_close(reference.image[32, 32], torch.tensor([200, 30, 20]) / 255, atol=0.003, rtol=0)
    board = np.asarray(on_checkerboard(reference))
    assert board.shape == (64, 64, 3)
    assert len(np.unique(board[:10].reshape(-1, 3), axis=0)) == 2
    assert np.abs(board[32, 32].astype(int) - (200, 30, 20)).max() <= 1


# -- to disk and back


def test_a_reference_comes_back_exactly(tmp_path: Path):
    generator = Generator().manual_seed(0)
    color, mask = (torch.randint(0, 256, (16, 16, c), generator=generator) / 255 for c in (3, 1))
    mask[:4] = 0
    reference = Reference(color * mask + (1 - mask), mask, ("first of 2 frames", "σ, on purpose"))
    for each in (reference, process(photo(), 40)):
        save_reference(tmp_path / "reference.png", each)
        again = load_reference(tmp_path / "reference.png")
        assert torch.equal(again.mask, each.mask)
        assert torch.equal((again.image * 255).round(), (each.image * 255).round())
        torch.testing.assert_close(again.image, each.image, atol=1e-6, rtol=0)
        assert again.notes == each.notes
    assert [path.name for path in tmp_path.iterdir()] == ["reference.png"]


def test_a_file_that_is_no_reference_is_refused(tmp_path: Path):
    for data, words in ((PNG, "is an RGBA picture"), (b"text", "cannot be read"), (PNG[:100], "cannot be read")):
        (tmp_path / "reference.png").write_bytes(data)
        with pytest.raises(BadPicture, match=words):
            load_reference(tmp_path / "reference.png")


def test_rembg_that_fails_gives_way_to_the_colours_at_the_border(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(opaque: Image.Image, weights: Path) -> np.ndarray:
        raise SystemExit("No onnxruntime backend found.")

    expected = process(photo(), 32)
    monkeypatch.setattr(preprocess, "rembg_weights", lambda: Path("u2net.onnx"))
    monkeypatch.setattr(preprocess, "rembg_mask", fail)
    made = process(photo(), 32)
    assert made.notes == ("background removed by its colours at the border (rembg is installed and failed)",)
    assert torch.equal(made.image, expected.image)


@pytest.mark.parametrize("ratio", [0.3, 0.75, 1.0])
def test_what_lies_outside_of_the_square_does_not_matter(ratio: float) -> None:
    """The object's surroundings are cut off before anything large is made of them."""
    draw = np.random.default_rng(1)
    small = Image.fromarray(draw.integers(0, 256, (40, 30, 4), dtype=np.uint8))
    wide = Image.new("RGBA", (700, 900))
    wide.paste(small, (333, 444))
    assert torch.equal(centred(small, 32, ratio), centred(wide, 32, ratio))


def test_a_speck_is_no_object() -> None:
    speck = Image.new("RGBA", (96, 96))
    speck.paste((255, 0, 0, 255), (40, 40, 47, 48))
    with pytest.raises(BadPicture, match="Only 56 of the picture's pixels are visible: an object of at least 64 is needed"):
        process(speck, 32)
