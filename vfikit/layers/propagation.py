"""Features carried through a clip along its flow, backward and then forward, with deformable alignment.

Second-order propagation as in BasicVSR++ (arXiv:2104.13371) and E2FGVI (arXiv:2204.02663): what is carried to a frame
comes from the two frames before it, aligned by one deformable convolution that flow guides. Flows are in pixels of the
feature map, channel 0 to the right, 1 downwards, forward from frame k to k + 1, backward from k + 1 to k.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..ops import Conv3x3, ModulatedDeformConv2d, warp

SLOPE = 0.1


class DeformableAlignment(ModulatedDeformConv2d):
    """Two maps of features, one and two steps old, to this step: (N, 2 C, H, W) -> (N, C, H, W).

    ``forward(x, condition, flow1, flow2)``: ``x`` is both maps as they are, ``condition`` (N, 3 C, H, W) holds the
    newer one warped by ``flow1``, the present frame, the older one warped by ``flow2``. From it and the flows come, for
    each tap, an offset of at most ``max_residue`` pixels around its flow and a mask. The first half of the
    ``deform_groups`` reads the newer map. Offsets are in float32 at least. It starts with offsets of the flows alone.
    """

    def __init__(self, channels: int, deform_groups: int = 16, max_residue: float = 10.0) -> None:
        if deform_groups % 2:
            raise ValueError(f"DeformableAlignment: deform_groups is {deform_groups}, expected an even number")
        super().__init__(2 * channels, channels, 3, padding=1, deform_groups=deform_groups)
        self.max_residue = max_residue
        layers: list[nn.Module] = []
        for inputs in (3 * channels + 4, channels, channels):
            layers += [Conv3x3(inputs, channels), nn.LeakyReLU(SLOPE, inplace=True)]
        self.conv_offset = nn.Sequential(*layers, Conv3x3(channels, 27 * deform_groups))
        self.reset_offsets()

    def reset_offsets(self) -> None:
        last = self.conv_offset[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    @torch.no_grad()
    def start_as_warp(self) -> None:
        """The newer map comes through as ``flow1`` brings it, the older one not at all."""
        channels, middle = self.weight.shape[0], self.weight.shape[2] // 2
        self.weight.zero_()
        self.weight[range(channels), range(channels), middle, middle] = 2.0  # masks start at a half

    def forward(self, x: Tensor, condition: Tensor, flow1: Tensor, flow2: Tensor) -> Tensor:  # type: ignore[override]
        flows = torch.stack([flow1, flow2], dim=1)  # (N, 2, 2, H, W)
        steering = self.conv_offset(torch.cat([condition, flows.flatten(1, 2).to(condition.dtype)], dim=1))
        taps = steering.shape[1] // 3
        residue = self.max_residue * steering[:, : 2 * taps].to(flows.dtype).tanh()
        offset = residue.unflatten(1, (2, -1, 2)) + flows.flip(2)[:, :, None]  # each tap's (down, right)
        return super().forward(x, offset.flatten(1, 3), steering[:, 2 * taps :].sigmoid())


class Branch(nn.Module):
    """One direction: ``forward(frames, flows, beside=())`` over frames in the order that they are visited.

    ``frames`` are L maps (N, C, H, W); ``flows`` L - 1, the k-th (N, 2, H, W) leading from the k-th of the order after
    the first to where features come from. ``beside`` are ``more`` lists of L maps that the residual network sees, too.
    """

    def __init__(self, channels: int, more: int, deform_groups: int, max_residue: float) -> None:
        super().__init__()
        self.align = DeformableAlignment(channels, deform_groups, max_residue)
        self.backbone = nn.Sequential(
            Conv3x3((2 + more) * channels, channels),
            nn.LeakyReLU(SLOPE, inplace=True),
            Conv3x3(channels, channels),
        )

    def forward(
        self, frames: Sequence[Tensor], flows: Sequence[Tensor], beside: Sequence[Sequence[Tensor]] = ()
    ) -> list[Tensor]:
        results: list[Tensor] = []
        carried, ways = torch.zeros_like(frames[0]), both_ways(flows)
        for step, frame in enumerate(frames):
            if step > 0:
                carried = self.carry(frame, results, ways[step - 1])
            seen = [frame, *(maps[step] for maps in beside), carried]
            results.append(carried + self.backbone(torch.cat(seen, dim=1)))
        return results

    def carry(self, frame: Tensor, results: Sequence[Tensor], ways: Tensor) -> Tensor:
        """The last two results, aligned to ``frame`` by the flows (N, 2, 2, H, W) to them."""
        older = results[-2] if len(results) > 1 else torch.zeros_like(frame)
        both = torch.stack([results[-1], older], dim=1)
        warped = warp(both.flatten(0, 1), ways.flatten(0, 1), align_corners=True).view_as(both)
        condition = torch.cat([warped[:, 0], frame, warped[:, 1]], dim=1)
        return self.align(both.flatten(1, 2), condition, *ways.unbind(1))


def both_ways(flows: Sequence[Tensor]) -> list[Tensor]:
    """Each flow (N, 2, H, W), and where it leads with the one before: (N, 2, 2, H, W); none is before the first."""
    if not flows:
        return []
    one = torch.stack(list(flows))
    before = warp(one[:-1].flatten(0, 1), one[1:].flatten(0, 1), align_corners=True).view_as(one[1:])
    two = torch.cat([torch.zeros_like(one[:1]), one[1:] + before])
    return list(torch.stack([one, two], dim=2))


class BidirectionalPropagation(nn.Module):
    """``forward(x (B, L, C, H, W), forward_flows, backward_flows (B, L - 1, 2, H, W))`` -> the shape of ``x``.

    The backward branch runs first, the forward one sees its results; both are fused and added to ``x``. Published, the
    backward branch takes the flows in the order of its steps, so that for L > 2 a step is not given the flow of its own
    frames; trained weights rely on it. With ``own_flows`` it is.
    """

    def __init__(
        self, channels: int, deform_groups: int = 16, max_residue: float = 10.0, own_flows: bool = False
    ) -> None:
        super().__init__()
        self.own_flows = own_flows
        self.backward_branch = Branch(channels, 0, deform_groups, max_residue)
        self.forward_branch = Branch(channels, 1, deform_groups, max_residue)
        self.fusion = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor, forward_flows: Tensor, backward_flows: Tensor) -> Tensor:
        frames, flows = x.unbind(1), forward_flows.unbind(1)
        back = self.backward_branch(frames[::-1], flows[::-1] if self.own_flows else flows)[::-1]
        ahead = self.forward_branch(frames, backward_flows.unbind(1), [back])
        fused = self.fusion(torch.cat([torch.stack(back, dim=1), torch.stack(ahead, dim=1)], dim=2).flatten(0, 1))
        return fused.view_as(x) + x


def published_keys() -> list[tuple[str, str]]:
    """Pairs (published name, ours)."""
    modules = [("fusion", "fusion")]
    for way in ("backward", "forward"):
        theirs = f"deform_align.{way}_"
        modules.append((theirs, f"{way}_branch.align"))
        modules += [(f"{theirs}.conv_offset.{i}", f"{way}_branch.align.conv_offset.{i}") for i in (0, 2, 4, 6)]
        modules += [(f"backbone.{way}_.{i}", f"{way}_branch.backbone.{i}") for i in (0, 2)]
    return [(f"{theirs}.{part}", f"{ours}.{part}") for theirs, ours in modules for part in ("weight", "bias")]
