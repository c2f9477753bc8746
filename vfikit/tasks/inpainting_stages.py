"""The stages in which a video inpainting model can be trained: the ends of the network first, from nothing, then all.

Published, only "clips" is trained, from a flow network that others trained. Without one, most steps of a short run go
into learning to see, to draw, and to go on with what is around a hole, which takes a tenth as long frame by frame.
"""

import torch.nn.functional as functional
from torch import Tensor, nn

from ..inference import pad_to_multiple
from ..models.e2fgvi import E2FGVINet, Inpainted

STAGES = ("frames", "holes", "flow", "clips")


class Stage(nn.Module):
    """``forward(frames, local)`` as the model's, of the parts that a stage trains; the others' weights are frozen.

    "frames" and "holes": every frame through the encoder and the decoder alone, no flows. "flow": flows, the frames as
    they came. "clips": the model.
    """

    def __init__(self, model: E2FGVINet, stage: str) -> None:
        super().__init__()
        if stage not in STAGES:
            raise ValueError(f"stage is {stage!r}, expected one of {', '.join(STAGES)}")
        self.model, self.stage = model, stage
        alone = [model.encoder, model.decoder]
        parts: dict[str, list[nn.Module]] = {"frames": alone, "holes": alone, "flow": [model.flow]}
        model.requires_grad_(stage == "clips")
        for part in parts.get(stage, []):
            part.requires_grad_(True)

    def forward(self, frames: Tensor, local: int) -> Inpainted:
        if self.stage == "clips":
            made: Inpainted = self.model(frames, local)
            return made
        padded = pad_to_multiple(frames.flatten(0, 1), 4).unflatten(0, frames.shape[:2])
        if self.stage == "flow":
            return Inpainted(frames, *self.model.flows(padded[:, :local]))
        alone = self.model.decode(self.model.encode(padded))[..., : frames.shape[3], : frames.shape[4]]
        return Inpainted(alone, *self.model.flows(padded[:, :1]))  # of one frame there are none


def exact_flow_error(made: Inpainted, flows: tuple[Tensor, Tensor]) -> Tensor:
    """How far flows are from exact ones (N, T - 1, 2, H, W) in pixels of the frames: mean absolute errors, added."""
    size = (made.forward_flows.shape[3], made.forward_flows.shape[4])
    pairs = zip((made.forward_flows, made.backward_flows), flows)
    return sum(
        ((ours.float() - as_seen(exact, size)).abs().mean() for ours, exact in pairs), start=flows[0].new_zeros(())
    )


def as_seen(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Exact flows (N, T - 1, 2, H, W) at the ``size`` of frames that the flow network sees, in pixels of that size.

    It sees corners at corners, so that its pixels stand (H - 1) / (h - 1) apart.
    """
    small = functional.interpolate(flow.flatten(0, 1), size, mode="bilinear", align_corners=True)
    scale = [(ours - 1) / max(theirs - 1, 1) for ours, theirs in zip(size[::-1], (flow.shape[4], flow.shape[3]))]
    return small.unflatten(0, flow.shape[:2]) * flow.new_tensor(scale)[:, None, None]
