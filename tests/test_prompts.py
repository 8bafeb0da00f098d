import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamtime.cameras import orbit
from dreamtime.prompts import (
    FLAWS_OF_SDS,
    MAX_PROMPT_CHARACTERS,
    VIEWS,
    blend_of,
    blended_text,
    checked_prompt,
    flawed_text,
    plain_text,
    view_condition,
    view_of,
    views_of,
    with_view,
)

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


class Embed:
    """Tells prompts apart by their length and their last word's; counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        self.calls += 1
        return torch.tensor([[len(prompt), len(prompt.removeprefix("a cube"))] for prompt in prompts]).float()[:, None]


def lengths(embedded: torch.Tensor) -> list[float]:
    return embedded[:, 0, 0].tolist()


def test_each_camera_gets_its_own_words_and_all_the_same_negative_ones():
    embed = Embed()
    condition = view_condition(embed, "a cube", "ugly")
    calls = embed.calls
    negative, positive = condition(four_cameras())
    assert negative.tolist() == [[[4.0, 4.0]]] * 4
    assert lengths(positive) == [len(f"a cube, {view} view") for view in ("front", "side", "back", "overhead")]
    assert embed.calls == calls, "the text encoder is asked beforehand only"


def test_plain_text_is_the_same_from_everywhere():
    assert lengths(plain_text(Embed(), "ugly")(four_cameras())) == [4.0] * 4


def test_flawed_text_adds_the_flaws_to_each_view():
    expected = [len(f"a cube, {view} view, {FLAWS_OF_SDS}") for view in ("front", "side", "back", "overhead")]
    assert lengths(flawed_text(Embed(), "a cube")(four_cameras())) == expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("degrees", "shares", "front", "side"),
    [
        # f_fs(r) = f_sf(r) = 4 exp(-r / 2) - 2.426; f_fsb(r) = exp(-r / 2) + 0.967; f_sb(r) = exp(-r / 2) - 0.606.
        (0, {"front": 1, "side": 0}, 0.0, 1.574),
        (45, {"front": 0.5, "side": 0.5}, 0.689, 0.689),
        (90, {"side": 1, "back": 0}, 1.574, 0.001),
        (135, {"side": 0.5, "back": 0.5}, 1.746, 0.173),
        (180, {"side": 0, "back": 1}, 1.967, 0.394),
    ],
)
def test_texts_are_blended_and_views_avoided_by_the_published_curves(degrees, shares, front, side, sign):
    found, weights = blend_of(0.3, sign * math.radians(degrees))
    assert found == pytest.approx(shares, abs=1e-9)
    assert weights == pytest.approx((-front, -side), abs=1e-3)


@given(st.floats(-7, 7), st.floats(-1.5, 1.5))
def test_shares_add_up_to_one_and_no_weight_is_positive(azimuth: float, elevation: float):
    shares, weights = blend_of(elevation, azimuth)
    assert sum(shares.values()) == pytest.approx(1)
    assert max(weights) <= 0


def test_from_overhead_nothing_is_avoided():
    assert blend_of(math.radians(70), 1.0) == ({"overhead": 1.0}, (0.0, 0.0))


def test_the_front_is_held_off_more_and_more_all_the_way_round():
    angles = [math.radians(a) for a in range(0, 181, 5)]
    fronts = [blend_of(0.0, a)[1][0] for a in angles]
    assert fronts == sorted(fronts, reverse=True)


def test_a_blended_text_lies_between_its_views():
    blend = blended_text(Embed(), "a cube", "ugly")
    cameras = orbit(torch.zeros(2), torch.tensor([0.5, 1.5]) * math.pi / 2, torch.full((2,), 1.8), torch.ones(2), 4, 4)
    found = blend(cameras)
    front, side, back = (float(len(f"a cube, {view} view")) for view in ("front", "side", "back"))
    assert lengths(found.positive) == pytest.approx([(front + side) / 2, (side + back) / 2])
    assert lengths(found.unconditional) == [4.0, 4.0]
    assert found.negatives[:, :, 0, 0].tolist() == [[front, side]] * 2
    assert found.weights.shape == (2, 2)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a red cube", "a red cube"),
        ("  a\n red\tcube ", "a red cube"),
        ("x" * MAX_PROMPT_CHARACTERS, "x" * MAX_PROMPT_CHARACTERS),
        ("a family \U0001f469\u200d\U0001f467 in glass", "a family \U0001f469\u200d\U0001f467 in glass"),
    ],
)
def test_a_good_prompt_is_kept_without_needless_blanks(given: str, kept: str):
    assert checked_prompt(given) == kept


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (None, "must be text, got nothing"),
        (7, "must be text, got int"),
        (["a red cube"], "must be text, got list"),
        ("", "is empty"),
        (" \n\t ", "is empty"),
        ("\u200b\ufeff", "is empty"),
        ("a red\0 cube", r"writes nothing: U\+0000"),
        ("a red \x1b[31mcube", r"writes nothing: U\+001B"),
        ("a red \ud800 cube", r"writes nothing: U\+D800"),
        ("a red \u202ecube", r"writes nothing: U\+202E"),
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
