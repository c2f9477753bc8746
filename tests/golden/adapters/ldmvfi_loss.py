"""The loss of LDMVFI's autoencoder, with the gradient of its last layer, before and after the discriminator joins."""

import re

import torch
import torch.nn.functional as functional
from torch import Tensor

from vfikit.losses import VQGANLoss
from vfikit.losses.vqgan import hinge, vanilla
from vfikit.metrics import LPIPS

from .case import Case, Published
from .weights import load

DOUBLE, GRADIENT = 2e-5, 2e-4  # the reference ran in float32


def vq_loss(case: Case) -> None:
    meta = case.meta
    spec = {"config": {}, "keys": meta["keys"], "left": meta["left"]}
    state = Published({**spec, "absolute": ""}).state_dict(1.0)
    state = {key: value.abs() if key in meta["absolute"] else value for key, value in state.items()}
    loss = loss_with(state).to(case.dtype).train()
    feature, target = case.take("input_feature"), (case.take("input_target") + 1) / 2
    codebook = case.take("input_codebook_loss")
    last_layer = case.take("input_last_layer").requires_grad_()
    made = (functional.conv2d(feature, last_layer, padding=1).tanh() + 1) / 2
    found: dict[str, Tensor] = {"reconstruction": 2 * made - 1, "codebook_loss": codebook}
    steps = sorted({int(match[1]) for name in case.arrays if (match := re.match(r"expect_step(\d+)_", name))})
    for step in steps:
        sides = loss(made, target, codebook, last_layer, step)
        judged = loss.discriminator_loss(made, target, step)
        values = {
            "total_loss": sides.total,
            "quant_loss": sides.codebook,
            "nll_loss": sides.reconstruction,
            "rec_loss": sides.reconstruction,
            "p_loss": sides.perceptual.mean(),
            "d_weight": sides.adversarial_weight,
            "disc_factor": torch.tensor(float(step >= loss.start)),
            "g_loss": sides.adversarial,
            "grad_last_layer": torch.autograd.grad(sides.total, last_layer, retain_graph=True)[0],
            "disc_loss": judged.total,
            "logits_real": judged.real,
            "logits_fake": judged.made,
        }
        found |= {f"step{step}_{name}": value for name, value in values.items()}
        found["lpips_vgg"] = sides.perceptual
    judge = loss_with(state).discriminator.to(case.dtype)
    found["disc_logits_fake_eval"] = judge.eval()(2 * made - 1)
    found["disc_logits_fake_train"] = judge.train()(2 * made - 1)
    logits = found["disc_logits_fake_eval"], found["disc_logits_fake_train"]
    found |= {"hinge_example": hinge(*logits), "vanilla_example": vanilla(*logits)}
    for name, value in found.items():
        allowed = GRADIENT if "_grad_" in name else DOUBLE
        case.check(f"expect_{name}", value, most=allowed, double=allowed)


def loss_with(state: dict[str, Tensor]) -> VQGANLoss:
    perceptual = LPIPS(part(state, "perceptual_loss."), "vgg")
    loss = VQGANLoss(perceptual)
    load(loss.discriminator, part(state, "discriminator."))
    return loss


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
