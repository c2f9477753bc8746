"""What the kernels are measured against is right: it passes the golden cases, and is no straw man."""

import pytest
import torch

from benchmarks.plain import adacof as plain
from benchmarks.plain import deform_conv2d as plain_deform
from benchmarks.plain import dsepconv as plain_dsepconv
from benchmarks.plain import e2fgvi as plain_e2fgvi
from benchmarks.plain import ldmvfi as plain_ldmvfi
from benchmarks.plain import lvdm as plain_lvdm
from tests.golden.adapters import e2fgvi_nets, ldmvfi_diffusion, ldmvfi_nets, lvdm_nets
from tests.golden.adapters.case import DATA, Case
from tests.golden.adapters.sampled import check
from tests.ops.cuda_on_host import Host
from vfikit.models.ldmvfi import VQFIGAN, DenoisingUNet

NAMES = ("input", "weight", "offset_i", "offset_j")
CASES = sorted(DATA.glob("adacof_op.*.npz"))
DIFFERENTIABLE = (plain.grid_sampled_at_once, plain.indexed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sample", [plain.grid_sampled, plain.embedded, *DIFFERENTIABLE])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path, sample, dtype):
    case = Case(path, dtype)
    case.skip("*", "only what is compared below")
    inputs = [case.take(f"in.{name}") for name in NAMES]
    case.check("out.output", sample(*inputs, case.meta["dilation"]), most=1e-4)
    case.finish()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return Host(plain.CUDA_TEXT, tmp_path_factory.mktemp("cuda_on_host"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_cuda_text(path, host, dtype):
    with host.standing_in():
        test_golden(path, plain.a_thread_a_number, dtype)
    assert len(host.ran) == 1


@pytest.mark.parametrize("sample", DIFFERENTIABLE)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_gradients(path, sample):
    case = Case(path, torch.float64)
    case.skip("*", "only what is compared below")
    leaves = [case.take(f"in.{name}").requires_grad_() for name in NAMES]
    output = sample(*leaves, case.meta["dilation"])
    for name, grad in zip(NAMES, torch.autograd.grad(output, leaves, case.take("in.grad_output"))):
        case.check(f"out.grad_{name}", grad)
    case.finish()


SEPARABLE = ("input", "vertical", "horizontal", "offset_x", "offset_y", "mask")
SEPARABLE_DIFFERENTIABLE = (plain_dsepconv.grid_sampled_at_once, plain_dsepconv.indexed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sample", [plain_dsepconv.grid_sampled, *SEPARABLE_DIFFERENTIABLE])
@pytest.mark.parametrize("path", sorted(DATA.glob("ldmvfi.dsepconv*.npz")), ids=lambda path: path.stem)
def test_golden_dsepconv(path, sample, dtype):
    case = Case(path, dtype)
    case.skip("*", "only what is compared below")
    case.check("expect_output", sample(*(case.take(f"input_{name}") for name in SEPARABLE)), most=1e-4)
    case.finish()


@pytest.mark.parametrize("sample", SEPARABLE_DIFFERENTIABLE)
def test_golden_dsepconv_gradients(sample):
    """Not on whole offsets: the coordinates of ``grid_sample`` fall on either side of them."""
    case = Case(DATA / "ldmvfi.dsepconv.npz", torch.float64)
    case.skip("*", "only what is compared below")
    leaves = [case.take(f"input_{name}").requires_grad_() for name in SEPARABLE]
    gradients = torch.autograd.grad(sample(*leaves), leaves, case.take("input_grad_output"))
    for name, grad in zip(SEPARABLE, gradients):
        case.check("expect_grad_input_true" if name == "input" else f"expect_grad_{name}", grad)
    case.finish()


DEFORMABLE = ("input", "offset", "weight", "bias", "mask")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sample", [plain_deform.grid_sampled, plain_deform.multiplied])
@pytest.mark.parametrize("path", sorted(DATA.glob("e2fgvi.dcn_*.npz")), ids=lambda path: path.stem)
def test_golden_deform_conv2d(path, sample, dtype):
    """Gradients not on whole offsets, nor of what float32 positions move into another cell."""
    case = Case(path, dtype)
    case.skip("*", "only what is compared below")
    leaves = [case.take(name).requires_grad_() for name in DEFORMABLE]
    output = sample(*leaves, **{name: case.meta["config"][name] for name in ("stride", "padding", "dilation")})
    case.check("output", output, most=1e-4)
    if dtype == torch.float64 and not case.meta["config"].get("integer"):
        for name, grad in zip(DEFORMABLE, torch.autograd.grad(output, leaves, case.take("grad_output"))):
            case.check(f"grad_{name}", grad)
    case.finish()


@pytest.mark.parametrize("name", ["unet_small", "unet_small_maxca", "figan_f8", "figan_f8_pad"])
def test_golden_ldmvfi(name, monkeypatch):
    monkeypatch.setattr(ldmvfi_nets, "VQFIGAN", lambda config: plain_ldmvfi.plain(VQFIGAN(config)))
    monkeypatch.setattr(ldmvfi_nets, "DenoisingUNet", lambda config: plain_ldmvfi.plain(DenoisingUNet(config)))
    case = Case(DATA / f"ldmvfi.{name}.npz", torch.float32)
    (ldmvfi_nets.unet if name.startswith("unet") else ldmvfi_nets.figan)(case)
    case.finish()


def test_golden_ldmvfi_pipeline():
    """One whole interpolation, from frames to frame."""
    case = Case(DATA / "ldmvfi.pipeline.npz", torch.float32)
    case.skip("*", "only what is compared below")
    net = plain_ldmvfi.plain(ldmvfi_diffusion.network(case))
    frames = [(ldmvfi_nets.picture(case, name) + 1) / 2 for name in ("prev", "next")]
    with torch.no_grad():
        start, noises = case.take("input_x_T"), case.take("input_step_noise")
        made = plain_ldmvfi.middle(net, *frames, case.meta["S"], start, noises)
    (name,) = (name for name in case.outputs("expect_decoded_s"))
    stride = int(name.removeprefix("expect_decoded_s"))
    case.check(name, made[..., ::stride, ::stride], most=1e-4, all=1e-4)
    case.finish()


@pytest.mark.parametrize(
    "name", ["e2fgvi_hq.full_batch2", pytest.param("e2fgvi_hq.inference_evaluate", marks=pytest.mark.slow)]
)
def test_golden_e2fgvi(name):
    """The network, and the loop over windows but for its cutting to grey levels."""
    case = Case(DATA / f"{name}.npz", torch.float32)
    case.skip("*", "only what is compared below")
    net = plain_e2fgvi.plain(e2fgvi_nets.network(case))
    config = case.meta["config"]
    if "local_frames" in config:
        shape = (
            config["batch"],
            config["local_frames"] + config["reference_frames"],
            1,
            *case.arrays["frames"].shape[3:],
        )
        holes = e2fgvi_nets.unpacked(case.take("masks"), shape)
        frames = (case.take("frames").float() / 255 * 2 - 1) * ~holes
        check(case, "output", net(frames, config["local_frames"]).frames.flatten(0, 1))
    else:
        frames = (case.take("frames").float() / 255).permute(0, 3, 1, 2)[None]
        masks = case.take("masks_raw")[None, :, None]
        filled = plain_e2fgvi.inpaint(net, frames, masks, config["neighbor_stride"], config["step"])
        off = 255 * filled[0].permute(0, 2, 3, 1) - case.take("composite_times_4") / 4
        assert off.min() > -0.1
        assert off.max() < 1.1
    case.finish()


@pytest.mark.parametrize("name", ["lvdm_unet_small", "lvdm_unet_text2video_small"])
def test_golden_lvdm(name):
    case = Case(DATA / f"{name}.forward.npz", torch.float32)
    case.skip("*", "only what is compared below")
    net = plain_lvdm.plain(lvdm_nets.video_unet(case, case.published()))
    context = case.take("in_context") if "in_context" in case else None
    with torch.no_grad():
        lvdm_nets.close(case, "output", net(case.take("input"), case.take("timesteps"), context))
    case.finish()
