"""The text encoder's reading exercises: what they ask, of which captions, and that they can be learnt."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Generator
from transformers import CLIPTextModel, CLIPTokenizer

from dreamtime.toybox import models, reading
from dreamtime.toybox.kinds import SOLIDS
from dreamtime.toybox.meanings import wording
from dreamtime.toybox.naming import NAMES, naming_loss
from dreamtime.toybox.training import seeded_initialisation
from dreamtime.toybox.world import Pair, Thing, held_out, twin


@pytest.fixture
def untaught() -> tuple[CLIPTextModel, CLIPTokenizer, reading.Reading]:
    tokenizer = models.build_tokenizer()
    with seeded_initialisation(0):
        return models.build_text_encoder(tokenizer), tokenizer, reading.Reading()


def test_exercises_are_of_what_training_may_see_and_often_of_pairs(generator: Callable[[int], Generator]):
    draw = generator(0)
    told = [reading.some_description(draw) for _ in range(400)]
    assert not any(held_out(each.what) or held_out(twin(each.what)) for each in told)
    assert 0.3 < sum(isinstance(each.what, Pair) for each in told) / len(told) < 0.6
    assert {each.view for each in told} == {None, "front", "side", "back", "overhead"}
    assert 0.01 < sum(not each.colored for each in told) / len(told) < 0.15


def test_of_solids_alone_there_are_neither_other_kinds_nor_pairs(generator: Callable[[int], Generator]):
    draw = generator(0)
    told = [reading.some_description(draw, SOLIDS).what for _ in range(100)]
    assert {what.kind for what in told if isinstance(what, Thing)} == set(SOLIDS)
    assert not any(isinstance(what, Pair) for what in told)


def test_the_names_are_read_off_the_end_of_each_caption(
    untaught: tuple[CLIPTextModel, CLIPTokenizer, reading.Reading], generator: Callable[[int], Generator]
):
    text_encoder, tokenizer, exercises = untaught
    draw = generator(3)
    told = [reading.some_description(draw) for _ in range(8)]
    ends = []
    for caption in [wording(each, draw) for each in told]:
        tokens = tokenizer([caption], padding="max_length", return_tensors="pt").input_ids
        ends.append(text_encoder(tokens)[0][0, tokens[0].tolist().index(tokenizer.eos_token_id)])
    asked = exercises.loss(text_encoder, tokenizer, 8, generator(3))
    assert torch.allclose(asked, naming_loss(exercises.names(torch.stack(ends)), told))
    torch.nn.init.zeros_(exercises.names.weight)
    untold = exercises.loss(text_encoder, tokenizer, 8, generator(3))
    assert torch.allclose(untold, naming_loss(exercises.names.bias.expand(8, NAMES), told))
    assert (untold - asked).abs() > 1e-3


def test_what_was_said_before_is_held_on_to_up_to_the_end(generator: Callable[[int], Generator]):
    before = torch.randn(3, 5, 4, generator=generator(0))
    counted = torch.arange(5) <= torch.tensor([[4], [2], [0]])
    states = before.clone()
    assert reading.relative_change(states, before, counted) == 0
    states[~counted] += 10
    assert reading.relative_change(states, before, counted) == 0
    variance = before[counted].var(dim=0, correction=0).mean()
    torch.testing.assert_close(reading.relative_change(states + 0.5, before, counted), 0.25 / variance)


def test_reading_is_learnt_and_little_is_changed_where_that_is_asked(
    untaught: tuple[CLIPTextModel, CLIPTokenizer, reading.Reading], generator: Callable[[int], Generator]
):
    text_encoder, tokenizer, exercises = untaught
    words = tokenizer(["a red cube next to a blue cone"], return_tensors="pt").input_ids
    counted = torch.ones_like(words, dtype=torch.bool)
    changes = {}
    for held in (False, True):
        encoder, heads, draw = copy.deepcopy(text_encoder), copy.deepcopy(exercises), generator(0)
        optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=3e-3)
        losses = []
        for _ in range(24):
            optimizer.zero_grad()
            loss = heads.loss(encoder, tokenizer, 8, draw, text_encoder if held else None)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
        with torch.no_grad():
            changes[held] = reading.relative_change(encoder(words)[0], text_encoder(words)[0], counted).item()
    assert changes[True] < 0.5 * changes[False]
