"""Measures an interpolation model on triplets (PSNR, SSIM, interpolation error, LPIPS, FloLPIPS, FID), one that fills
holes on clips (PSNR, SSIM, VFID, warping error, flicker, multiply-adds), or one that makes videos against real clips
(frechet_random, which needs no weights, FVD, KVD, inception score, FID, CLIPSIM).

    python recipes/evaluate.py --baselines average
    python recipes/evaluate.py --model cdfi --preset published --checkpoint cdfi.pth --data PATH
    python recipes/evaluate.py --model e2fgvi-hq --checkpoint e2fgvi.safetensors --baselines still,flow,exact_flow
    python recipes/evaluate.py --model ldmvfi --checkpoint ldmvfi.safetensors --steps 1 2 4 8 20 50 200
    python recipes/evaluate.py --model lvdm --data UCF-101 --limit 2048 --published --i3d-weights i3d.pt

Frames are read unaugmented; docs/train-and-evaluate.md says what each metric is. Writes report.json and report.md, per
item and on average, prints the table of means and where they are.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from vfikit import checkpoints, evaluation, recipe
from vfikit.data import open_clips, open_triplets
from vfikit.files import InputError
from vfikit.tasks import (
    TASKS,
    generation,
    inpainting,
    inpainting_quality,
    interpolation,
    judges,
    latent_interpolation,
    video_judges,
)

ALL = (*interpolation.METRICS, *judges.NEEDS)
USUAL = ("psnr", "psnr_raw", "ssim", "ssim_gaussian", "ie", "nie", "lpips_unscaled", "lpips_scaled")
PACKAGES = {"lpips": "squeeze", "lpips_alex": "alex"}


@dataclass(frozen=True)
class Config:
    model: str = "adacof"
    """A name of vfikit.models.MODELS."""
    preset: str = "small"
    """Size of the model, small or published."""
    checkpoint: Path | None = None
    """Weights (.safetensors, or a published .pth); those that ship with vfikit unless given."""
    data: str = "synthetic"
    """synthetic, or PATH[@PART], several joined by commas; the test part of what has one. Parts: train, test, all, or a
    published evaluation's: davis, vfitex, bvihfr, easy, medium, hard, extreme (SNU-FILM). Of clips: synthetic, or one
    folder or .csv, of which every tenth clip is measured unless it has a test part; of made videos with @PART."""
    size: int | None = None
    """Side of synthetic frames, 256 unless given (folders are measured at their own size); of made videos and the clips
    beside them, the model's own unless given."""
    metrics: str | None = None
    """What to measure, joined by commas; by default all but psnr_capped and ssim_volume, and what its weights are
    given for of lpips_alex, flolpips and fid."""
    lpips_weights: str | None = None
    """For lpips_unscaled (CDFI's figures) and lpips_scaled: state dict of the LPIPS squeeze network (.pth), or
    "package" for the lpips package's. What lacks its weights is not computed."""
    lpips_alex_weights: str | None = None
    """For lpips_alex and flolpips: the same with AlexNet."""
    pwcnet_weights: Path | None = None
    """For flolpips, and e_warp of clips: PWC-Net's published weights (NVlabs', for non-commercial use)."""
    inception_weights: Path | None = None
    """For fid: pt_inception-2015-12-05 (.pth)."""
    i3d_weights: Path | None = None
    """For vfid, fvd and kvd: I3D's on Kinetics, RGB (.pth)."""
    c3d_weights: Path | None = None
    """For inception_score: C3D; published figures are of one tuned on UCF-101."""
    clip_weights: str | None = None
    """For clipsim: CLIP as transformers takes it, a folder or a name (openai/clip-vit-base-patch32)."""
    resize: tuple[int, int] | None = None
    """Height and width that clips are resized to; published: 240 432."""
    frames: int | None = None
    """Frames to take of each clip; all where left out. Of a made video: 16 where left out."""
    published: bool = False
    """As the published program: clips filled with all references, its padding, rounding and blending; frames padded
    (ldmvfi); FVD and KVD as LVDM measured them."""
    steps: tuple[int, ...] = ()
    """Numbers of denoising steps to measure one by one, of a model that samples (ldmvfi): a curve of quality and time,
    beside frames decoded from a latent of zeros and of noise. Of made videos: one number."""
    sampler: Literal["ddim", "ancestral", "dpm++", "unipc"] | None = None
    """How ldmvfi samples; its own way unless given."""
    baselines: str = ""
    """average, repeat or average,repeat: also measure the mean of the two frames, or the first one. Of clips: still,
    flow, exact_flow: holes filled from other frames as if nothing moved, along the model's own flows, or exact ones."""
    limit: int | None = None
    """Triplets or clips to measure; all where left out."""
    seed: int = 0
    """Of the synthetic scenes, and of what videos are made from."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to run."""
    out: Path | None = None
    """Folder for the report; runs/evaluate/<date-time> by default."""


