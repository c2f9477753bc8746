"""What published checkpoints of latent diffusion hold beside their networks: buffers, averaged weights."""

from collections.abc import Iterable

from torch import Tensor

UNET, AUTOENCODER, AVERAGE = "model.diffusion_model.", "first_stage_model.", "model_ema."
# What the trainer stores and no network reads.
BUFFERS = {
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    *("model_ema.decay", "model_ema.num_updates"),
}


def averaged(state: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """A published state dict without the trainer's buffers, the averages of the parameters ``names`` in their place.

    The average of ``model.a.b`` is kept under ``model_ema.ab``.
    """
    kept = {name: tensor for name, tensor in state.items() if name not in BUFFERS}
    for name in names:
        average = AVERAGE + name.removeprefix("model.").replace(".", "")
        if average in kept:
            kept[name] = kept.pop(average)
    return kept


def without_average(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict whose U-Net will load as last trained, not averaged."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(AVERAGE)}
