"""RMSProp as TensorFlow 1 computes it; torch's own differs in three ways and is less stable for this family.

Source: tensorflow/tpu `models/official/efficientnet/utils.py` (build_optimizer) and TF's RMSPropOptimizer: epsilon
inside the root, mean square starting at one, learning rate inside the momentum buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class RMSpropTF(torch.optim.Optimizer):
    """TensorFlow's RMSProp with coupled L2 weight decay.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        alpha: Decay of the mean square.
        eps: Added to the mean square, inside the root.
        momentum: Decay of the update buffer.
        weight_decay: L2 coefficient, added to the gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float,
        alpha: float = 0.9,
        eps: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ):
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean_square"] = torch.ones_like(parameter)
                    state["update"] = torch.zeros_like(parameter)
                gradient = parameter.grad
                if group["weight_decay"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                state["mean_square"].lerp_(gradient.square(), 1 - group["alpha"])
                root = (state["mean_square"] + group["eps"]).sqrt_()
                state["update"].mul_(group["momentum"]).addcdiv_(gradient, root, value=group["lr"])
                parameter.sub_(state["update"])
        return loss
