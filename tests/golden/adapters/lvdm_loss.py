"""The loss of LVDM's autoencoder, with gradients, before and after the discriminator joins."""

import torch
from einops import rearrange
from torch import Tensor

from vfikit.losses import VideoAutoencoderLoss
from vfikit.metrics import LPIPS

from .case import Case, Published
from .ldmvfi_loss import part
from .lvdm_nets import video_autoencoder
from .weights import load

NETWORK, GRADIENT = 2e-5, 2e-4  # the reference ran in float32


def autoencoder_loss(case: Case) -> None:
    published = case.published("lvdm_autoencoder_loss")
    loss = loss_with(case, published).train()
    net = video_autoencoder(case, case.published("lvdm_autoencoder_small"))
    video = case.take("input")
    posterior = net.encode(video)
    made = net.decode(posterior.sample(case.take("noise")))
    frames, target = ((rearrange(x, "n c t h w -> n t c h w") + 1) / 2 for x in (made, video))
    start = published.config["disc_start"]
    found = {"reconstruction": made, "kl_loss": posterior.kl().mean()}
    for when, step in (("before", start - 1), ("after", start)):
        sides = loss(frames, target, posterior.kl(), net.last_layer, step)
        judged = loss.discriminator_loss(frames, target, step)
        found |= {f"generator_total_{when}": sides.total, f"discriminator_loss_{when}": judged.total}
    wanted = (net.last_layer, net.quant_conv.weight)
    found["grad_last_layer"], found["grad_quant_conv"] = torch.autograd.grad(sides.total, wanted)
    found |= {
        "nll_loss": sides.reconstruction,
        "rec_loss": sides.reconstruction / video[:, :, 0].numel() * video.shape[0],
        "d_weight": sides.adversarial_weight,
        "g_loss": sides.adversarial,
        "logits_real": judged.real,
        "logits_fake": judged.made,
        "lpips": sides.perceptual,
        "per_frame_l1": 2 * (frames - target).abs().flatten(0, 1).flatten(1).mean(1),
    }
    found |= logits(case, published, target)
    for name in sorted(case.untouched):
        allowed = GRADIENT if name.startswith("grad_") else NETWORK
        if (value := found.get(name.removeprefix("const_"))) is not None:
            case.check(name, value, most=allowed, double=allowed)


def logits(case: Case, published: Published, target: Tensor) -> dict[str, Tensor]:
    """The discriminator's, by the statistics of the batch and by those that are kept, which stay as they were."""
    found = {}
    for mode in ("train", "eval"):
        judge = loss_with(case, published).discriminator
        assert judge is not None
        found[f"logits_{mode}_mode"] = judge.train(mode == "train")(2 * target.flatten(0, 1) - 1)
        found["bn_running_mean_after"] = judge.get_buffer("main.3.running_mean").clone()
    return found


def loss_with(case: Case, published: Published) -> VideoAutoencoderLoss:
    config, state = published.config, published.state_dict(published.gain)
    assert (config["disc_loss"], config["perceptual_weight"]) == ("hinge", 1.0)
    perceptual = LPIPS(part(state, "perceptual_loss."), "vgg")
    start, weight, kl_weight = config["disc_start"], config["disc_weight"], config["kl_weight"]
    loss = VideoAutoencoderLoss(perceptual, start=start, weight=weight, kl_weight=kl_weight)
    assert loss.discriminator is not None
    load(loss.discriminator, part(state, "discriminator."))
    count = sum(p.numel() for p in loss.parameters()) + 1  # a logarithm of the variance there, always 0
    assert count == published.parameters, f"{count} parameters, published {published.parameters}"
    return loss.to(case.dtype)
