"""What people send and choose for a run from a picture becomes settings and an object, or one sentence."""

import math
from pathlib import Path
from typing import Any

import pytest
from gradio.data_classes import ImageData
from PIL import Image
from stand_in import photograph

from dreamtime import image_to_3d
from dreamtime.beforehand import advice
from dreamtime.image_to_3d import EMBEDDED, image_preset
from dreamtime.preprocess import BadPicture
from dreamtime.references import growing
from dreamtime.ui import pictures
from dreamtime.ui.fetching import MAX_BYTES
from dreamtime.ui.pictures import (
    PICTURE_KNOBS,
    PICTURE_PRIOR_NAMES,
    REGULARIZING,
    Words,
    picture_box,
    picture_settings,
    picture_values,
    reference_of,
    uploaded,
)
from dreamtime.ui.widgets import PRESET_NAMES


def made(elevation: Any = 20.0, words: Words | None = None, **choices: Any) -> Any:
    return picture_settings("draft", EMBEDDED, 7, elevation, words or Words(), choices)


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("prior", PICTURE_PRIOR_NAMES)
def test_the_widgets_of_a_preset_make_that_preset(preset: str, prior: str) -> None:
    shown = picture_values(preset, prior)
    assert list(shown) == list(PICTURE_KNOBS)
    assert picture_settings(preset, prior, 0, 20, Words(), shown) == image_preset(preset, prior=prior)


def test_choices_arrive_in_the_settings_with_their_types() -> None:
    settings = made(-7, steps=20.0, rgb=100, mask=0, views=2.0, schedule="linear", objective="ism", weighting="")
    assert (settings.task, settings.seed, settings.elevation, settings.steps, settings.views) == ("image", 7, -7, 20, 2)
    assert (settings.rgb, settings.mask, settings.schedule, settings.objective) == (100, 0, "linear", "ism")
    assert [type(value) for value in (settings.elevation, settings.rgb, settings.steps)] == [float, float, int]


def test_every_regularizer_and_the_resolution_on_the_way_can_be_chosen() -> None:
    weights = {"opacity": 1, "orientation": 2, "entropy": 0.5, "normal_smoothness": 3, "normal_smoothness_3d": 4.0}
    assert list(weights) == list(REGULARIZING)
    settings = made(resolution=128.0, doublings=3, **weights)
    assert {name: getattr(settings, name) for name in weights} == weights
    assert settings.views_by_part == (settings.views,) * 4
    assert [growing(settings.views_by_part, settings.resolution, part / 4)[1] for part in range(4)] == [16, 32, 64, 128]
    assert made(doublings=0, resolution=64) == made(), "as the embedded prior's presets have it"


def test_the_views_of_a_large_prior_go_with_their_resolutions() -> None:
    for doublings, views in ((0, (2,)), (1, (4, 2)), (2, (12, 4, 2)), (3, (12, 12, 4, 2))):
        chosen = picture_settings("draft", "zero123-xl", 7, 20, Words(), {"doublings": doublings})
        assert chosen.views_by_part == views


def test_words_count_only_where_there_are_any() -> None:
    told = made(words=Words("  a red   cube ", "toybox", 2))
    assert (told.prompt, told.text_prior, told.text_weight) == ("a red cube", "toybox", 2)
    for nothing in (None, "", "  "):
        assert made(words=Words(nothing, "toybox", 2)) == made()
    assert made(words=Words("", "toybox", None)) == made(), "an emptied field is the usual weight"
    assert made(words=Words("a red cube", "toybox", None)) == made(words=Words("a red cube", "toybox", 1.0))
    large = picture_settings("draft", "zero123-xl", 7, 20, Words("a red cube", "stable-diffusion-1.5"), {})
    assert large.text_weight == pytest.approx(1 / 40), "Magic123's ratio"


