"""How much memory a prior will take, found by going through the motions with tensors that hold nothing.

What is counted are tensors; what a GPU's libraries keep for themselves, about a gigabyte, comes on top.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamtime.priors.autoencoder import economise
from dreamtime.priors.camera_embedding import NUMBERS
from dreamtime.priors.options import Options
from dreamtime.priors.skeletons import condition_shape, configuration_of, part_of, prior_of
from dreamtime.types import SurfaceRepresentation
from dreamtime.volume_rendering import gradients_by_differences, normals_by_differences

CPU = torch.device("cpu")


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that live at the same time, and remembers the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), options: dict[str, Any] | None = None
    ) -> Any:
        self.meet((arguments, options), outside=True)
        result = function(*arguments, **(options or {}))
        self.meet(result, outside=False)
        return result

    def meet(self, tensors: Any, outside: bool) -> None:
        """Count memory that was not there before; what an argument brings from outside costs nothing."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self.living:
                self.living[key] = 0 if outside else tensor.untyped_storage().nbytes()
                self.now += self.living[key]
                self.most = max(self.most, self.now)
                weakref.finalize(tensor.untyped_storage(), self.died, key)

    def died(self, key: int) -> None:
        self.now -= self.living.pop(key)


def imagined(module: nn.Module, mode: FakeTensorMode) -> None:
    """Turn a skeleton's parameters and buffers into tensors that claim to be on a CPU, where attention is fused as on a GPU."""
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            owner.register_parameter(name, nn.Parameter(FakeTensor(mode, parameter.data, CPU), requires_grad=False))
        for name, buffer in owner.named_buffers(recurse=False):
            owner.register_buffer(name, FakeTensor(mode, buffer.to("meta"), CPU))


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes that live at the same time during some work."""
    with Peak() as peak:
        work()
    return peak.most


def bytes_of(module: nn.Module) -> int:
    """The bytes of a module's parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())


def rendering_bytes(scene: Any, samples: int, smooth: bool = False) -> int:
    """The peak of looking a scene on the meta device up at so many points, with normals by differences, and of the way back.

    A scene of surfaces is also asked for optical depths along rays and, by the eikonal term, for its distance's gradient;
    one that is to be smooth for normals nearby, too.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    imagined(scene, mode)
    scene.requires_grad_(True)
    with mode:
        points, lengths = torch.empty(samples, 3), torch.empty(samples)
    field = scene.distance if isinstance(scene, SurfaceRepresentation) else scene.density

    def work() -> None:
        density, albedo = scene.density_and_albedo(points)
        total = density.sum() + albedo.sum()
        total = total + normals_by_differences(field, points).sum()
        if smooth:
            total = total + normals_by_differences(field, points + 0.01).sum()
        if isinstance(scene, SurfaceRepresentation):
            total = total + scene.optical_depths(points, points, lengths).sum()
            total = total + gradients_by_differences(scene.distance, points).norm(dim=-1).sum()
        total.backward()

    return peak_bytes(work)


@dataclass(frozen=True)
class Need:
    """Bytes on the GPU: of the encoders, of the weights of the prior and of one beside it, and at the peak of a step's work."""

    text_encoders: int
    weights: int
    weights_beside: int
    step: int


@dataclass(frozen=True)
class Imagined:
    """A prior without values: its bytes, and what a training step asks of it, up to where the way back begins."""

    text_encoders: int
    weights: int
    ask: Callable[[Tensor], Tensor]


def asked_of(
    prior: Any, mode: FakeTensorMode, condition: tuple[int, int], answers: int, learns: bool, decodes: bool
) -> Callable[[Tensor], Tensor]:
    """What a training step asks of a prior about images: encode, so many answers for each at once, and decode if it does."""

    def ask(images: Tensor) -> Tensor:
        views = len(images)
        with mode:
            text = torch.empty(answers * views, *condition)
        x = prior.encode(images.detach() if decodes else images)
        prior.predict_noise(torch.cat([x] * answers).detach(), 500, text)
        if learns:
            # A second predictor is the same network, with a way back through it.
            noisy = x.detach().to(prior.unet.dtype).requires_grad_()
            text, poses = text[:views].to(noisy.dtype), noisy.new_zeros(views, NUMBERS)
            prior.unet(noisy, 500, encoder_hidden_states=text, class_labels=poses).sample.sum().backward()
        if decodes:
            return (images - prior.decode(x).mean()).sum()
        return x.sum()

    return ask


def imagined_prior(
    source: str, dtype: torch.dtype, options: Options, mode: FakeTensorMode, answers: int = 2, learns: bool = False
) -> Imagined:
    """A model as a step meets it. Raises `ModelUnavailable`."""
    configuration = configuration_of(source)
    readers = [part for part in configuration if part.startswith(("text_encoder", "image_encoder"))]
    texts = [part_of(configuration, part, dtype) for part in readers]
    prior = prior_of(configuration, dtype, options.decodes)
    modules = {name: module for name, module in vars(prior).items() if isinstance(module, nn.Module)}
    if "vae" in modules:
        economise(prior.vae, options)
    denoiser = next(module for name, module in modules.items() if name != "vae")
    weights = sum(map(bytes_of, modules.values())) - (bytes_of(denoiser) if options.memory == "lowest" else 0)
    for module in modules.values():
        imagined(module, mode)
    ask = asked_of(prior, mode, condition_shape(configuration), answers, learns, options.decodes)
    return Imagined(sum(map(bytes_of, texts)), weights, ask)


@lru_cache(maxsize=64)
def need_of(
    source: str,
    dtype: torch.dtype,
    views: int,
    side: int,
    options: Options,
    answers: int = 2,
    learns: bool = False,
    beside: str = "",
) -> Need:
    """What a prior needs in a run, and the one beside it if there is one; `learns` if a second predictor is trained.

    Estimated once in a process for all that ask alike, whatever becomes of a folder meanwhile.

    `answers` is how many the prior gives at once about each image.

    Both are asked about the same images before the one way back. Their encoders of text come and go one after the other. Raises
    `ModelUnavailable`.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    first = imagined_prior(source, dtype, options, mode, answers, learns)
    second = imagined_prior(beside, dtype, options, mode) if beside else None
    priors = [first, second] if second else [first]

    def step() -> None:
        with mode:
            images = torch.empty(views, side, side, 3, requires_grad=True)
        torch.stack([prior.ask(images) for prior in priors]).sum().backward()

    encoders = max(prior.text_encoders for prior in priors)
    return Need(encoders, first.weights, second.weights if second else 0, peak_bytes(step))