def names(text: str, what: str, known: tuple[str, ...]) -> list[str]:
    """The parts of a comma-joined option; InputError for an unknown one."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if part not in known:
            raise InputError(f"--{what}: got {part!r}, expected some of {', '.join(known)}")
    return parts


def load_weights(config: Config, kinds: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
    """The state dicts that were given, by name of ``kinds``."""
    given = {name: getattr(config, f"{name}_weights") for name in kinds}
    return {name: load_judge(name, path) for name, path in given.items() if path is not None}


def load_judge(name: str, path: str | Path) -> dict[str, Tensor]:
    if path != "package" or name not in PACKAGES:
        return checkpoints.read_state_dict(path)
    try:
        import lpips
    except ImportError as error:
        raise ImportError(f"--{name.replace('_', '-')}-weights package needs: pip install 'vfikit[lpips]'") from error
    state: dict[str, Tensor] = lpips.LPIPS(net=PACKAGES[name], verbose=False).state_dict()
    return state


def check(config: Config, makes_videos: bool) -> None:
    """What can be seen to be wrong before anything is done."""
    recipe.at_least(config, 1, "size", "resize", "frames", "limit", "steps")
    samples = TASKS.get(config.model) is latent_interpolation
    for name, takes in (("steps", samples or makes_videos), ("sampler", samples)):
        if (value := getattr(config, name)) and not takes:
            raise InputError(f"--{name}: got {value} for {config.model}, expected a model that samples")
    if config.out is not None:
        recipe.check_out(config.out)


def main(config: Config) -> None:
    makes = generation.makes_videos(recipe.build_on_meta(config.model, config.preset))
    check(config, makes)
    of_clips = measure_videos if makes else measure_clips if TASKS.get(config.model) is inpainting else None
    measured = measure_triplets(config) if of_clips is None else of_clips(config)
    folder = recipe.out_folder("evaluate", config.out)
    evaluation.write(folder, f"{config.model} ({config.preset}) on {config.data}", asdict(config), measured)
    if config.steps and not makes:
        latent_interpolation.draw_steps(config.steps, measured.means, folder / "steps.png")
        print(f"the curve of quality and time by steps is {folder / 'steps.png'}")
    print(f"report.json and report.md are in {folder}")


def measure_triplets(config: Config) -> evaluation.Measured:
    """Of a model that makes the frame between two."""
    samples = TASKS.get(config.model) is latent_interpolation
    if (config.published and not samples) or config.frames is not None or config.resize is not None:
        raise InputError(f"--published, --frames, --resize: are of clips, {config.model} makes single frames")
    chosen = None if config.metrics is None else names(config.metrics, "metrics", ALL)
    if config.steps and "psnr" not in (chosen or ["psnr"]):
        raise InputError("--steps: got --metrics without psnr, expected it for the curve")
    baselines = names(config.baselines, "baselines", tuple(interpolation.BASELINES))
    data = open_triplets(config.data, "test", config.size or 256, config.seed)
    model = recipe.load_model(config.model, config.preset, config.checkpoint, config.device)
    judged = judges.Judges(load_weights(config, judges.WEIGHTS), config.device)
    wanted = chosen or [name for name in ALL if name in USUAL or name in judged.names]
    computed = [name for name in wanted if name in interpolation.METRICS or name in judged.names]
    methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {config.model: model}
    if samples:
        methods = latent_interpolation.methods(config.model, model, config.steps, config.sampler, config.published)
    methods |= {name: interpolation.BASELINES[name] for name in baselines}
    count = min(len(data), config.limit or len(data))
    if "fid" in computed and count < 2:
        raise InputError(f"fid: got {count} image, expected at least two")
    rows: dict[str, list[evaluation.Row]] = {}
    means: dict[str, dict[str, float]] = {}
    for name, method in methods.items():
        timed = evaluation.Timed(method)
        measured = interpolation.measure(timed, data, computed, judged, config.limit, config.device)
        times = [{**row, "seconds": timed.seconds} for row in tqdm(measured, desc=name, total=count)]
        rows[name] = times if config.steps else [{k: v for k, v in row.items() if k != "seconds"} for row in times]
        means[name] = interpolation.means(rows[name])
        if judged.fid is not None and "fid" in computed:
            means[name]["fid"] = judged.fid.compute()
    shown = ["seconds"] if config.steps else []
    return evaluation.Measured("image", wanted + shown, computed + shown, ("fid",), judges.NEEDS, rows, means, {})


def measure_clips(config: Config) -> evaluation.Measured:
    """Of a model that fills holes in clips."""
    wanted = list(inpainting_quality.METRICS)
    if config.metrics is not None:
        wanted = names(config.metrics, "metrics", inpainting_quality.METRICS)
    recipe.at_least(config, 2, "frames")
    synthetic, side = config.data == "synthetic", config.size or 256
    clips = open_clips(config.data, "test", (side, side) if synthetic else None, config.seed)
    data = inpainting_quality.HoledClips(clips, config.resize, config.frames)
    model = recipe.load_model(config.model, config.preset, config.checkpoint, config.device)
    known = inpainting_quality.baselines(model)
    baselines = names(config.baselines, "baselines", tuple(known))
    exact = synthetic and config.resize is None
    if "exact_flow" in baselines and not exact:
        raise InputError("--baselines exact_flow: flows are known of synthetic clips alone, at their own size")
    weights = load_weights(config, inpainting_quality.WEIGHTS)
    judged = inpainting_quality.Judges(weights, config.device, exact)
    computed = [name for name in wanted if name not in inpainting_quality.NEEDS or name in judged.names]
    count = min(len(data), config.limit or len(data))
    if "vfid" in computed and count < 2:
        raise InputError(f"vfid: got {count} clip, expected at least two")
    methods = {config.model: inpainting_quality.filling(model, config.published)}
    methods |= {name: known[name] for name in baselines}
    rows: dict[str, list[evaluation.Row]] = {}
    means: dict[str, dict[str, float]] = {}
    for name, method in methods.items():
        measured = inpainting_quality.measure(method, data, computed, judged, config.limit)
        rows[name] = list(tqdm(measured, desc=name, total=count))
        means[name] = inpainting_quality.means(rows[name])
        if judged.vfid is not None and "vfid" in computed:
            means[name]["vfid"] = judged.vfid.compute()
    extra = {"multiply-adds of 5 + 3 frames 432x240 (G)": inpainting_quality.multiply_adds(model)}
    return evaluation.Measured("clip", wanted, computed, ("vfid",), inpainting_quality.NEEDS, rows, means, extra)


def measure_videos(config: Config) -> evaluation.Measured:
    """Of a model that makes videos: as many as there are real clips, all of them against all of those."""
    needs = video_judges.NEEDS
    wanted = list(needs) if config.metrics is None else names(config.metrics, "metrics", tuple(needs))
    spec, at, part = config.data.partition("@")
    if len(config.steps) > 1 or config.baselines:
        raise InputError(f"--steps, --baselines: got several for {config.model}, expected one number of steps")
    model = recipe.load_model(config.model, config.preset, config.checkpoint, config.device)
    if config.clip_weights is not None and not model.config.text_encoder:
        raise InputError(f"--clip-weights: {config.model}, preset {config.preset}, makes no videos of texts")
    size = model.config.size if config.size is None else (config.size, config.size)
    data = open_clips(spec, part if at else "test", size, config.seed)
    weights = load_weights(config, video_judges.WEIGHTS)
    judged = video_judges.VideoJudges(weights, config.clip_weights, config.published, config.device)
    count = min(len(data), config.limit or len(data))
    if count < 2:
        raise InputError(f"{config.model}: got {count} clip, expected at least two")
    steps, seed = next(iter(config.steps), None), config.seed
    seen = video_judges.judged(model, data, judged, config.frames or 16, count, steps, seed)
    rows = {config.model: [{"name": name} for name in tqdm(seen, desc=config.model, total=count)]}
    means, computed = {config.model: judged.compute()}, [name for name in wanted if name in judged.names]
    extra = {} if judged.distance is None else {"made videos in fvd and kvd": float(len(judged.distance.made))}
    spread = [f"{name}_std" for name in wanted if f"{name}_std" in means[config.model]]
    shown = wanted + spread
    return evaluation.Measured("video", shown, computed + spread, tuple(shown), needs, rows, means, extra)


if __name__ == "__main__":
    recipe.run(main, Config)
