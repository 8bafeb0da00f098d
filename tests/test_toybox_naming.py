"""What a picture shows, name by name: every object can be named, and of two neighbours either may be the first."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator

from dreamtime.toybox.meanings import Description
from dreamtime.toybox.naming import NAMES, QUESTIONS, exchanged, names_of, naming_loss, numbered
from dreamtime.toybox.portraits import random_objects
from dreamtime.toybox.world import Pair, Thing

ROBOT = Thing("robot", "green")
BESIDE = Pair(Thing("cube", "red"), "next to", Thing("sphere", "blue"))
ON = Pair(BESIDE.first, "on top of", BESIDE.second)
SIZES = [len(answers) for answers in QUESTIONS.values()]


def certain(*names: tuple[str | None, ...]) -> torch.Tensor:
    """The logits of one who is sure of these names, and has no idea where there is none."""
    logits = torch.zeros(len(names), NAMES)
    for row, numbers in zip(logits, numbered(names), strict=True):
        for part, number in zip(row.split(SIZES), numbers.tolist(), strict=True):
            if number >= 0:
                part[number] = 50
    return logits


def test_every_object_has_names(generator: Callable[[int], Generator]):
    for what in random_objects(300, generator(0)):
        for view in (None, "front", "back", "side", "overhead"):
            names = names_of(Description(what, view))
            for answer, answers in zip(names, QUESTIONS.values(), strict=True):
                assert answer is None or answer in answers
            assert names[3] is not None
            assert (names[2] is None) == isinstance(what, Thing)
            assert (names[5] is None) == (view is None)


def test_a_picture_without_colours_has_none_to_name():
    assert names_of(Description(ROBOT, "back", colored=False)) == ("robot", "alone", None, None, None, "back")
    assert names_of(Description(ON, colored=False)) == ("cube", "on top of", "sphere", None, None, None)


def test_the_usual_second_colour_is_named_as_any_other():
    assert names_of(Description(ROBOT)) == names_of(Description(Thing("robot", "green", "white")))


def test_neighbours_are_named_from_left_to_right():
    assert names_of(Description(BESIDE, "front"))[:3] == ("cube", "next to", "sphere")
    assert names_of(Description(BESIDE, "back")) == ("sphere", "next to", "cube", "blue", "red", "across")
    assert names_of(Description(ON, "back"))[:3] == ("cube", "on top of", "sphere")


@pytest.mark.parametrize("view", ["front", "back"])
def test_only_where_the_view_tells_the_order_it_counts(view: str):
    assert exchanged(Description(BESIDE, view)) == names_of(Description(BESIDE, view))
    assert exchanged(Description(BESIDE, "side")) == ("sphere", "next to", "cube", "blue", "red", "side")
    assert exchanged(Description(ON, "side")) == names_of(Description(ON, "side"))
    assert exchanged(Description(ROBOT)) == names_of(Description(ROBOT))


def test_naming_loss_is_the_cross_entropy_over_what_is_shown(generator: Callable[[int], Generator]):
    shown = [Description(ROBOT, "back"), Description(Thing("sphere", "blue"), colored=False)]
    logits = torch.randn(2, NAMES, generator=generator(5))
    kinds, arrangements, _, colors, seconds, sides = (part.log_softmax(dim=-1) for part in logits.split(SIZES, dim=-1))

    def place(question: str, answer: str) -> int:
        return QUESTIONS[question].index(answer)

    expected = -(kinds[0, place("kind", "robot")] + kinds[1, place("kind", "sphere")]) / 2 - arrangements[:, 0].mean()
    expected -= (
        colors[0, place("color", "green")] + seconds[0, place("second color", "white")] + sides[0, place("side", "back")]
    )
    torch.testing.assert_close(naming_loss(logits, shown), expected)


def test_neighbours_may_be_named_either_way_round_and_only_as_a_whole():
    seen = [Description(BESIDE, "side")]
    names = names_of(*seen)
    assert naming_loss(certain(names), seen).item() == pytest.approx(0, abs=1e-6)
    assert naming_loss(certain(exchanged(*seen)), seen).item() == pytest.approx(0, abs=1e-6)
    mixed = (*exchanged(*seen)[:3], *names[3:])
    assert naming_loss(certain(mixed), seen).item() == pytest.approx(100), "two colours or two kinds are wrong"
    front = [Description(BESIDE, "front")]
    assert naming_loss(certain((*exchanged(*front)[:5], "across")), front).item() == pytest.approx(0, abs=1e-6)
    wrong = ("sphere", "next to", "cube", "blue", "red", "across")
    assert naming_loss(certain(wrong), front).item() == pytest.approx(200)
