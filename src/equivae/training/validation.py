"""The objective on held-out images, every transform beside the identity."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from equivae.data.sources import collate
from equivae.training.plan import Plan, loss_of
from equivae.training.session import Session
from equivae.training.student import Student

__all__ = ["validation_loss"]


@torch.no_grad()
def validation_loss(plan: Plan, session: Session, student: Student) -> float:
    """The mean over the validation images; the draws are the same every time."""
    config, accelerator = plan.config, session.accelerator
    loss_fn = loss_of(student.transforms, config)
    loss_fn.schedule = "dual"
    module, images = student.vae.module, plan.measured
    generator = torch.Generator().manual_seed(config.seed)
    total = torch.zeros((), device=accelerator.device)
    module.eval()
    loader = DataLoader(images, config.eval_batch_size, collate_fn=collate)  # type: ignore[arg-type]
    for batch in loader:
        with accelerator.autocast():
            out = loss_fn(student.vae, batch.to(accelerator.device), generator=generator)
        total += out.loss * len(batch)
    module.train()
    return float(total) / len(images)
