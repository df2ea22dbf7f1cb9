"""What one pass of DAG over its rollouts finds, gathered chunk by chunk."""

from __future__ import annotations

import torch

from .dag_losses import BalanceLoss, KLLoss, effective_sample_size


class Tally:
    """Detached results of the chunks of a pass, in order.

    Args:
        keep_x0: keep what the policy predicted.
    """

    def __init__(self, *, keep_x0: bool) -> None:
        self._x0: list[torch.Tensor] | None = [] if keep_x0 else None
        self._parts: dict[str, list[torch.Tensor]] = {}

    def add(
        self,
        found: BalanceLoss | KLLoss,
        log_new: torch.Tensor,
        log_old: torch.Tensor,
        x0: torch.Tensor,
        kept: torch.Tensor,
    ) -> None:
        """One chunk of n transitions: all [n], but x0 [n, C, H, W]."""
        values = {"log_new": log_new, "change": log_new - log_old, "residual": found.residual, "kept": kept}
        if isinstance(found, KLLoss):
            values |= {"policy_loss": found.policy_loss, "clipped": found.clipped}
        for name, value in values.items():
            self._parts.setdefault(name, []).append(value.detach())
        if self._x0 is not None:
            self._x0.append(x0.detach())

    def log_new(self) -> torch.Tensor:
        """log P_F of every transition, [N]."""
        return torch.cat(self._parts["log_new"])

    def x0(self) -> torch.Tensor | None:
        """x0 of every transition, [N, C, H, W], if they were kept."""
        return None if self._x0 is None else torch.cat(self._x0)

    def figures(self) -> dict[str, float]:
        """The pass in numbers, over the transitions that count.

        Returns:
            "residual" mean |δ|; "flow_loss" mean δ²; "effective_sample_size" (see `dag_losses`); "ratio" mean ρ;
            "log_probability_change" root mean square of log ρ; of DAG-KL also "policy_loss", before the weights of the
            steps, and "clipped", the share of transitions whose ρ left the trust region. All 0 if none counts.
        """
        parts = {name: torch.cat(values) for name, values in self._parts.items()}
        kept = parts.pop("kept")
        parts = {name: value[kept] if kept.any() else torch.zeros(1) for name, value in parts.items()}
        found = {
            "residual": parts["residual"].abs().mean(),
            "flow_loss": parts["residual"].square().mean(),
            "ratio": parts["change"].exp().mean(),
            "log_probability_change": parts["change"].square().mean().sqrt(),
        }
        found |= {name: parts[name].mean() for name in ("policy_loss", "clipped") if name in parts}
        return {name: value.item() for name, value in found.items()} | {
            "effective_sample_size": effective_sample_size(parts["residual"])
        }
