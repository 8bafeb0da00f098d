"""A vision transformer whose class token reads every place of the picture from the first step on.

A class token that begins with its attention spread evenly reads an average of all places, in which an object's outline is
lost; to tell them apart it has to learn which patch is where, and that takes it tens of thousands of pictures. Here the last
layer begins, and stays, with one head for each place, so that the token receives what a network with a flattened feature map
hands to its classifier. What is read of a place is learnt. The layout is transformers' own: only the weights are special.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 4  # places along each side of the picture
PLACES = SIDE**2  # patches of a picture, and heads of each layer
SHARPNESS = 20.0  # of the last layer's queries and keys
LOUDNESS = 20.0  # of what it reads, against what the class token held before


def place_codes() -> Float[Tensor, "P C"]:
    """A unit vector for each place, no two of which have a product above 1/9: of tetrahedron corners, row by column."""
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5
    return torch.einsum("ri,cj->rcij", corners, corners).reshape(PLACES, -1)


class Gathering:
    """Sets the weights that let the class token of CLIP's vision transformer gather all places, and holds them there.

    The first channels are kept for the places' codes, and one for a mark of the class token. The embeddings write them, no
    layer adds to them, and the queries and keys of the last layer read nothing else.
    """

    @torch.no_grad()
    def __init__(self, vision: Any) -> None:  # transformers' vision transformer, whose parts torch does not type
        codes = place_codes()
        width = codes.shape[1]
        kept = slice(width + 1)
        embeddings, layers = vision.embeddings, vision.encoder.layers
        attention = layers[-1].self_attn
        places = embeddings.position_embedding.weight
        places[0], places[1:, width] = 0, 0
        places[1:, :width] = codes
        embeddings.patch_embedding.weight[kept] = 0
        embeddings.class_embedding[:width], embeddings.class_embedding[width] = 0, 1
        for projection in (attention.q_proj, attention.k_proj):
            nn.init.zeros_(projection.weight)
            nn.init.zeros_(projection.bias)
        for head, code in enumerate(codes):
            rows = slice(head * attention.head_dim, head * attention.head_dim + width)
            attention.q_proj.weight[rows, width] = SHARPNESS * code / 2
            attention.k_proj.weight[rows, :width] = SHARPNESS * torch.eye(width)
        nn.init.normal_(attention.v_proj.weight, std=len(attention.v_proj.weight) ** -0.5)
        nn.init.orthogonal_(attention.out_proj.weight, gain=LOUDNESS)
        writers = [projection for layer in layers for projection in (layer.self_attn.out_proj, layer.mlp.fc2)]
        for projection in writers:
            projection.weight[kept], projection.bias[kept] = 0, 0

        norms = [vision.pre_layrnorm, layers[-1].layer_norm1]
        held = [places[:, kept], embeddings.patch_embedding.weight[kept], embeddings.class_embedding[kept]]
        held += [parameter[kept] for module in (*norms, *writers) for parameter in module.parameters()]
        held += [parameter for module in (attention.q_proj, attention.k_proj) for parameter in module.parameters()]
        self.held = [(part.detach(), part.detach().clone()) for part in held]

    @torch.no_grad()
    def hold(self) -> None:
        """After a step of the optimiser: everything that is held as it was."""
        for part, value in self.held:
            part.copy_(value)
