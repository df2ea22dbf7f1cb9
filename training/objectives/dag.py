"""DAG: alignment by GFlowNets. Pictures are drawn in proportion to R = exp(β·r), instead of all being the best one.

State (x_t, t, c), action x_s, start N(0, I); P_F is the sampler's step, P_B the fixed noising kernel. The flow network
f_φ learns, together with the reward of the clean picture that a state promises, how much lies downstream of it:

    log F̃(x_t, t, c) = f_φ(x_t, t, c) + β_e·r(x̂0(x_t), c),      log F̃(x_0) = β_e·r(x_0, c)
    δ = log F̃(x_t) + log P_F(x_s | x_t) − log P_B(x_t | x_s) − log F̃(x_s)

x̂0 is one prediction of the policy without guidance, decoded and scored, without gradients: any black-box reward will
do. β_e rises from 0 to β. Where δ = 0 everywhere, p_θ(x_0) ∝ R(x_0): summed over a trajectory the flows in between
cancel, F̃(x_T)·Π P_F = R(x_0)·Π P_B; integrated over the steps to x_T this is F̃(x_T) = Z·p(x_T), since the noised R/Z is
the start distribution once the noise has drowned everything; hence p(x_T)·Π P_F = R(x_0)/Z·Π P_B.

    DAG-DB    L = δ², gradients to θ and to f_φ at both ends
    DAG-KL    L = δ² with log P_F detached, for f_φ, + max(−A·ρ, −A·clip(ρ, 1 ± clip_range)), the policy gradient of
              KL(P_F(·|x_t) ‖ P_B·F̃(x_s)/F̃(x_t)) with the pseudo-reward −δ and leave-one-out advantages
    both      + anchor·mean‖ε̃_θ − ε̃_behaviour‖², which is zero in the first pass over a set of rollouts

The target knows nothing of the pretrained model. With `reference_prior` it is p_ref(x_0)·exp(β·r(x_0)) instead, and
log P_ref(x_s | x_t), the reference's own step, takes the place of log P_B. Derivation: let p_t be the reference's
marginals. The reversal of its steps is P'(x_t | x_s) = P_ref(x_s | x_t)·p_t(x_t)/p_s(x_s). Balance with P' in place of
P_B and the flow F' = p_t·F̃, which ends in F'(x_0) = p_ref(x_0)·exp(β·r), reads
p_t·F̃(x_t)·P_F = p_s·F̃(x_s)·P_ref·p_t/p_s; all marginals cancel: F̃(x_t)·P_F = F̃(x_s)·P_ref. Summed over a trajectory:
F̃(x_T)·Π P_F = exp(β·r(x_0))·Π P_ref. F̃ is then the expectation of exp(β·r) over what the reference would make of x_t,
and β·r(x̂0) the first guess of its logarithm.

What a step of the policy answers for is δ, right as far as the flows are: a policy that is moved by flows which have
learned little runs after the reward of x̂0 alone. With credit "to the end" it is Δ, the sum of δ from this step to the
picture, in which all flows but the first cancel: Δ = log F̃(x_t) + Σ (log P_F − log P_B) − β_e·r(x_0). In the first pass
over a set of rollouts E[Δ·∇log P_F] is the gradient of KL(Π P_F ‖ Π P_B·R/Z) itself, whatever the flows say, which do
no more than make it vary less; later passes keep the steps behind as they were played. All of it is known of a played
rollout, so that no reward call is added. The flows learn from δ² as before, at whose zero Δ is zero.

Reward calls. Taken literally a rollout of T steps costs 2·T. Here the flow at a state is shared by its two transitions,
and `transitions` = K neighbouring ones are drawn per rollout (`windows`), which is unbiased: K + 2 calls at most,
the finished picture included. They are made once per set of rollouts, by the policy that played them.

References:
    Zhang et al. 2024, "Improving GFlowNets for Text-to-Image Diffusion Alignment" (DAG-DB, DAG-KL), and the values of
    its released code: log-probabilities averaged over latent dimensions, 50 steps, guidance 5, clip range 1e-4, LoRA
    rank 4, AdamW 3e-4 for policy and flow, β 100 for ImageReward, 512 rollouts and 2 updates per epoch.

Differences from the paper (all ours):
    - reward calls as above: shared, drawn, and made once per set of rollouts;
    - leave-one-out statistics within one prompt and one step, which differ in nothing but the draw;
      `baseline="batch"` is the released code's, over whatever the batch holds;
    - states are divided by √(α² + β²), so that eps and v models have the paper's states and flow models like ones;
    - log p_old is the first pass's, as in `ddpo`; the pseudo-rewards of later passes keep the log P_F of the first;
    - by default the policy's gradient is balanced over the steps, as in `ddpo`: it changes how fast which step learns,
      not where δ vanishes. The flows' gradient is plain;
    - f_φ starts at zero and stays in float32 (`flow_network`); with the "sum" convention its output counts D-fold, so
      that the two conventions learn the same at β and β/D;
    - `reference_prior`; credit "to the end" (sub-trajectory balance, Madan et al. 2023, for the policy's part alone);
    - `flow_warmup`: a policy that follows flows which have learned nothing yet runs after the reward of x̂0 alone, which
      is far off at high noise, and into few modes; with the flows of the pretrained policy learned first it does not;
    - transitions that touch a picture the reward's safety gate blocks are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ..diffusion import expand
from ..interfaces import Auxiliary, LatentDecoder, Prompt, Reward, TrainingError
from ..picture_memory import PictureMemory
from ..rollout import Trajectories, step_log_probability
from ..share import ALONE, Share
from .dag_config import DAGConfig
from .dag_losses import (
    annealed,
    balance_loss,
    density_change,
    kl_loss,
    noise_anchor,
    pseudo_advantages,
    residual,
    scaled_gradient,
    unit_scale,
)
from .dag_played import Played, Rest
from .dag_tally import Tally
from .flow_network import FlowNetwork, FlowNetworkConfig, flow_bytes
from .practice import OnPhase, Practice, check_scored_alone
from .transitions import step_weights
from .windows import draw_windows, window_states


class DAGObjective:
    """Samples pictures in proportion to exp(β·reward).

    Args:
        prompts: what to practise on; all randomness of their choice comes from the run's generator.
        reward: any callable of the `Reward` protocol, gradients are not needed; a cost counts negatively.
        held_out: reported, never optimised: the guard against gaming the reward.
        decoder: latents to images.
        latent_shape: [C, H, W] of the pictures.
        on_phase: called with (phase, done, total) while rollouts are played; may raise to cancel.

    A denoiser may have `text_features(cond) -> Sequence[Tensor] | None`: the tokens [L, D] of every conditioning, which
    the flow network attends to. Without it the network learns a token for each prompt.

    Raises:
        TrainingError: the reward compares pictures, or as `Practice`.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        reward: Reward,
        decoder: LatentDecoder,
        config: DAGConfig,
        *,
        latent_shape: Sequence[int],
        held_out: Reward | None = None,
        on_phase: OnPhase | None = None,
    ) -> None:
        check_scored_alone(reward)
        self.practice = Practice(
            prompts, reward, decoder, latent_shape=latent_shape, held_out=held_out, on_phase=on_phase
        )
        self.config, self.name = config, f"dag-{config.variant.lower()}"
        self.best_metric, self.best_is_high = self.practice.best_metric, self.practice.best_is_high
        self._policy: Any = None
        self._share: Share = ALONE
        self._played: Played | None = None
        self._figures: dict[str, float] = {}
        self._passes = 0
        # Passes per update: the trainer says how many.
        self.accumulation = 1
        self.policy_waits = config.flow_warmup

    def prepare(self, policy: Any, share: Share = ALONE) -> None:
        config, practice = self.config, self.practice
        self._policy, self._share = policy, share
        practice.prepare(policy, share)
        dimensions = torch.Size(practice.latent_shape).numel()
        self.flow_network = FlowNetwork(
            practice.latent_shape,
            FlowNetworkConfig(config.flow_channels),
            text_width=self._text_width(),
            prompts=len(practice.prompts),
            scale=1.0 if config.convention == "mean" else float(dimensions),
        ).to(policy.device)

    def auxiliary(self) -> Auxiliary:
        named = {f"flow.{name}": value for name, value in self.flow_network.named_parameters()}
        return Auxiliary(named, self.config.flow_learning_rate)

    def picture_memory(self, device: torch.device) -> PictureMemory:
        return self.practice.decoding_memory()

    def own_memory(self) -> int:
        """Bytes of the rollouts, and of learning with the flow network."""
        network, states = FlowNetworkConfig(self.config.flow_channels), 2 * self.config.chunk
        return self.practice.rollout_bytes(self.config) + flow_bytes(network, self.practice.latent_shape, states=states)

    # ---- one update ----

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        config = self.config
        # Rollouts are played as the finished LoRA will be used: adapter dropout belongs to learning only.
        self._policy.training_mode(False)
        if self._played is None:
            self._played = self._play(generator)
        played, update = self._played, self._passes // self.accumulation
        beta, learns = annealed(config.beta, update, config.anneal_updates), update >= config.flow_warmup
        self._figures["kl_to_reference"] = self.practice.kl_to_reference(
            played.trajectories, guidance=config.guidance, chunk=config.chunk
        )
        self._policy.training_mode(config.updates_per_rollout == 1)
        advantages = self._advantages(played, beta) if config.variant == "KL" else None
        weights = step_weights(self._policy.process, played.trajectories.sigmas, config.step_weights)
        total = len(played.visits)
        again = played.log_old is None and played.updates_left > 1
        tally = Tally(keep_x0=again and config.anchor > 0)
        counted = self._share.mean({"kept": float(played.kept.sum())})["kept"] or 1.0
        for start in range(0, total, config.chunk):
            part = slice(start, start + config.chunk)
            with torch.set_grad_enabled(learns):
                log_new, x0 = self._steps(played, part)
            flow, flow_next = self._flows(played, part, beta)
            log_old = log_new.detach() if played.log_old is None else played.log_old[part]
            log_target, weight = played.log_target[part], weights[played.visits[part, 1]]
            if advantages is None:
                credit = None
                if played.rest is not None:
                    credit = residual(flow, log_new, log_target, played.rest.flow_next(beta)[part]).detach()
                scaled = scaled_gradient(log_new, weight)
                found = balance_loss(flow, scaled, log_target, flow_next, credit=credit)
                loss = found.loss
            else:
                found = kl_loss(
                    flow, log_new, log_old, log_target, flow_next, advantages[part], clip_range=config.clip_range
                )
                loss = found.flow_loss + weight * found.policy_loss
            if played.behaviour is not None:
                loss = loss + config.anchor * self._anchor(played, part, x0)
            tally.add(found, log_new, log_old, x0, played.kept[part])
            self.practice.on_phase("learn", min(total, start + config.chunk), total)
            yield (loss * played.kept[part]).sum() / counted
        self._finish(played, tally, beta)

    def _finish(self, played: Played, tally: Tally, beta: float) -> None:
        """Remember what a pass over the rollouts found."""
        self._figures |= tally.figures() | {"beta": beta}
        played.updates_left -= 1
        self._passes += 1
        if played.updates_left == 0:
            self._played = None
        elif played.log_old is None:
            played.log_old = tally.log_new()
            played.behaviour = tally.x0()

    def _at(self, played: Played, part: slice) -> tuple[torch.Tensor, ...]:
        """(x, x_next, sigma, sigma_next) of some transitions."""
        paths, (rows, steps) = played.trajectories, played.visits[part].unbind(1)
        return paths.states[rows, steps], paths.states[rows, steps + 1], paths.sigmas[steps], paths.sigmas[steps + 1]

    def _cond(self, played: Played, rows: torch.Tensor) -> list[Any]:
        return [played.trajectories.cond[row] for row in rows.tolist()]

    def _steps(self, played: Played, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """log P_F [n] and x0 [n, C, H, W] of some transitions, with gradients."""
        x, x_next, sigma, sigma_next = self._at(played, part)
        cond = self._cond(played, played.visits[part, 0])
        x0 = self._policy(x, sigma, cond, guidance=self.config.guidance)
        log_forward = step_log_probability(
            self._policy.process, x, x0, x_next, sigma, sigma_next, convention=self.config.convention
        )
        return log_forward, x0

    def _anchor(self, played: Played, part: slice, x0: torch.Tensor) -> torch.Tensor:
        x, _, sigma, _ = self._at(played, part)
        return noise_anchor(self._policy.process, x, x0, played.behaviour[part], sigma)

    @torch.no_grad()
    def _advantages(self, played: Played, beta: float) -> torch.Tensor:
        """Of the pseudo-rewards −δ under the policy that played, [N]; compared with those of all processes."""
        share, (rows, steps) = self._share, played.visits.unbind(1)
        parts = [
            self._flows(played, slice(start, start + self.config.chunk), beta)
            for start in range(0, len(rows), self.config.chunk)
        ]
        flow, flow_next = (torch.cat(side) for side in zip(*parts, strict=True))
        if played.rest is not None:
            flow_next = played.rest.flow_next(beta)
        log_forward = played.trajectories.log_forward[rows, steps] if played.log_old is None else played.log_old
        rewards = share.gather(-residual(flow, log_forward, played.log_target, flow_next))
        prompts = torch.tensor(played.prompts, device=rows.device)[rows]
        groups = prompts * played.trajectories.steps + steps if self.config.baseline != "batch" else 0 * steps
        kept = share.gather(played.kept.float()).bool()
        return share.take(pseudo_advantages(rewards, share.gather(groups), kept, clamp=self.config.advantage_clamp))

    # ---- flows ----

    def _flows(self, played: Played, part: slice, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
        """log F̃ at both ends of some transitions, [n] each; a state that two of them share is evaluated once."""
        ends = torch.cat([played.before[part], played.after[part]])
        needed, places = ends.unique(return_inverse=True)
        flow = beta * played.rewards[needed] + self._network_flows(played, needed)
        return flow[places].chunk(2)

    def _network_flows(self, played: Played, needed: torch.Tensor) -> torch.Tensor:
        """f_φ of some states; 0 at the end of a trajectory. [m]"""
        paths, (rows, numbers) = played.trajectories, played.states[needed].unbind(1)
        inner = (numbers < paths.steps).nonzero().flatten()
        values = torch.zeros(len(needed), device=needed.device)
        if not len(inner):
            return values
        rows, numbers, process = rows[inner], numbers[inner], self._policy.process
        x, sigma = paths.states[rows, numbers], paths.sigmas[numbers]
        levels = process.sigmas.to(sigma)
        level = torch.searchsorted(levels, sigma) / (len(levels) - 1)
        text, owners = self._text(played, rows)
        found = self.flow_network(x / expand(unit_scale(process, sigma), x), level, text, owners)
        return values.index_put((inner,), found)

    def _text(self, played: Played, rows: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """Tokens [L, D] of the prompts of some rollouts, each once, and which of them every rollout has."""
        prompts = torch.tensor(played.prompts, device=rows.device)[rows]
        different, owners = prompts.unique(return_inverse=True)
        if self.flow_network.token_table is not None:
            return self.flow_network.prompt_tokens(different.tolist()), owners
        return self._policy.text_features([self.practice.prompts[i].positive for i in different.tolist()]), owners

    def _text_width(self) -> int:
        """Width of the prompts' tokens; 0 where the denoiser shows none."""
        source = getattr(self._policy, "text_features", None)
        widths: set[int] = set()
        for prompt in self.practice.prompts:
            tokens = source([prompt.positive]) if callable(source) else None
            if tokens is None:
                return 0
            widths.add(tokens[0].shape[-1])
        if len(widths) > 1:
            raise TrainingError(
                f"DAG: the prompts were encoded by different text encoders: their tokens are {sorted(widths)} numbers "
                "wide. Connect conditionings of one text encoder."
            )
        return widths.pop()

    # ---- rollouts ----

    def _play(self, generator: torch.Generator) -> Played:
        config, practice = self.config, self.practice
        indices = practice.draw(config.prompts_per_update, config.images_per_prompt, generator)
        paths = practice.play(
            indices,
            generator,
            steps=config.steps,
            guidance=config.guidance,
            convention=config.convention,
            chunk=config.chunk,
        )
        visits = draw_windows(
            config.prompts_per_update,
            config.images_per_prompt,
            config.steps,
            generator,
            count=config.transitions,
            share=self._share,
        ).to(paths.states.device)
        with torch.no_grad():
            images = practice.decode(paths.pictures)
            judged = practice.score(images, indices, practice.everyone(indices))
            rewards, blocked = self._promises(paths, indices, visits, judged.rewards, judged.blocked)
        self._figures = practice.figures(images, indices, judged)
        _, before, after = window_states(visits, paths.steps)
        kept = ~(blocked[before] | blocked[after] | judged.blocked.to(blocked.device)[visits[:, 0]])
        rest, rows = None, visits[:, 0]
        if config.credit == "to the end":
            everything = torch.cartesian_prod(torch.arange(len(paths.states)), torch.arange(paths.steps)).to(visits)
            log_targets = self._log_target(paths, everything).view(-1, paths.steps)
            rest = self._rest(paths, visits, log_targets, practice.sign * judged.rewards.to(rewards)[rows])
            log_target = log_targets[rows, visits[:, 1]]
        else:
            log_target = self._log_target(paths, visits)
        return Played(
            paths,
            indices,
            visits,
            practice.sign * rewards,
            kept,
            log_target,
            config.updates_per_rollout,
            rest,
        )

    @staticmethod
    def _rest(paths: Trajectories, visits: torch.Tensor, log_targets: torch.Tensor, finished: torch.Tensor) -> Rest:
        """What rollouts know of the way behind transitions.

        Args:
            log_targets: of every step, [B, T]; finished: rewards of the transitions' pictures, [N].
        """
        behind = torch.nn.functional.pad((log_targets - paths.log_forward)[:, 1:], (0, 1))
        after = behind.flip(1).cumsum(1).flip(1)
        return Rest(finished, after[visits[:, 0], visits[:, 1]])

    def _promises(
        self,
        paths: Trajectories,
        indices: Sequence[int],
        visits: torch.Tensor,
        finished: torch.Tensor,
        finished_blocked: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of the pictures x̂0 that the states promise, and which of them are blocked; [M] each."""
        (rows, numbers), chunk = window_states(visits, paths.steps)[0].unbind(1), self.config.chunk
        device, batch = rows.device, self.practice.everyone(indices)
        rewards, blocked = finished.to(device)[rows], finished_blocked.to(device)[rows]
        inner = (numbers < paths.steps).nonzero().flatten()
        # Every process must ask as often as the others, or they would wait for each other for ever.
        calls = -self._share.lowest(-len(inner.split(chunk)) if len(inner) else 0)
        for call in range(calls):
            part = inner[call * chunk : (call + 1) * chunk]
            owners = rows[part].tolist()
            images = torch.zeros(0, 1, 1, 3, device=device)
            if owners:
                cond = [paths.cond[row] for row in owners]
                x0 = self._policy(paths.states[rows[part], numbers[part]], paths.sigmas[numbers[part]], cond)
                images = self.practice.decode(x0)
            judged = self.practice.score(images, [indices[row] for row in owners], batch)
            rewards[part], blocked[part] = judged.rewards.to(device), judged.blocked.to(device)
            self.practice.on_phase("score", call + 1, calls)
        return rewards, blocked

    @torch.no_grad()
    def _log_target(self, paths: Trajectories, visits: torch.Tensor) -> torch.Tensor:
        """log P_B of the transitions as unit-sized states have it; with `reference_prior` log P_ref. [N]"""
        config, (rows, steps), process = self.config, visits.unbind(1), self._policy.process
        if not config.reference_prior:
            return paths.log_backward[rows, steps] + density_change(
                process,
                paths.sigmas[steps],
                paths.sigmas[steps + 1],
                dimensions=paths.states[0, 0].numel(),
                convention=config.convention,
            )
        parts: list[torch.Tensor] = []
        with self._policy.role(None):
            for row, step in zip(rows.split(config.chunk), steps.split(config.chunk), strict=True):
                x, x_next = paths.states[row, step], paths.states[row, step + 1]
                sigma, sigma_next = paths.sigmas[step], paths.sigmas[step + 1]
                x0 = self._policy(x, sigma, [paths.cond[i] for i in row.tolist()], guidance=config.guidance)
                parts.append(
                    step_log_probability(process, x, x0, x_next, sigma, sigma_next, convention=config.convention)
                )
                self.practice.on_phase("compare", min(len(rows), len(parts) * config.chunk), len(rows))
        return torch.cat(parts)

    def evaluate(self) -> dict[str, float]:
        config = self.config
        return self.practice.evaluate(steps=config.steps, guidance=config.guidance, chunk=config.chunk)

    # ---- records ----

    def metrics(self) -> dict[str, float]:
        return self._figures

    def state_dict(self) -> dict[str, Any]:
        return {
            "practice": self.practice.state_dict(),
            "figures": dict(self._figures),
            "passes": self._passes,
            "played": None if self._played is None else self._played.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.practice.load_state_dict(state["practice"])
        self._figures, self._passes = dict(state["figures"]), int(state["passes"])
        saved = state["played"]
        self._played = (
            None if saved is None else Played.from_state_dict(saved, self.practice.prompts, self._policy.device)
        )

    def sample_requests(self) -> Sequence[Prompt]:
        return self.practice.prompts[:4]
