import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamtime.cameras import orbit
from dreamtime.prompts import MAX_PROMPT_CHARACTERS, VIEWS, checked_prompt, view_condition, view_of, views_of, with_view

BELOW, ABOVE = (lambda x: math.nextafter(x, -math.inf)), (lambda x: math.nextafter(x, math.inf))


@pytest.mark.parametrize(
    ("azimuth", "view"),
    [
        (0.0, "front"),
        (math.radians(45), "front"),
        (ABOVE(math.radians(45)), "side"),
        (math.radians(90), "side"),
        (BELOW(math.radians(135)), "side"),
        (math.radians(135), "back"),
        (math.radians(180), "back"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_views_change_at_45_and_135_degrees_on_either_side(azimuth: float, view: str, sign: int):
    assert view_of(0.0, sign * azimuth) == view


@pytest.mark.parametrize(("degrees", "view"), [(0, "front"), (90, "side"), (180, "back")])
def test_overhead_begins_above_60_degrees_wherever_the_camera_stands(degrees: float, view: str):
    azimuth = math.radians(degrees)
    assert view_of(math.radians(60), azimuth) == view
    assert view_of(math.radians(-90), azimuth) == view
    assert view_of(ABOVE(math.radians(60)), azimuth) == "overhead"
    assert view_of(math.radians(90), azimuth) == "overhead"


@given(st.floats(-180, 180).filter(lambda x: min(abs(abs(x) - 45), abs(abs(x) - 135)) > 1e-6), st.integers(-5, 5))
def test_a_full_turn_changes_no_view(degrees: float, turns: int):
    azimuth = math.radians(degrees)
    assert view_of(0.0, azimuth + 2 * math.pi * turns) == view_of(0.0, azimuth)


@given(st.floats(-10, 10), st.floats(-60, 60))
def test_the_view_from_behind_is_the_opposite_one(azimuth: float, elevation: float):
    opposite = {"front": "back", "back": "front", "side": "side"}
    distance_to_boundary = abs(math.remainder(azimuth - math.pi / 4, math.pi / 2))
    if distance_to_boundary > 1e-9:
        assert view_of(math.radians(elevation), azimuth + math.pi) == opposite[view_of(math.radians(elevation), azimuth)]


def four_cameras():
    elevation, azimuth = torch.tensor([[0.0, 20, -10, 80], [10.0, 100, 190, 0]]).mul(math.pi / 180)
    return orbit(elevation, azimuth, torch.full((4,), 1.8), torch.ones(4), 4, 4)


def test_cameras_have_the_views_of_their_places():
    assert views_of(four_cameras()) == ["front", "side", "back", "overhead"]


def test_the_view_follows_the_prompt_after_a_comma():
    assert [with_view("a red cube", view) for view in VIEWS] == [
        "a red cube, front view",
        "a red cube, side view",
        "a red cube, back view",
        "a red cube, overhead view",
    ]


def test_each_camera_gets_its_own_words_and_all_the_same_negative_ones():
    asked: list[list[str]] = []

    def embed(prompts: list[str]) -> torch.Tensor:
        """Tells prompts apart by their length and their last word's."""
        asked.append(prompts)
        return torch.tensor([[len(prompt), len(prompt.removeprefix("a cube"))] for prompt in prompts]).float()[:, None]

    condition = view_condition(embed, "a cube", "ugly")
    negative, positive = condition(four_cameras())
    assert negative.tolist() == [[[4.0, 4.0]]] * 4
    assert positive[:, 0, 0].tolist() == [len(f"a cube, {view} view") for view in ("front", "side", "back", "overhead")]
    condition(four_cameras())
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a red cube", "a red cube"),
        ("  a\n red\tcube ", "a red cube"),
        ("x" * MAX_PROMPT_CHARACTERS, "x" * MAX_PROMPT_CHARACTERS),
    ],
)
def test_a_good_prompt_is_kept_without_needless_blanks(given: str, kept: str):
    assert checked_prompt(given) == kept


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (None, "must be text, got NoneType"),
        (7, "must be text, got int"),
        (["a red cube"], "must be text, got list"),
        ("", "is empty"),
        (" \n\t ", "is empty"),
        ("x" * (MAX_PROMPT_CHARACTERS + 1), f"up to {MAX_PROMPT_CHARACTERS} characters, got {MAX_PROMPT_CHARACTERS + 1}"),
    ],
)
def test_a_bad_prompt_is_refused_in_one_sentence(given: object, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        checked_prompt(given)


@given(st.text())
def test_whatever_is_typed_is_either_refused_or_clean(text: str):
    try:
        prompt = checked_prompt(text)
    except ValueError:
        return
    assert prompt == checked_prompt(prompt)
    assert prompt.split() == text.split()
    assert "\n" not in prompt
