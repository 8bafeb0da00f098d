"""What can be said about loading a model besides which and where."""

from dataclasses import dataclass
from typing import Literal, get_args

Memory = Literal["normal", "low", "lowest"]
"""How sparing a run is. low: the image encoder works image by image and computes its activations again in the backward pass
instead of keeping them, and T5 is read in 8 bits where that is possible; lowest: besides, the denoiser's weights wait in main
memory and visit the GPU layer by layer."""

Attention = Literal["fused", "sliced"]
"""fused: torch's kernel, whose memory grows linearly with the number of pixels; sliced: head by head, for GPUs without one."""

Precision = Literal["fp16", "bf16"]
"""What a prior is kept and asked in on a GPU: half precision, or bfloat16, which has a wider range and rounds eight times as
coarsely; a guidance scale multiplies that."""

MEMORIES: tuple[Memory, ...] = get_args(Memory)
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Options:
    """How sparing, and with which additions."""

    memory: Memory = "normal"
    attention: Attention = "fused"
    lora: str = ""  # a .safetensors file, or a folder or Hub id with one; merged into the weights
    lora_scale: float = 1.0
    embedding: str = ""  # a textual inversion, likewise
    precision: Precision = "fp16"  # on a GPU
    decodes: bool = False  # whether a step looks at what the prior decodes, by the tiny VAE beside its own


PLAIN = Options()
