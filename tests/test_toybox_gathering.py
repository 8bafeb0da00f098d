"""The class token of the scorer's vision transformer reads every place, at the start and after training."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator
from transformers import CLIPModel

from dreamtime.toybox import models, scorer
from dreamtime.toybox.gathering import PLACES, Gathering, place_codes
from dreamtime.toybox.training import seeded_initialisation


@pytest.fixture
def model() -> CLIPModel:
    with seeded_initialisation(0):
        return scorer.build_model(models.build_tokenizer())


def gaze(model: CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """How much of each head of the last layer the class token gives to each patch: B heads patches."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attention = model.vision_model(pixel_values=images, output_attentions=True).attentions[-1]
    return attention[:, :, 0, 1:]


def test_no_two_places_have_codes_alike():
    products = place_codes() @ place_codes().T
    assert torch.allclose(products.diagonal(), torch.ones(PLACES))
    assert (products - torch.eye(PLACES)).max().item() == pytest.approx(1 / 9)


def test_each_head_reads_one_place_whatever_the_picture(model: CLIPModel, generator: Callable[[int], Generator]):
    images = 2 * torch.rand(5, 3, 64, 64, generator=generator(0)) - 1
    images[0] = 1  # a blank one
    images[1, :, :32] = -1  # one half black
    evenly = gaze(model, images).diagonal(dim1=1, dim2=2)
    assert evenly.mean().item() == pytest.approx(1 / (PLACES + 1), abs=0.05), "without it every place counts alike"
    Gathering(model.vision_model)
    assert gaze(model, images).diagonal(dim1=1, dim2=2).min() > 0.99


def test_training_leaves_the_reading_as_it_is_and_changes_what_is_read(model: CLIPModel, generator: Callable[[int], Generator]):
    vision = model.vision_model
    gathering = Gathering(model.vision_model)
    images = 2 * torch.rand(5, 3, 64, 64, generator=generator(1)) - 1
    value, query = (getattr(vision.encoder.layers[-1].self_attn, name).weight for name in ("v_proj", "q_proj"))
    read, asked = value.detach().clone(), query.detach().clone()
    optimizer = torch.optim.AdamW(vision.parameters(), lr=0.001, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        vision(pixel_values=images).pooler_output.square().sum().backward()
        optimizer.step()
        assert not torch.equal(query, asked), "the optimiser moved it"
        gathering.hold()
    assert torch.equal(query, asked)
    assert not torch.allclose(value, read)
    assert gaze(model, images).diagonal(dim1=1, dim2=2).min() > 0.99


def test_a_layout_of_transformers_with_nothing_added(model: CLIPModel):
    before = {name: part.shape for name, part in model.state_dict().items()}
    Gathering(model.vision_model)
    assert {name: part.shape for name, part in model.state_dict().items()} == before
