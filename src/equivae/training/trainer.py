"""The training loop, the one for every stage: read it from top to bottom."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from equivae.training.state import RunState

__all__ = ["Batch", "Batches", "Engine", "Hook", "LocalEngine", "Player", "Trainer"]


@dataclass(frozen=True)
class Batch:
    """What one call of the objective gets.

    Attributes:
        content: its arguments.
        size: images in it, on this process.
        share: of this batch in the gradient of its step; 1 unless several batches make a step.
        closes: whether the optimisers step after it.
    """

    content: Sequence[Any]
    size: int
    share: float = 1.0
    closes: bool = True


class Batches(Protocol):
    """Passes over the images."""

    def epoch(self, epoch: int, samples: int) -> Iterable[Batch]:
        """The batches of a pass, from so many samples on."""


class Engine(Protocol):
    """What carries a step out; accelerate's `Accelerator` is one."""

    def backward(self, loss: Tensor) -> None: ...
    def clip_grad_norm_(self, parameters: Any, max_norm: float) -> Any: ...
    def no_sync(self, model: Any) -> AbstractContextManager[Any]: ...


class LocalEngine:
    """One process by itself, without an accelerator."""

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)

    def clip_grad_norm_(self, parameters: Any, max_norm: float) -> Any:
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def no_sync(self, model: Any) -> AbstractContextManager[Any]:
        return nullcontext()


@dataclass(frozen=True)
class Player:
    """An optimiser, its weights, and the loss that it lowers.

    A run has one, or several that take turns on every batch, such as a VAE and a discriminator; each one's
    loss sends gradients to its own weights alone.

    Attributes:
        loss: `(*content) -> (loss, terms)`; a module where processes share its gradients.
        parameters: the weights.
        optimizer: steps them.
        scheduler: of the learning rate.
        plays: whether it takes part in the step that begins; its weights rest in one that it leaves out.
    """

    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    parameters: Sequence[nn.Parameter]
    optimizer: Any
    scheduler: Any
    plays: Callable[[], bool] = lambda: True


class Hook:
    """What happens around the steps: a subclass overrides what it needs. Hooks run in their order."""

    def on_start(self, state: RunState) -> None:
        """Before the first step."""

    def on_batch(self, loss: Tensor, terms: dict[str, Tensor], state: RunState) -> None:
        """After every backward pass; tensors are detached and on the device."""

    def on_gradient(self, norm: Tensor, state: RunState) -> None:
        """Before every optimiser step, with the gradient's norm before it is clipped, on the device."""

    def refuses(self, state: RunState) -> bool:
        """Whether the step that comes next is left out, and its gradient with it."""
        return False

    def on_skip(self, state: RunState) -> None:
        """After a step that was left out, by a hook or because fp16 overflowed: it does not count."""

    def on_step(self, state: RunState) -> None:
        """After every optimiser step, which `state.step` counts already."""

    def on_epoch(self, state: RunState) -> None:
        """After every whole pass over the images."""

    def stops(self, state: RunState) -> bool:
        """Whether the run ends before its last step."""
        return False

    def on_end(self, state: RunState) -> None:
        """After the last step."""


class Trainer:
    """Steps, and hooks around them.

    Args:
        engine: carries the steps out.
        players: the optimisers, in the order of their turns.
        max_grad_norm: gradients are clipped to this norm; 0 does not clip.
    """

    def __init__(
        self, engine: Engine, players: Sequence[Player], *, max_grad_norm: float = 0.0
    ) -> None:
        self.engine, self.players, self.max_grad_norm = engine, list(players), max_grad_norm

    def fit(self, batches: Batches, state: RunState, max_steps: int, hooks: Sequence[Hook]) -> None:
        """Train from where the state stands to `max_steps`."""
        for hook in hooks:
            hook.on_start(state)
        while state.step < max_steps and not any(hook.stops(state) for hook in hooks):
            for batch in batches.epoch(state.epoch, state.samples):
                loss, terms = self._backward(batch)
                state.samples += batch.size
                for hook in hooks:
                    hook.on_batch(loss, terms, state)
                if not batch.closes:
                    continue
                if not self._steps(state, hooks):
                    continue
                state.step += 1
                for hook in hooks:
                    hook.on_step(state)
                if state.step == max_steps or any(hook.stops(state) for hook in hooks):
                    break
            else:
                state.epoch, state.samples = state.epoch + 1, 0
                for hook in hooks:
                    hook.on_epoch(state)
        if state.samples:  # the last pass, whole or not, is done
            state.epoch, state.samples = state.epoch + 1, 0
        for hook in hooks:
            hook.on_end(state)

    def _backward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Every player's turn; gives the first one's loss, and the terms of all."""
        losses: list[Tensor] = []
        named: dict[str, Tensor] = {}
        for player in self.players:
            if not player.plays():
                continue
            self._let_learn(partial(operator.is_, player))
            with nullcontext() if batch.closes else self.engine.no_sync(player.loss):
                loss, terms = player.loss(*batch.content)
                self.engine.backward(loss if batch.share == 1 else loss * batch.share)
            losses.append(loss.detach())
            named |= terms
        self._let_learn(lambda other: True)  # hooks, such as an average of weights, ask who learns
        return losses[0], named

    def _let_learn(self, learns: Callable[[Player], bool]) -> None:
        """Where several take turns, let gradients reach the weights of those alone."""
        for player in self.players if len(self.players) > 1 else []:
            for parameter in player.parameters:
                parameter.requires_grad_(learns(player))

    def _steps(self, state: RunState, hooks: Sequence[Hook]) -> bool:
        """Every player's optimiser steps; whether the first one's did."""
        first = self.players[0]
        playing = [one for one in self.players if one is first or one.plays()]
        refuses = False
        norms = []
        for player in playing:
            norms.append(self._clip(player))
            if player is first:
                for hook in hooks:
                    hook.on_gradient(norms[0], state)
                refuses = any(hook.refuses(state) for hook in hooks)
        taken = [
            not refuses and self._step(player, norm)
            for player, norm in zip(playing, norms, strict=True)
        ]
        for player in self.players:
            player.optimizer.zero_grad()
        if self._scaler is not None:
            self._scaler.update()  # once for all, since it forgets who overflowed
        if not taken[0]:
            for hook in hooks:
                hook.on_skip(state)
        return taken[0]

    @property
    def _scaler(self) -> Any:
        """Of fp16, whose scale is in every player's gradients."""
        return getattr(self.engine, "scaler", None)

    def _clip(self, player: Player) -> Tensor:
        """The norm of the gradient, before it is clipped."""
        most = self.max_grad_norm or float("inf")
        if self._scaler is None:
            norm = self.engine.clip_grad_norm_(player.parameters, most)
        else:  # accelerate's would take the scale out of all players' gradients, every time
            self._scaler.unscale_(_bare(player.optimizer))
            norm = nn.utils.clip_grad_norm_(player.parameters, most)
        return torch.as_tensor(norm).detach()

    def _step(self, player: Player, norm: Tensor) -> bool:
        """Step an optimiser, unless its gradient overflowed under fp16."""
        if self._scaler is None:
            player.optimizer.step()
        else:
            self._scaler.step(_bare(player.optimizer))
            if not norm.isfinite():
                return False
        player.scheduler.step()
        return True


def _bare(optimizer: Any) -> Any:
    """The optimiser of torch inside accelerate's, which would step the scaler too."""
    return getattr(optimizer, "optimizer", optimizer)
