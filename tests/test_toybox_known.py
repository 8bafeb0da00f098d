import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Generator

from dreamtime.prompts import VIEWS, with_view
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.kinds import KINDS, SOLIDS
from dreamtime.toybox.known import (
    EVERYTHING,
    Known,
    goes_together,
    has_own_colors,
    nearest_known,
    read_known,
    spelled,
    unknown_words,
    write_known,
)
from dreamtime.toybox.meanings import Description, uncolored, wording
from dreamtime.toybox.world import COLORS, all_pairs, all_things, random_caption, random_object, two_colored_things

ALL = EVERYTHING
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


def test_every_wording_of_the_world_goes_together_in_its_own_colors(generator: Callable[[int], Generator]) -> None:
    """Those of the training's captions and of the scorer's, with and without colours, from every side."""
    draw = generator(0)
    for number in range(100):
        what, view = random_object(draw), VIEWS[number % len(VIEWS)]
        plain = [random_caption(what, draw), *(wording(Description(what, None, colored), draw) for colored in (True, False))]
        for prompt in (*plain, *(with_view(each, view) for each in plain)):
            assert goes_together(prompt), prompt
            assert has_own_colors(prompt), prompt


def test_every_object_of_the_world_goes_together_in_its_own_colors() -> None:
    objects = [*all_things(), *two_colored_things()[::7], *all_pairs()[::37]]
    for prompt in dict.fromkeys(text for what in objects for text in (what.caption, uncolored(what))):
        assert goes_together(prompt), prompt
        assert has_own_colors(prompt), prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "a cube",
        "red",
        "a toy",
        "a photo of a red cube, side view",
        "a side view of a mushroom with a white stem",
        "a mushroom, white stem",
        "A Red Box on a ball!",
        "a donut beside a blue pill",
        "a red ball on a red ball",
        "an orange ice cream with a wafer",
        "a dragon on a horse",  # whose words nobody knows, which is another matter
    ],
)
def test_what_is_worded_freely_is_no_odd_combination(prompt: str) -> None:
    assert goes_together(prompt)
    assert has_own_colors(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "a red car on top of a blue house",
        "a red cube next to a blue mug",
        "a car on a ball",
        "a red cube with a green cone",
        "a red cube, a blue sphere",
        "a red cube on a blue ball on a green cone",
    ],
)
def test_other_things_do_not_go_together(prompt: str) -> None:
    assert unknown_words(prompt, ALL) == []
    assert not goes_together(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "a red cube with a white stem",
        "a red cube with wheels",
        "a green mushroom with a white roof",
        "a green mushroom with a white stem, a red hat",
        "a red cube on a blue ball with a white lid",
        "a white stem",
        "a red blue cube",
        "a red car with blue, black wheels",
    ],
)
def test_a_part_or_color_of_something_else_is_not_its_own(prompt: str) -> None:
    assert unknown_words(prompt, ALL) == []
    assert goes_together(prompt)
    assert not has_own_colors(prompt)
