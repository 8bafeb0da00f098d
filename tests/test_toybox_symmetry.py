"""Which kinds look the same in a mirror or from every side, and which captions name such things."""

import math

import torch

from dreamtime.cameras import position_from_angles
from dreamtime.toybox import symmetry
from dreamtime.toybox.kinds import KINDS
from dreamtime.toybox.world import RELATIONS, Pair, Thing

ROUND = {"sphere", "cylinder", "cone", "torus", "capsule", "egg", "snowman"}


def test_points_turn_as_azimuths_grow():
    elevation, azimuth, distance = torch.tensor([0.3, -0.2]), torch.tensor([0.1, 2.0]), torch.tensor([1.5, 2.0])
    angle = torch.tensor([math.pi / 2, -1.0])
    turned = symmetry.turned_about_z(position_from_angles(elevation, azimuth, distance), angle)
    torch.testing.assert_close(turned, position_from_angles(elevation, azimuth + angle, distance))


def test_neighbours_and_some_kinds_are_others_in_a_mirror():
    pairs = [Pair(Thing("cube", "red"), relation, Thing("cone", "blue")) for relation in RELATIONS]
    assert [symmetry.one_sided(pair.caption) for pair in pairs] == [False, True]
    assert {kind for kind in KINDS if not symmetry.left_is_right(kind)} == {"mug", "cactus", "hammer"}


def test_what_is_round_has_no_sides_unless_it_has_a_neighbour():
    ball, cube = Thing("sphere", "red"), Thing("cube", "red")
    assert [symmetry.has_sides(words) for words in (ball.caption, cube.caption, "a blue ring")] == [False, True, False]
    assert not symmetry.has_sides(Pair(ball, "on top of", Thing("cone", "blue")).caption)
    assert symmetry.has_sides(Pair(ball, "next to", Thing("cone", "blue")).caption)
    assert symmetry.has_sides("a red ball beside a blue cone")
