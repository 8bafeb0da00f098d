import unicodedata
from pathlib import Path

import pytest

from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.kinds import KINDS, SOLIDS
from dreamtime.toybox.known import Known, nearest_known, read_known, spelled, unknown_words, write_known
from dreamtime.toybox.world import COLORS

ALL = Known(tuple(KINDS), tuple(COLORS), pairs=True)
ALONE = Known(tuple(SOLIDS), ("red", "green", "yellow"), pairs=False)


def test_unknown_words_are_named_once_and_in_order() -> None:
    assert unknown_words("A red dragon, on top of a DRAGON's blue castle!", ALL) == ["dragon", "s", "castle"]
    assert unknown_words("a photo of a yellow ice cream with a white wafer, back view", ALL) == []


@pytest.mark.parametrize("prompt", ["लाल घन", "ลูกบาศก์ สีแดง", "cafe\u0301 rouge"])
def test_words_keep_the_marks_on_their_letters(prompt: str) -> None:
    assert unknown_words(prompt, ALL) == unicodedata.normalize("NFC", prompt).split()


@pytest.mark.parametrize("prompt", ["a red cube \u2764\ufe0f", "a red \u2764\ufe0fcube", "\u0301 a red cube"])
def test_a_mark_on_no_letter_is_no_word(prompt: str) -> None:
    assert unknown_words(prompt, ALL) == []


def test_what_was_not_shown_is_unknown_though_the_world_has_it() -> None:
    assert unknown_words("a red cube on top of a green mushroom", ALONE) == ["on", "top", "mushroom"]
    assert unknown_words("a red cube on top of a green mushroom", ALL) == []
    assert unknown_words("a toy: a yellow ball", ALONE) == []
    assert unknown_words("a purple cube", ALONE) == ["purple"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("spheer", "sphere"),
        ("shpere", "sphere"),
        ("cilinder", "cylinder"),
        ("purpel", "purple"),
        ("cubes", "cube"),
        ("boxes", "box"),
        ("toruses", "torus"),
        ("snowmen", "snowman"),
        ("icecreams", "ice cream"),
        ("icecrem", "ice cream"),
    ],
)
def test_a_slip_or_a_plural_is_near_what_was_meant(typed: str, meant: str) -> None:
    assert unknown_words(typed, ALL) == [typed]
    assert nearest_known(typed, ALL) == meant


@pytest.mark.parametrize("word", ["dragon", "horse", "mouse", "cat", "castle", "s", "es", "x" * 400])
def test_another_word_is_near_nothing(word: str) -> None:
    assert nearest_known(word, ALL) is None


def test_nothing_is_near_that_was_not_shown() -> None:
    assert nearest_known("mushrooms", ALONE) is None
    assert nearest_known("spheres", ALONE) == "sphere"


def test_ice_cream_is_known_however_it_is_written() -> None:
    for prompt in ("a pink icecream", "a pink ice cream", "an Ice-Cream"):
        assert unknown_words(prompt, ALL) == []
    assert [spelled(kind) for kind in ("icecream", "cube")] == ["ice cream", "cube"]


def test_a_training_writes_down_what_it_showed(tmp_path: Path) -> None:
    write_known(tmp_path, ALONE)
    assert read_known(tmp_path) == ALONE


def test_a_folder_without_a_word_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"known\.json"):
        read_known(tmp_path / "elsewhere")


def test_the_embedded_model_was_shown_a_part_of_the_world() -> None:
    known = read_known(WEIGHTS)
    assert {"sphere", "cube", "cone", "torus"} <= set(known.kinds) <= set(KINDS)
    assert {"red", "green", "blue"} <= set(known.colors) <= set(COLORS)
