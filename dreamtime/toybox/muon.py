"""Muon, the optimiser of hidden layers (Jordan et al. 2024): every direction in a matrix's momentum is given the same weight.

torch's own takes matrices alone; most of a UNet's weights are kernels of convolutions, here matrices of shape out x (in h w).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamtime.toybox.training import precision_of_products

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # its coefficients a, b and c, for the fastest rise from 0
ITERATIONS = 5
RMS = 0.2  # of an update with a learning rate of 1: that of AdamW (Liu et al. 2025), whose learning rates then fit


def orthogonalized(matrices: Float[Tensor, "B m n"], iterations: int = ITERATIONS) -> Float[Tensor, "B m n"]:
    """About U V^T of each matrix U S V^T, singular values between 0.5 and 1.5: X <- a X + (b A + c A A) X with A = X X^T.

    In the precision that is given; half of single precision suffices.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT, iterations).mT
    a, b, c = NEWTON_SCHULZ
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def hidden_matrices(modules: nn.Module) -> list[Tensor]:
    """The weights of linear and convolutional layers that are neither the first nor the last that a signal meets.

    Those, embeddings, biases and norms are better left to AdamW (Jordan et al. 2024).
    """
    outermost = ("conv_in", "conv_out", "patch_embedding")
    return [
        module.weight
        for name, module in modules.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.endswith(outermost)
    ]


class Muon(torch.optim.AdamW):
    """Muon for some parameters, AdamW with the same learning rate for the others.

    M <- mu M + (1 - mu) G; W <- W (1 - lr decay) - lr RMS sqrt(max(m, n)) orthogonalized((1 - mu) G + mu M), for an m x n
    matrix W with gradient G (Liu et al. 2025, with Nesterov's momentum).
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        precision: torch.dtype = torch.float32,
    ) -> None:
        """`precision` is what the matrices are orthogonalized in; raises ValueError for parameters that are no matrices."""
        self.precision, matrices = precision, list(matrices)
        if flat := [parameter for parameter in matrices if parameter.ndim < 2]:
            raise ValueError(f"Muon takes matrices, expected at least two dimensions, got a shape of {tuple(flat[0].shape)}.")
        super().__init__([{"params": matrices}, {"params": list(others)}], lr=lr, weight_decay=weight_decay, betas=betas)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override] # theirs returns a closure's
        """One update; the gradients of the matrices are used up."""
        if closure is not None:
            raise ValueError("Muon takes no closure: call backward, then step.")
        group = self.param_groups[0]
        alike: dict[torch.Size, list[Tensor]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                alike.setdefault(weight.flatten(1).shape, []).append(weight)
        for (rows, columns), weights in alike.items():
            directions = torch.stack([self.direction(weight).flatten(1) for weight in weights]).to(self.precision)
            scale = group["lr"] * RMS * max(rows, columns) ** 0.5
            for weight, update in zip(weights, orthogonalized(directions).to(weights[0].dtype), strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.reshape(weight.shape), alpha=scale)
                weight.grad = None
        super().step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; raises ValueError for a state that is not one of Muon."""
        count = len(self.param_groups[0]["params"])
        if any("momentum" not in state for index, state in state_dict["state"].items() if index < count):
            raise ValueError("The state of another optimiser is no state of Muon: its matrices have no momentum.")
        super().load_state_dict(state_dict)

    def direction(self, weight: Tensor) -> Tensor:
        """The gradient after Nesterov's momentum, which moves on."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))  # AdamW asks any state for its step
        state["step"] += 1
        return gradient.lerp(state["momentum"].lerp_(gradient, 1 - MOMENTUM), MOMENTUM)


def muon(modules: nn.Module, rate: float) -> Muon:
    """Muon for the hidden matrices of all of these, as the trainings use it."""
    matrices = hidden_matrices(modules)
    hidden = {id(weight) for weight in matrices}
    others = [parameter for parameter in modules.parameters() if id(parameter) not in hidden]
    precision = precision_of_products(matrices[0].device)
    return Muon(matrices, others, lr=rate, weight_decay=1e-3, betas=(0.9, 0.99), precision=precision)
