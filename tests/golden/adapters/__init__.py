"""One adapter a kind of case: ``ADAPTERS[kind](case)`` runs the case and compares every array it stores."""

from collections.abc import Callable

<<<<<<< ours
from . import (
    adacof_net,
    adacof_op,
    dsepconv_op,
    frames,
    groupsparse,
    ldmvfi_diffusion,
    ldmvfi_layers,
    ldmvfi_nets,
    obproxsg,
)
=======
from . import adacof_net, adacof_op, dsepconv_op, frames, groupsparse, ldmvfi_layers, ldmvfi_nets, obproxsg, pwcnet
>>>>>>> theirs
from .case import Case

ADAPTERS: dict[str, Callable[[Case], None]] = {
    "adacof_op": adacof_op.op,
    "adacof_net.eval": adacof_net.evaluate,
    "adacof_net.get_kernel": adacof_net.get_kernel,
    "adacof_net.gridnet": adacof_net.gridnet,
    "adacof_net.train": adacof_net.train,
    "vgg_loss.case": frames.vgg_loss,
    "frame_metrics.cdfi": frames.metrics,
    "obproxsg": obproxsg.trajectory,
    "groupsparse.hspg": groupsparse.hspg,
    "groupsparse.dhspg": groupsparse.dhspg,
    "groupsparse.hesso": groupsparse.hesso,
    "groupsparse.importance": groupsparse.scores,
    "ldmvfi.dsepconv": dsepconv_op.op,
    "ldmvfi.maxvit_self": ldmvfi_layers.maxvit_self,
    "ldmvfi.maxca_cross": ldmvfi_layers.maxca,
    "ldmvfi.maxca_transformer": ldmvfi_layers.maxca,
    "ldmvfi.mbconv": ldmvfi_layers.mbconv,
    "ldmvfi.attention_variants": ldmvfi_layers.attention_variants,
    "ldmvfi.blocks": ldmvfi_layers.blocks,
    "ldmvfi.vector_quantizer": ldmvfi_layers.vector_quantizer,
    "ldmvfi.heads": ldmvfi_layers.heads,
    "ldmvfi.figan": ldmvfi_nets.figan,
    "ldmvfi.figan_f8_grads": ldmvfi_nets.figan_grads,
    "ldmvfi.unet": ldmvfi_nets.unet,
<<<<<<< ours
    "ldmvfi.schedule": ldmvfi_diffusion.schedule,
    "ldmvfi.losses_diffusion": ldmvfi_diffusion.losses,
    "ldmvfi.ddim": ldmvfi_diffusion.ddim,
    "ldmvfi.ddpm": ldmvfi_diffusion.ddpm,
    "ldmvfi.ema": ldmvfi_diffusion.ema,
    "ldmvfi.pipeline": ldmvfi_diffusion.pipeline,
=======
    "pwcnet.correlation": pwcnet.correlate,
    "pwcnet.backwarp": pwcnet.warp,
    "pwcnet.forward": pwcnet.forward,
    "pwcnet.estimate": pwcnet.estimate,
    "pwcnet.flolpips": pwcnet.flolpips,
    "ldmvfi.metrics": pwcnet.evaluation,
>>>>>>> theirs
}
