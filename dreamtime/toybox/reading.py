"""Exercises in reading for the text encoder: what a caption names has to be told from the state at its end.

The UNet's loss alone teaches it too little of which colour belongs to which of two things, as noise still shows which is which.
Captions need no pictures, so these are new ones in every step.
"""

from collections.abc import Collection

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from dreamtime.prompts import VIEWS
from dreamtime.toybox.kinds import KINDS
from dreamtime.toybox.meanings import Description, wording
from dreamtime.toybox.models import WIDTH
from dreamtime.toybox.naming import NAMES, naming_loss
from dreamtime.toybox.world import Object, Pair, Thing, random_object

KEEPING_WEIGHT = 10.0  # of the relative change of what the encoder said, beside the cross-entropy of the names
VIEWLESS_SHARE = 0.4  # of the captions tell no view
COLORLESS_SHARE = 0.06  # and no colours: as many as there are pictures of plaster
CHANCES = 3  # of three objects drawn a pair is taken, if there is one


def some_object(generator: Generator, kinds: Collection[str]) -> Object:
    """An object that training may see, often a pair; of fewer kinds than all a lone one."""
    while True:
        drawn = [random_object(generator) for _ in range(CHANCES)]
        if len(kinds) == len(KINDS):
            return next((what for what in drawn if isinstance(what, Pair)), drawn[0])
        if known := [what for what in drawn if isinstance(what, Thing) and what.kind in kinds]:
            return known[0]


def some_description(generator: Generator, kinds: Collection[str] = tuple(KINDS)) -> Description:
    """What one caption is to tell."""
    viewless, colorless = (torch.rand(2, generator=generator) < torch.tensor([VIEWLESS_SHARE, COLORLESS_SHARE])).tolist()
    view = VIEWS[int(torch.randint(len(VIEWS), (), generator=generator))]
    return Description(some_object(generator, kinds), None if viewless else view, colored=not colorless)


def relative_change(
    states: Float[Tensor, "B L D"], before: Float[Tensor, "B L D"], counted: Bool[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """Mean square of what has changed, in units of the variance that there was, at the places that count."""
    was = before[counted]
    return (states[counted] - was).square().mean() / (was - was.mean(dim=0)).square().mean()


class Reading(nn.Module):
    """Linear heads that name what a caption of these kinds tells (`toybox.naming`); needed in training alone."""

    def __init__(self, kinds: Collection[str] = tuple(KINDS)) -> None:
        super().__init__()
        self.names, self.kinds = nn.Linear(WIDTH, NAMES), kinds

    def loss(
        self,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        count: int,
        generator: Generator,
        before: CLIPTextModel | None = None,
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the names that so many new captions tell, summed over the questions.

        They are read off the last state at each caption's end, for which what stands behind it counts for nothing, since the
        encoder is causal. Where `before` is given, the encoder is also to say what that one said, from the start to the end.
        """
        told = [some_description(generator, self.kinds) for _ in range(count)]
        captions = [wording(each, generator) for each in told]
        tokens = tokenizer(captions, padding="longest", truncation=True, return_tensors="pt").input_ids
        tokens = tokens.to(text_encoder.device)
        ends = (tokens == tokenizer.eos_token_id).int().argmax(dim=1)
        states = text_encoder(tokens)[0]
        loss = naming_loss(self.names(states[torch.arange(count), ends]), told)
        if before is None:
            return loss
        with torch.no_grad():
            said = before(tokens)[0]
        counted = torch.arange(tokens.shape[1], device=tokens.device) <= ends[:, None]
        return loss + KEEPING_WEIGHT * relative_change(states, said, counted)
