"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

import pydantic
import torch
from torch import nn

from mtl_tickets.settings import Settings

Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class OptimiserSettings(Settings):
    """AdamW, the Adamax variant of the Super Tickets code, or Muon; linear warm-up, then linear decay to 0."""

    kind: Literal["adamw", "adamax", "muon"] = "adamw"
    lr: pydantic.PositiveFloat = 5e-5
    head_lr: pydantic.PositiveFloat | None = pydantic.Field(
        None, description="of task heads, which start from nothing; None: as lr. Small encoders gain from a larger one"
    )
    muon_lr: pydantic.PositiveFloat = pydantic.Field(
        0.01, description="kind: muon; of the matrices of linear layers, the rest has AdamW with lr"
    )
    betas: tuple[Share, Share] | None = pydantic.Field(None, description="None: (0.9, 0.999)")
    eps: pydantic.PositiveFloat | None = pydantic.Field(None, description="None: 1e-8 for adamw, 1e-6 for adamax")
    weight_decay: pydantic.NonNegativeFloat = pydantic.Field(0.01, description="decoupled; not on biases and norms")
    warm_up: Share = pydantic.Field(0.1, description="share of the steps over which the learning rate rises")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    clip: pydantic.NonNegativeFloat = pydantic.Field(1.0, description="largest norm of all gradients; 0: no clipping")


def make_optimiser(model: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """The optimiser over the model's trainable parameters: weight decay on matrices, none on biases and norms.

    Heads are the parameters of ``model.heads``, where it has such a part; Muon is not for them.
    """
    heads = {id(parameter) for parameter in _heads(model)}
    # a matrix that also holds embeddings (a tied vocabulary) maps no vector to another: Muon is not for it
    kept = heads | {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)} - kept
    matrices: list[nn.Parameter] = []
    # by (is a head's, is decayed); every matrix of these encoders has two dimensions, every bias and norm weight one
    parts: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            if settings.kind == "muon" and id(parameter) in linear:
                matrices.append(parameter)
            else:
                parts.setdefault((id(parameter) in heads, parameter.ndim > 1), []).append(parameter)
    groups: list[dict[str, Any]] = []
    for (of_head, decays), parameters in sorted(parts.items(), key=lambda item: (item[0][0], not item[0][1])):
        group = {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0}
        if of_head and settings.head_lr is not None:
            group["factor"] = settings.head_lr / settings.lr
        groups.append(group)
    betas = settings.betas or (0.9, 0.999)
    if settings.kind == "adamax":
        return PaperAdamax(groups, lr=settings.lr, betas=betas, eps=settings.eps or 1e-6)
    # one kernel for all parameters; torch has it for CPU and CUDA
    adamw = torch.optim.AdamW(groups, lr=settings.lr, betas=betas, eps=settings.eps or 1e-8, fused=True)
    return MuonAndAdamW(matrices, adamw, settings) if matrices else adamw


def _heads(model: nn.Module) -> Iterable[nn.Parameter]:
    heads = getattr(model, "heads", None)
    return heads.parameters() if isinstance(heads, nn.Module) else ()


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Factor on the peak rate for optimiser step ``step`` of ``steps`` (both counted from 0 and 1)."""
    warm = math.ceil(settings.warm_up * steps)
    if step < warm:
        return (step + 1) / warm
    if settings.schedule == "constant":
        return 1.0
    left = (steps - step) / max(1, steps - warm)
    return left if settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def stretch(step: int, steps: int, restarts: Sequence[int] = ()) -> tuple[int, int]:
    """Where ``step`` of ``steps`` stands between two restarts: the steps since the one, and from that to the next."""
    begin = max((at for at in restarts if at <= step), default=0)
    end = min((at for at in restarts if at > step), default=steps)
    return step - begin, end - begin


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """``rate`` for every group, times the group's own ``factor`` where it has one."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for weight matrices, AdamW for the rest, as one optimiser with one state.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) steps along the orthogonalised momentum of a
    matrix, so that all its directions learn alike. The step is torch's own.
    """

    def __init__(self, matrices: list[nn.Parameter], adamw: torch.optim.AdamW, settings: OptimiserSettings):
        muon = torch.optim.Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay)
        for group in muon.param_groups:
            group["factor"] = settings.muon_lr / settings.lr
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._parts = [(muon, len(muon.param_groups)), (adamw, len(adamw.param_groups))]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        groups = iter(self.param_groups)
        for part, number in self._parts:
            # what was loaded from a checkpoint is ours and not yet theirs
            part.param_groups, part.state = [next(groups) for _ in range(number)], self.state
            part.step()
        return loss


class PaperAdamax(torch.optim.Optimizer):
    """Adamax as the Super Tickets code uses it (METHODS 1.6): m/u with m an average of gradients and
    u = max(beta2 u, |g| + eps), **no bias correction**, decoupled weight decay times the scheduled rate.

    ``torch.optim.Adamax`` corrects m for bias and adds the decay to the gradient; both change the numbers.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            for p in parameters:
                if not self.state[p]:
                    self.state[p] = {"average": torch.zeros_like(p), "largest": torch.zeros_like(p)}
            averages = [self.state[p]["average"] for p in parameters]
            largest = [self.state[p]["largest"] for p in parameters]
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(averages, gradients, 1 - beta1)
            torch._foreach_mul_(largest, beta2)
            sizes = torch._foreach_abs(gradients)
            torch._foreach_add_(sizes, group["eps"])
            torch._foreach_maximum_(largest, sizes)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            updates = torch._foreach_div(averages, torch._foreach_add(largest, group["eps"]))
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])
        return loss
