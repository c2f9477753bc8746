"""E2FGVI as a whole: encoder, decoder, the generator, its windows, masks and sliding inference."""

import json

import numpy as np
import torch
from torch import Tensor

from vfikit.checkpoints import load_published
from vfikit.inference import dilate
from vfikit.models import build
from vfikit.models.e2fgvi import E2FGVINet, windows
from vfikit.models.e2fgvi.published import published_padding

from ..fill import image
from .case import Case
from .sampled import check
from .weights import keep_output


def network(case: Case) -> E2FGVINet:
    """The whole generator, of the family that the case is of."""
    hq = case.meta["config"].get("hq", case.name.startswith("e2fgvi_hq"))
    published = case.published("e2fgvi_hq" if hq else "e2fgvi")
    with torch.device("meta"):  # 41 million numbers need not be drawn to be replaced
        net = build("e2fgvi-hq" if hq else "e2fgvi")
    net.to_empty(device="cpu")
    assert sum(p.numel() for p in net.parameters()) == published.parameters
    assert set(dict(net.published_keys())) == published.shapes.keys() - set(published.left)
    load_published(net, published.state_dict(published.gain))
    return net.to(case.dtype).eval().requires_grad_(False)


def encoder(case: Case) -> None:
    check(case, "output", network(case).encoder(case.take("x")))


def decoder(case: Case) -> None:
    x = case.take("x").requires_grad_()
    output = network(case).decoder(x)
    check(case, "output", output)
    check(case, "grad_x_of_sum", torch.autograd.grad(output.sum(), x)[0])


def full(case: Case) -> None:
    config = case.meta["config"]
    count, local = config["batch"], config["local_frames"]
    length = local + config["reference_frames"]
    frames = clip(case, (count, length, 3, config["height"], config["width"]))
    holes = unpacked(case.take("masks"), (count, length, 1, config["height"], config["width"]))
    net, taps = network(case), dict[str, Tensor]()
    parts = {"encoder_features": net.encoder, "propagated_features": net.propagation, "tokens": net.split}
    parts |= {"tokens_after_block0": net.blocks[0], "tokens_after_blocks": net.blocks[-1]}
    for name, part in (parts | {"composed_features": net.refine}).items():
        keep_output(part, taps, name)
    found = net((frames / 255 * 2 - 1) * ~holes, local)
    check(case, "output", found.frames.flatten(0, 1))
    check(case, "flow_forward", found.forward_flows)
    check(case, "flow_backward", found.backward_flows)
    taps["tokens"] = taps["tokens"].unflatten(0, (count, length))
    for name, value in taps.items():
        check(case, name, value)


def clip(case: Case, shape: tuple[int, ...]) -> Tensor:
    """The stored frames, or those that ``image`` draws, of which some are stored."""
    if not case.meta["config"].get("recipe"):
        return case.take("frames").to(case.dtype)
    frames = np.round(255 * image(case.meta["name"], shape, case.meta["seed"])).astype(np.uint8)
    case.check("frames_check", torch.from_numpy(frames.reshape(-1)[::9973].copy()))
    return torch.from_numpy(frames).to(case.dtype)


def unpacked(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    count = int(np.prod(shape))
    return torch.from_numpy(np.unpackbits(bits.numpy())[:count].reshape(shape)).bool()


def window_lists(case: Case) -> None:
    """References at or beyond the clip's end are the published program's mistake, and left out."""
    stored = json.loads(str(case.arrays["windows_json"]))
    case.skip("windows_json", "compared as text below")
    ours = []
    for setting in case.meta["config"]["settings"]:
        length, stride, step, num_ref = setting
        for window in windows(length, stride, step, num_ref):
            ours.append((*setting, window.centre, list(window.local), window.references))
    names = ("length", "neighbor_stride", "step", "num_ref", "f", "neighbors")
    wanted = [(*(row[name] for name in names), [k for k in row["references"] if k < row["length"]]) for row in stored]
    if ours != wanted:
        case.failures.append(f"windows_json: {[pair for pair in zip(ours, wanted) if pair[0] != pair[1]][:2]}")


def mask_dilation(case: Case) -> None:
    grown = dilate(case.take("mask")[:, None] > 0, 4)[:, 0]
    case.check("dilated", grown.to(torch.uint8))


def inference(case: Case) -> None:
    config, net = case.meta["config"], network(case)
    originals, masks = case.take("frames"), case.take("masks_raw")
    frames = (originals.to(case.dtype) / 255).permute(0, 3, 1, 2)[None]
    holes = dilate(masks[:, None] > 0, 4)
    rule = {"stride": config["neighbor_stride"], "step": config["step"], "num_ref": config["num_ref"]}

    first = windows(config["length"], **rule)[0]
    seen = ((2 * frames[0] - 1) * ~holes)[[*first.local, *first.references]]
    seen = published_padding(seen) if config["pad"] else seen
    case.check("padded_last_row_first_window", seen[0, :, -1])
    made = net(seen[None], len(first.local)).frames[0, :, :, : config["height"], : config["width"]]
    check(case, "prediction_first_window", made)

    filled = net.inpaint(frames, masks[None, :, None].to(case.dtype), nearest=None, padding="published", **rule)
    ours, theirs = (255 * filled[0]).permute(0, 2, 3, 1).double(), case.take("composite_times_4").double() / 4
    known = ~holes.permute(0, 2, 3, 1).expand_as(ours)
    assert torch.equal(filled[0].permute(0, 2, 3, 1)[known], frames[0].permute(0, 2, 3, 1)[known])
    off = (ours - theirs).abs()
    if off.max() > 1.001 or (off > 0.01).double().mean() > 0.01:
        case.failures.append(
            f"composite_times_4: up to {off.max():.2f} grey levels off, in {(off > 0.01).sum()} values"
        )
    whole = holes.permute(0, 2, 3, 1).expand_as(ours)
    case.check("hole_mean", ours[whole].mean(), most=1e-4, double=1e-4)
