"""R-Precision, Janus and diversity on similarities whose answers are known."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from dreamtime.evaluation.retrieval import arc_of, cosine_distance, is_janus, mean_pairwise, retrieved


def test_identity_similarity_retrieves_everything():
    assert retrieved(torch.eye(7), torch.arange(7)).all()


@given(st.permutations(range(9)))
def test_a_permutation_retrieves_its_fixed_points(order: list[int]):
    similarity = torch.eye(9)[list(order)]
    assert retrieved(similarity, torch.arange(9)).tolist() == [i == k for i, k in enumerate(order)]


def test_chance_retrieves_one_in_so_many_captions(generator: Callable[[int], Generator]):
    similarity = torch.rand(20_000, 10, generator=generator(0))
    truth = torch.randint(10, (20_000,), generator=generator(1))
    assert retrieved(similarity, truth).double().mean().item() == pytest.approx(0.1, abs=0.01)


def test_ties_and_numbers_that_are_none_are_misses():
    similarity = torch.tensor([[0.5, 0.5, 0.1], [math.nan, 0.2, 0.1], [0.3, math.nan, 0.1], [0.6, 0.5, 0.1]])
    assert retrieved(similarity, torch.zeros(4, dtype=torch.long)).tolist() == [False, False, False, True]


def test_a_lone_caption_is_always_found():
    assert retrieved(torch.tensor([[-0.3]]), torch.tensor([0])).all()


@pytest.mark.parametrize(
    ("fronts", "arc", "janus"),
    [
        ("00000000", 0, False),
        ("10000000", 0, False),
        ("10000001", 45, False),  # a face in front, seen from both sides of it
        ("11000011", 135, False),
        ("11100011", 180, True),
        ("10001000", 180, True),  # a second face behind
        ("11111111", 315, True),
        ("00110000", 45, False),  # the front may be anywhere
        ("10010010", 225, True),  # three faces
    ],
)
def test_a_second_face_does_not_fit_into_half_a_turn(fronts: str, arc: float, janus: bool):
    views = torch.tensor([view == "1" for view in fronts])
    assert arc_of(views) == pytest.approx(arc)
    assert is_janus(views) is janus


def test_the_arc_does_not_depend_on_where_one_starts():
    views = torch.tensor([True, False, True, True, False, False, False, False])
    assert len({round(arc_of(views.roll(k)), 6) for k in range(8)}) == 1


def test_diversity_is_the_mean_over_pairs():
    assert mean_pairwise(lambda a, b: abs(a - b), [1.0, 4.0, 9.0]) == pytest.approx((3 + 5 + 8) / 3)
    assert math.isnan(mean_pairwise(lambda a, b: abs(a - b), [1.0]))


def test_cosine_distance_of_equal_orthogonal_and_opposite():
    x, y = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.5])
    assert [round(cosine_distance(x, other), 6) for other in (3 * x, y, -x)] == [0, 1, 2]
