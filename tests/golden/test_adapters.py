"""The adapters themselves: none lets a wrong, an extra or an unknown array pass, and all serve files they never saw."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vfikit.checkpoints import load_published
from vfikit.models import build

from . import test_golden
from .adapters import ADAPTERS
from .adapters.case import DATA, Case, Published, slices
from .fill import image
from .kinds import kind

# The quickest case of each kind, and CDFI's own intermediates.
NAMES = [
    "adacof_op.f3d1_c4",
    "compressed_adacof_f5d1.eval",
    "cdfi_adacof.large_offsets",
    "compressed_adacof_f11d2.get_kernel",
    "cdfi_adacof.gridnet",
    "compressed_adacof_f5d1.train",
    "obproxsg.trimmed",
    "vgg_loss.case",
    "frame_metrics.cdfi",
    "ldmvfi.dsepconv_f3",
    "ldmvfi.maxvit_self_w2",
    "ldmvfi.maxca_cross",
    "ldmvfi.maxca_transformer",
    "ldmvfi.mbconv",
    "ldmvfi.attention_variants",
    "ldmvfi.blocks",
    "ldmvfi.vector_quantizer",
    "ldmvfi.heads",
    "ldmvfi.figan_f8_vanilla",
    "ldmvfi.figan_f8_grads",
    "ldmvfi.unet_small_fullattn",
    "ldmvfi.schedule",
    "ldmvfi.losses_diffusion",
    "ldmvfi.ddim_uneven",
    "ldmvfi.ddpm",
    "ldmvfi.ema",
    "ldmvfi.pipeline",
    "ldmvfi.vq_loss",
    "ldmvfi.metrics",
    "pwcnet.correlation",
    "pwcnet.backwarp",
    "pwcnet.forward",
    "pwcnet.estimate",
    "pwcnet.flolpips",
    "groupsparse.hspg",
    "groupsparse.dhspg",
    "groupsparse.hesso",
    "groupsparse.importance",
    "video_ldm.positional_encoding",
    "video_ldm.conv3d_layer",
    "video_ldm.temporal_attention",
    "video_ldm.attention_masks",
    "video_ldm.down_block",
    "video_ldm.up_block",
    "video_ldm.spatial_blocks",
    "video_ldm_small.odd_size",
    "video_ldm_small.gradient",
    "video_ldm.conditioning",
    "video_ldm.upsampler_input",
    "video_ldm.long_schedule",
    "e2fgvi.flow_warp_1x1",
    "e2fgvi.spynet_64x32",
    "e2fgvi.deform_align_small",
    "e2fgvi.propagation_2frames",
    "e2fgvi.soft_split_comp",
    "e2fgvi.fusion_feed_forward",
    "e2fgvi.window_attention_level1",
    "e2fgvi.block",
    "e2fgvi.encoder",
    "e2fgvi.decoder",
    "e2fgvi_hq.full_batch2",
    "e2fgvi.windows",
    "e2fgvi.mask_dilation",
    "e2fgvi_hq.inference_evaluate",
    "e2fgvi_hq.inference_padded",
    "e2fgvi.dcn_kernel1x3_veryfar",
    "e2fgvi_discriminator.forward_batch2_sigmoid",
    "e2fgvi_i3d.features",
    "e2fgvi.frechet_rank_deficient",
    "e2fgvi.losses",
    "e2fgvi.lr_schedule",
    "e2fgvi.mask_motion",
    "e2fgvi.mask_samples",
    "e2fgvi.psnr_ssim",
    "e2fgvi_hq.train_step",
    "e2fgvi.warp_error",
    "lvdm.autoencoder_loss",
    "lvdm.autoencoder_resblock",
    "lvdm.conditional_sampling",
    "lvdm.diffusion_loss",
    "lvdm.ema",
    "lvdm.gaussian_posterior",
    "lvdm.lengths",
    "lvdm.long_video",
    "lvdm.metrics",
    "lvdm.overlapped_decode",
    "lvdm.padded_conv3d",
    "lvdm.sampling",
    "lvdm.schedule",
    "lvdm.st_attention",
    "lvdm.st_transformer",
    "lvdm.temporal_masks",
    "lvdm.timestep_embedding",
    "lvdm.unet_resblock",
    "lvdm_autoencoder_small.forward",
    "lvdm_i3d.forward",
    "lvdm_image_autoencoder_small.forward",
    "lvdm_unet_text2video_small.forward",
    "lvdm_unet_small.gradient",
]
NOT_OUTPUTS = ("in.", "input_", "gain", "meta", "float32.", "float64.grad", "out.published_grad", "grad.")
BLOCK_INPUTS = ("input", "temb", "context", "frames", "skips")
VARIANTS = ("self", "self_causal", "self_window3", "cross", "cross_batch2", "cross_padded", "uneven_heads")
HOW_STORED = (".step", ".shape", "grad_output_seed")
SLOW = (
    *("e2fgvi_hq.inference_padded", "e2fgvi_hq.inference_evaluate", "e2fgvi_hq.train_step"),
    *("lvdm.autoencoder_loss", "lvdm.long_video", "lvdm_i3d.forward"),
)
IN_DOUBLE = ("obproxsg.trimmed", "video_ldm_small.gradient")  # float32 does not see all that is wrong there
CELLS = ("rel_", "norel_", "rel_long_", "causal_", "same_", "widen_", "per_frame_", "up_", "down_")
VIDEO_INPUTS = tuple(f"{cell}{what}" for cell in CELLS for what in ("input", "emb", "grad_output", "mask"))
ALSO_INPUTS = {
    "groupsparse.importance": ("param.",),
    "e2fgvi.spynet_64x32": ("grad_output",),
    "video_ldm.conv3d_layer": (
        *("input", "grad_output", "frames"),
        *(f"const_alpha_{variant}" for variant in ("mixed", "above", "below")),
    ),
    "video_ldm.temporal_attention": (
        "mask_",
        *(f"{name}_{what}" for name in VARIANTS for what in ("input", "grad_output", "frames", "heads", "context")),
    ),
    "video_ldm.down_block": BLOCK_INPUTS,
    "video_ldm.up_block": BLOCK_INPUTS,
    "video_ldm.spatial_blocks": (*BLOCK_INPUTS, "mid_input", "down_input", "up_input", "up_skip"),
    "video_ldm_small.odd_size": (*BLOCK_INPUTS, "timesteps"),
    "video_ldm_small.gradient": (*BLOCK_INPUTS, "timesteps", "target"),
    "video_ldm.conditioning": ("latent", "prediction_", "const_scale", "timestep", "noise"),
    "video_ldm.upsampler_input": ("low_", "noise_level", "noise", "noisy_"),
    "video_ldm.long_schedule": ("keys",),
    "e2fgvi.mask_samples": ("first_and_last_shape", "still"),  # the latter by its share of the draws
    "lvdm.autoencoder_loss": ("input", "noise"),
    "lvdm.autoencoder_resblock": ("input", "grad_output"),
    "lvdm.conditional_sampling": ("cond_latent", "pred_noise", "interp_cond_latent", "interp_noise", "step_"),
    "lvdm.diffusion_loss": ("latent", "noise", "timesteps", "mask"),
    "lvdm.ema": ("initial", "updates"),
    "lvdm.gaussian_posterior": ("moments", "noise"),
    "lvdm.long_video": ("keys_noise", "interpolated_noise", "interpolated_all_pairs_noise"),
    "lvdm.metrics": ("features_", "video_uint8"),
    "lvdm.overlapped_decode": ("latent", "max_latent_frames", "overlap"),
    "lvdm.padded_conv3d": tuple(
        f"{t}k{k}_{odd}{what}"
        for t in ("", "t_")
        for k in ("3s1", "4s222", "4s122")
        for odd in ("", "odd_")
        for what in ("input", "grad_output")
    ),
    "lvdm.sampling": ("ddim_eta0_noise", "ddim_eta1_noise", "ddpm5_noise"),
    "lvdm.st_attention": VIDEO_INPUTS,
    "lvdm.st_transformer": ("input", "context", "grad_output", "temporal_input", "temporal_mask"),
    "lvdm.timestep_embedding": ("timesteps",),
    "lvdm.unet_resblock": VIDEO_INPUTS,
    "lvdm_autoencoder_small.forward": ("input", "noise"),
    "lvdm_i3d.forward": ("video_uint8",),
    "lvdm_image_autoencoder_small.forward": ("input", "noise"),
    "lvdm_unet_text2video_small.forward": ("input", "timesteps", "in_context"),
    "lvdm_unet_small.gradient": ("input", "timesteps", "target"),
}


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def failures(path: Path, dtype: torch.dtype = torch.float64) -> str:
    """What the adapter complains about, "" if nothing."""
    case = Case(path, dtype)
    ADAPTERS[kind(path.stem)](case)
    try:
        case.finish()
    except AssertionError as error:
        return str(error)
    return ""


def test_every_adapter_is_tried() -> None:
    assert {kind(name) for name in NAMES} == ADAPTERS.keys()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NAMES])
def test_wrong_and_extra_arrays_fail(name: str, tmp_path: Path) -> None:
    stored = arrays(name)
    inputs = json.loads(str(stored["meta"])).get("inputs", []) if "meta" in stored else []
    outputs = [key for key in stored if not key.startswith(NOT_OUTPUTS + ALSO_INPUTS.get(name, ()))]
    outputs = [key for key in outputs if key not in inputs and not key.endswith(HOW_STORED)]
    for key in outputs:
        if stored[key].dtype.kind == "U":
            stored[key] = np.asarray(str(stored[key]).replace("5", "6"))
            continue
        change = 1 if stored[key].dtype.kind in "iu" else 1e-3 + 0.02 * stored[key] + 0.01 * np.abs(stored[key]).max()
        stored[key] = stored[key] + np.asarray(change, stored[key].dtype)
    np.savez(tmp_path / f"{name}.npz", **stored, **{"out.extra": np.zeros(3, np.float32)})
    said = failures(tmp_path / f"{name}.npz", torch.float64 if name in IN_DOUBLE else torch.float32)
    assert outputs
    for key in outputs:
        assert f"\n{key}: " in said, f"{name}: a wrong {key} passes"
    assert "\nout.extra: never compared" in said


def test_a_transposed_or_missing_value_fails() -> None:
    case = Case(DATA / "obproxsg.trimmed.npz", torch.float64)
    case.check("float64.param.a", torch.zeros(31, 3, 4))
    case.check("float64.param.b", torch.full((31, 5), float("nan")))
    assert [failure.split(":")[1][:6] for failure in case.failures] == [" shape", " 155 n"]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("adacof_op.f5d1_c1", "adacof_op.mine_hidden"),
        ("obproxsg.trimmed", "obproxsg.mine"),
        ("vgg_loss.case", "vgg_loss.case_hidden"),
        ("frame_metrics.cdfi", "frame_metrics.cdfi_hidden"),
        ("compressed_adacof_f5d1.eval", "compressed_adacof_f5d1_hidden.eval_hidden"),
    ],
)
def test_renamed_files_pass(name: str, other: str, tmp_path: Path) -> None:
    shutil.copy(DATA / f"{name}.npz", tmp_path / f"{other}.npz")
    assert not failures(tmp_path / f"{other}.npz")


def test_slices() -> None:
    text = "[:, ::6, 1::7] of multi-channel maps, [:, 2:9] of a, b and c; *_mean is whole"
    assert slices(text) == {
        "multi-channel maps": (slice(None), slice(None, None, 6), slice(1, None, 7)),
        "a, b and c": (slice(None), slice(2, 9)),
    }


def test_another_size_kernel_and_sampling(tmp_path: Path) -> None:
    """A file made here: F = 7, batch 3, other strides; its numbers come from the net without the adapter's hooks."""
    net = build("adacof-compressed", kernel_size=7)
    ours = net.state_dict()
    spec = {
        "config": {"model": "compressed_adacof", "kernel_size": 7, "dilation": 1},
        "keys": {theirs: list(ours[key].shape) for theirs, key in net.published_keys()},
        "gain": 1.2,
    }
    (tmp_path / "compressed_adacof_f7d1.keys.json").write_text(json.dumps(spec))
    load_published(net, Published(spec).state_dict(1.4))
    frames = [torch.from_numpy(image(name, (3, 3, 21, 45), 5)) for name in ("a", "b")]
    with torch.no_grad():
        terms = net.double().terms(*(frame.double() for frame in frames))
    meta = {"samples": "[:, 1::5, ::4, 3::9] of multi-channel maps, [:, :, ::2, ::3] of one-channel maps"}
    stored = {"in.frame0": frames[0], "in.frame2": frames[1], "out.frame1": terms.frame}
    stored["out.alpha2"] = terms.maps["alpha2"]
    stored["out.beta1_sample"] = terms.maps["beta1"][:, 1::5, ::4, 3::9]
    stored["out.occlusion_sample"] = terms.maps["occlusion"][:, :, ::2, ::3]
    stored["out.weight1_mean"], stored["out.weight1_std"] = terms.maps["weight1"].mean(), terms.maps["weight1"].std()
    path = tmp_path / "compressed_adacof_f7d1.eval_hidden.npz"
    whole = {key: np.asarray(value, np.float32) for key, value in stored.items()}
    np.savez(path, meta=json.dumps(meta), gain=np.float32(1.4), **whole)
    assert not failures(path)
    assert not failures(path, torch.float32)


def test_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test a file; a file of no known kind fails."""
    shutil.copy(DATA / "adacof_op.f5d1_c1.npz", tmp_path)
    np.savez(tmp_path / "nobody.knows.npz", meta="{}")
    monkeypatch.setenv("VFIKIT_GOLDEN", str(tmp_path))
    spec = importlib.util.spec_from_file_location(f"{__package__}.elsewhere", test_golden.__file__)
    assert spec
    assert spec.loader
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    known, unknown = elsewhere.FILES
    assert (known.name, unknown.name) == ("adacof_op.f5d1_c1.npz", "nobody.knows.npz")
    elsewhere.test_golden(known)
    with pytest.raises(AssertionError, match=r"nobody\.knows, which has no adapter"):
        elsewhere.test_golden(unknown)
