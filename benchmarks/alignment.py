"""Does aligning an image model in time steady its videos? Warping errors by exact flow, before and after.

    python -m benchmarks.alignment image.safetensors temporal.safetensors --out runs/alignment

Held-out synthetic clips are noised, each frame with noise of its own, and denoised: frame by frame by the image model,
and by the same model with its temporal layers. Both follow the clip, whose motion is known, so that what changes along
it is flicker. Prints a table; writes alignment.json and a picture of one clip.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from vfikit import checkpoints, recipe
from vfikit.data.clips import open_clips
from vfikit.data.images import write_image
from vfikit.diffusion import Sampling, trajectory
from vfikit.files import write_json
from vfikit.metrics import psnr, warping_error
from vfikit.models.video_ldm import Given, VideoLDMNet


@dataclass(frozen=True)
class Config:
    before: Annotated[Path, tyro.conf.Positional]
    """Checkpoint of the image model (train_video_ldm.py --stage image)."""
    after: Annotated[Path, tyro.conf.Positional]
    """Checkpoint of the same model, aligned (--stage temporal)."""
    out: Path | None = None
    """Folder for results; runs/alignment/<date-time> by default."""
    clips: int = 24
    """Held-out clips, at most 64."""
    frames: int = 6
    """Frames of a clip."""
    size: tuple[int, int] = (32, 32)
    """Height and width of a clip."""
    steps: int = 20
    """DDIM steps from pure noise; --strength says how many of them are made."""
    strength: float = 0.5
    """Share of the steps that are made: 1 keeps nothing of the clip."""
    shown: int = 0
    """The clip in the picture."""
    seed: int = 0
    """Of the noise."""


@torch.no_grad()
def denoised(net: VideoLDMNet, clip: Tensor, noise: Tensor, config: Config, as_images: bool) -> Tensor:
    """The clip (T, 3, H, W), noised and denoised, decoded frame by frame."""
    latents = net.encode(clip[None])
    sampling = Sampling(steps=config.steps, spacing="trailing")
    last = max(1, round(config.strength * config.steps))
    first = int(sampling.scheduler(net.schedule).timesteps[-last])
    given = Given(net.no_text(1), planes=net.nothing_known(latents), as_images=as_images)
    x = net.schedule.add_noise(latents, noise, torch.tensor([first]))
    for step in trajectory(lambda x, t: net.generator(x, t, given), x, net.schedule, sampling, last=last):
        x = step.sample
    return net.decode_images(x)[0].clamp(0, 1)


def main(config: Config) -> None:
    before, after = (checkpoints.load(path) for path in (config.before, config.after))
    data: Any = open_clips("synthetic", "test", config.size, config.seed)
    folder = recipe.out_folder("alignment", config.out)
    rows, made = [], {}
    for index in tqdm(range(config.clips)):
        scene = data.scenes.clip(index, config.frames)
        generator = torch.Generator().manual_seed(config.seed + index)
        noise = torch.randn(before.encode(scene.frames[None]).shape, generator=generator)
        videos = {
            "clip": scene.frames,
            "autoencoder alone": before.decode_images(before.encode(scene.frames[None]))[0].detach().clamp(0, 1),
            "before": denoised(before, scene.frames, noise, config, as_images=True),
            "after": denoised(after, scene.frames, noise, config, as_images=False),
        }
        for name, video in videos.items():
            error = float(warping_error(video, scene.forward, scene.backward))
            rows.append({"clip": index, "video": name, "warping_error": error, "psnr": _psnr(video, scene.frames)})
        made = videos if index == config.shown else made
    print("| video | warping error x 100 | PSNR to the clip (dB) |\n| --- | ---: | ---: |")
    for name in made:
        own = [row for row in rows if row["video"] == name]
        errors, near = (sum(float(row[key]) for row in own) / len(own) for key in ("warping_error", "psnr"))
        print(f"| {name} | {100 * errors:.3f} | {'' if name == 'clip' else f'{near:.2f}'} |")
    paths = {"before": str(config.before), "after": str(config.after), "out": str(folder)}
    write_json(folder / "alignment.json", {"config": {**asdict(config), **paths}, "rows": rows})
    sheet = torch.cat([torch.cat(list(video), dim=2) for video in made.values()], dim=1)
    write_image(sheet.repeat_interleave(3, 1).repeat_interleave(3, 2), folder / "alignment.png")
    print(f"{folder}/alignment.json and alignment.png: from top to bottom {', '.join(made)}")


def _psnr(video: Tensor, clip: Tensor) -> float:
    return min(99.0, float(psnr(video, clip).mean()))


if __name__ == "__main__":
    recipe.run(main, Config)