@pytest.mark.parametrize("nobody", [None, ""])
def test_a_prompt_that_nobody_reads_is_told(nobody: str | None) -> None:
    unread = made(words=Words("a red dragon", nobody))
    assert (unread.prompt, unread.text_prior) == ("a red dragon", "")
    assert advice(unread) == ("Nobody reads the prompt: beside a picture it needs a text prior, and none is chosen.",)
    assert advice(made(words=Words("a red cube", "toybox"))) == advice(made()) == ()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"elevation": math.nan}, "The elevation must be a finite number, got nan."),
        ({"elevation": 90}, "The elevation must lie between -89 and 89, got 90."),
        ({"elevation": "high"}, "The elevation must be a finite number"),
        ({"words": Words("x" * 401)}, "up to 400 characters"),
        ({"words": Words("a cube", "/etc")}, "Unknown text prior"),
        ({"words": Words("a cube", "toybox", math.inf)}, "text weight must be a finite number"),
        ({"objective": "vsd"}, "Unknown objective 'vsd'"),
        ({"rgb": -1}, "colours must lie between 0 and 1000000"),
        ({"opacity": -1}, "opacity must lie between 0 and 1000000"),
        ({"normal_smoothness_3d": math.inf}, "normal smoothness in 3d must be a finite number"),
        ({"doublings": 5}, "doublings must lie between 0 and 4"),
        ({"resolution": 64, "doublings": 4}, "resolution of the first steps must lie between 8 and 1024, got 4"),
        ({"words": Words(5)}, "The prompt must be text of up to 400 characters."),
        ({"words": Words([])}, "The prompt must be text of up to 400 characters."),
        ({"schedule": ["linear"]}, "Unknown schedule"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_nonsense_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(**wrong)


@pytest.mark.parametrize("prior", ["toybox", "auto", "/etc", "owner/model", None])
def test_a_prior_is_a_name_of_the_menu_of_those_that_see(prior: Any) -> None:
    with pytest.raises(ValueError, match="Unknown prior"):
        picture_settings("draft", prior, 0, 20.0, Words(), {})


# -- the picture


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Gradio puts what people send."""
    monkeypatch.setattr(pictures, "get_upload_folder", lambda: str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


def test_an_uploaded_file_arrives_as_it_was_sent(uploads: Path) -> None:
    path = uploads / "turned.jpg"
    photograph(uploads / "ball.png").rename(path)
    assert uploaded(ImageData(path=str(path))) == str(path)
    assert uploaded(None) is None


def test_a_file_beyond_the_bound_is_not_opened(uploads: Path) -> None:
    """A tool's picture may come inside its address: then nothing has counted its bytes before."""
    with (uploads / "much.png").open("wb") as file:
        file.truncate(MAX_BYTES)
    assert uploaded(ImageData(path=str(uploads / "much.png"))) == str(uploads / "much.png")
    with (uploads / "much.png").open("ab") as file:
        file.write(b"!")
    with pytest.raises(BadPicture, match="at most 10 MB"):
        uploaded(ImageData(path=str(uploads / "much.png")))


@pytest.mark.parametrize(
    "place", ["{root}/ball.png", "{root}/uploads/../ball.png", "{root}/uploads/link.png", "/etc/passwd", ""]
)
def test_no_other_file_is_opened(uploads: Path, place: str) -> None:
    photograph(uploads.parent / "ball.png")
    (uploads / "link.png").symlink_to(uploads.parent / "ball.png")
    with pytest.raises(BadPicture, match="is to be uploaded"):
        uploaded(ImageData(path=place.format(root=uploads.parent)))


def test_the_object_is_centred_in_the_size_that_runs_keep(tmp_path: Path) -> None:
    reference = reference_of(str(photograph(tmp_path / "ball.png")), 0.5, "auto")
    assert reference.mask.shape == (image_to_3d.REFERENCE_SIDE,) * 2 + (1,)
    across = (reference.mask[..., 0] > 0.5).any(dim=0).nonzero()
    assert int(across[-1] - across[0]) == pytest.approx(0.5 * image_to_3d.REFERENCE_SIDE, abs=2)


@pytest.mark.parametrize(
    ("picture", "ratio", "removal", "sentence"),
    [
        (None, 0.75, "auto", "A picture is needed first"),
        ("ball", math.nan, "auto", "foreground ratio must be a finite number"),
        ("ball", 0.1, "auto", "foreground ratio must lie between 0.3 and 1"),
        ("ball", 0.75, "maybe", "Unknown choice of background removal 'maybe'"),
        ("flat", 0.75, "auto", "Nothing in the picture stands out"),
    ],
)
def test_what_shows_no_object_is_refused(tmp_path: Path, picture: str | None, ratio: Any, removal: Any, sentence: str) -> None:
    photograph(tmp_path / "ball.png")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "flat.png")
    with pytest.raises(ValueError, match=sentence):
        reference_of(picture and str(tmp_path / f"{picture}.png"), ratio, removal)


def test_a_box_made_anew_for_a_session_still_leaves_the_file_to_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio rebuilds a session's component from its class and arguments whenever an event skips it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    box = picture_box(visible=False)
    again = type(box)(**box.constructor_args)
    (text := tmp_path / "text.png").write_text("not a picture")
    assert again.preprocess(ImageData(path=str(text))) == str(text)
    assert again.get_block_name() == "image", "what the browser makes of it"
    assert not again.webcam_options.mirror, "a mug before the camera keeps its handle on its side"
    assert not Path(pictures.__file__).with_suffix(".pyi").exists(), "Gradio writes a stub beside the source of a component"
