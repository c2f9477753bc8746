"""Whole clips with a hole: masks of every kind, what stays, sound, going on, and what is refused."""

import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from vfikit.files import InputError
from vfikit.video import FillOptions, VideoReader, inpaint_clip, read_image, write_image
from vfikit.video.fill import masks

from .clips import audio_packets, picture, write_video

HOLE = (slice(10, 20), slice(12, 30))
SEEN: list[Tensor | None] = []


def black(pairs: Iterator[tuple[Tensor, Tensor]], start: int, area: Tensor | None) -> Iterator[Tensor]:
    """Paints holes black, two frames late."""
    SEEN.append(area)
    waiting: list[Tensor] = []
    for index, (frame, mask) in enumerate(pairs):
        if index >= start:
            waiting.append(frame * (1 - mask))
        if len(waiting) > 2:
            yield waiting.pop(0)
    yield from waiting


def hole(height: int = 32, width: int = 48) -> Tensor:
    mask = torch.zeros(3, height, width)
    mask[1, HOLE[0], HOLE[1]] = 0.02  # as labels in colours are: not black
    return mask


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_video(tmp_path / "in" / "clip.mp4", [picture(k) for k in range(7)], audio=True)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    write_image(hole(), tmp_path / "mask.png")
    return tmp_path / "mask.png"


def frames_of(path: Path) -> list[Tensor]:
    if path.is_dir():
        return [read_image(each) for each in sorted(path.iterdir())]
    with VideoReader(path) as reader:
        return [frame.rgb for frame in reader]


def test_a_video_with_sound_and_one_mask(tmp_path: Path, clip: Path, mask: Path) -> None:
    output, shown = tmp_path / "out" / "clip.mp4", []
    report = inpaint_clip(clip, mask, output, black, progress=lambda done, total: shown.append((done, total)))
    assert report[:3] == (7, 7, 0)
    assert shown == [(1, 7)] * 7
    assert audio_packets(output) == audio_packets(clip)
    with VideoReader(output) as reader:
        assert [frame.time for frame in reader] == [Fraction(k, 25) for k in range(7)]
    for made, source in zip(frames_of(output), frames_of(clip), strict=True):
        assert made[:, HOLE[0], HOLE[1]].mean() < 0.1
        assert (made - source)[:, :8].abs().max() < 0.05
    assert [path.name for path in output.parent.iterdir()] == ["clip.mp4"]


def test_a_folder_with_a_mask_for_each_frame_stays_exact(tmp_path: Path) -> None:
    for name in ("frames", "masks"):
        (tmp_path / name).mkdir()
    for k in range(4):
        write_image(picture(k), tmp_path / "frames" / f"{k}.png")
        write_image(hole() * (k != 2), tmp_path / "masks" / f"{k}.png")
    report = inpaint_clip(tmp_path / "frames", tmp_path / "masks", tmp_path / "out", black)
    assert report[:2] == (4, 3)
    for k, made in enumerate(frames_of(tmp_path / "out")):
        source = read_image(tmp_path / "frames" / f"{k}.png")
        expected = source * (hole().amax(0) == 0) if k != 2 else source
        assert torch.equal(made, expected)
    untouched = tmp_path / "out" / "000002.png"
    assert untouched.read_bytes() == (tmp_path / "frames" / "2.png").read_bytes()


def test_frames_with_a_hole_are_not_held(tmp_path: Path, clip: Path, mask: Path) -> None:
    """They are in the hands of what fills them; a frame read is let go of when the next is."""
    read: list[weakref.ref[Tensor]] = []

    def fill(pairs: Iterator[tuple[Tensor, Tensor]], start: int, area: Tensor | None) -> Iterator[Tensor]:
        made = []
        for frame, mask in pairs:
            assert sum(each() is not None for each in read) <= 1
            read.append(weakref.ref(frame.untyped_storage()))
            made.append(frame * (1 - mask))
        yield from made

    assert inpaint_clip(clip, mask, tmp_path / "out", fill).frames == len(read) == 7


def test_a_video_of_masks(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = write_video(tmp_path / "masks.mp4", [(hole() > 0).float().amax(0).expand(3, -1, -1)] * 8)
    assert inpaint_clip(clip, masks, tmp_path / "o.mkv", black).filled == 7
    assert "holds more masks than the clip has frames" in capsys.readouterr().err
    assert frames_of(tmp_path / "o.mkv")[3][:, 12:18, 14:28].mean() < 0.1


def test_a_mask_of_another_size(tmp_path: Path, clip: Path) -> None:
    write_image(hole().repeat_interleave(2, 1).repeat_interleave(2, 2), tmp_path / "large.png")
    inpaint_clip(clip, tmp_path / "large.png", tmp_path / "out", black)
    assert torch.equal(frames_of(tmp_path / "out")[0].amax(0) == 0, hole().amax(0) > 0)


@pytest.mark.parametrize("size", [(64, 96), (48, 72), (27, 40)])
def test_masks_are_resized_as_the_published_program_does(tmp_path: Path, clip: Path, size: tuple[int, int]) -> None:
    painted = Image.fromarray(numpy.random.default_rng(0).integers(0, 2, size, numpy.uint8) * 255)
    painted.save(tmp_path / "mask.png")
    with VideoReader(clip) as reader:
        made = next(masks(tmp_path / "mask.png", reader.info))
    assert torch.equal(made[0] > 0, torch.tensor(numpy.asarray(painted.resize((48, 32), Image.Resampling.NEAREST)) > 0))


def test_what_any_mask_covers(tmp_path: Path, clip: Path, mask: Path) -> None:
    SEEN.clear()
    (tmp_path / "masks").mkdir()
    for k in range(7):
        write_image(torch.roll(hole(), k, 2), tmp_path / "masks" / f"{k}.png")
    for number, given in enumerate((mask, tmp_path / "masks")):
        inpaint_clip(clip, given, tmp_path / f"{number}.mp4", black, FillOptions(look_ahead=True))
    inpaint_clip(clip, mask, tmp_path / "n.mp4", black)
    assert torch.equal(SEEN[0], (hole() > 0).float().amax(0, keepdim=True))
    assert SEEN[1].sum() == 10 * (18 + 6)
    assert SEEN[2] is None


def test_a_stopped_job_goes_on(tmp_path: Path, clip: Path, mask: Path) -> None:
    starts = []

    def until(frames: int):
        def fill(pairs: Iterator[tuple[Tensor, Tensor]], start: int, area: Tensor | None) -> Iterator[Tensor]:
            starts.append(start)
            for index, frame in enumerate(black(pairs, start, area), start):
                if index == frames:
                    raise KeyboardInterrupt
                yield frame

        return fill

    options, output = FillOptions(segment=2), tmp_path / "o.mkv"
    with pytest.raises(KeyboardInterrupt):
        inpaint_clip(clip, mask, output, until(5), options)
    assert not output.exists()
    report = inpaint_clip(clip, mask, output, until(99), options)
    assert starts == [0, 4]
    assert report[:3] == (7, 3, 2)
    inpaint_clip(clip, mask, tmp_path / "whole.mkv", black, options)
    for resumed, whole in zip(frames_of(output), frames_of(tmp_path / "whole.mkv"), strict=True):
        assert torch.equal(resumed, whole)
    write_image(hole() * 0, mask)  # another mask: from the beginning
    assert inpaint_clip(clip, mask, output, until(99), options)[:3] == (7, 0, 0)


def test_a_turned_video_takes_an_upright_mask(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "turned.mp4", [picture(k) for k in range(3)], rotation=90)
    upright = torch.rot90(hole(), 1, (1, 2))
    write_image(upright, tmp_path / "mask.png")
    inpaint_clip(clip, tmp_path / "mask.png", tmp_path / "out", black)
    made = frames_of(tmp_path / "out")[1]
    assert made.shape == upright.shape
    assert made[:, upright[1] > 0].max() == 0
    assert made[:, upright[1] == 0].min() > 0


def test_wrong_masks(tmp_path: Path, clip: Path, mask: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "empty").mkdir()
    for k in range(3):
        write_image(hole(), tmp_path / "few" / f"{k}.png")
    write_image(hole(20, 20)[:, :20], tmp_path / "small.png")
    for wrong, message in (
        (tmp_path / "none.png", "none.png: no such file"),
        (tmp_path / "empty", "empty: holds no images, expected masks"),
        (tmp_path / "few", "few: holds 3 masks, expected one for each frame of the clip"),
        (tmp_path / "small.png", "small.png: the mask is 20x20, expected 48x32 like the clip, or of its proportions"),
    ):
        with pytest.raises(InputError, match=message):
            inpaint_clip(clip, wrong, tmp_path / "out" / "o.mp4", black)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="is an input"):
        inpaint_clip(clip, mask, mask, black)


def test_too_few_masks_for_a_folder_are_said_before_a_frame_is_filled(tmp_path: Path) -> None:
    for folder, count in (("frames", 4), ("masks", 3)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            write_image(hole(), tmp_path / folder / f"{k}.png")
    SEEN.clear()
    with pytest.raises(InputError, match="masks: holds 3 masks, expected one for each of 4 frames"):
        inpaint_clip(tmp_path / "frames", tmp_path / "masks", tmp_path / "out", black)
    assert not SEEN


def test_a_mask_video_is_turned_as_its_tag_says(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "turned.mp4", [picture(k) for k in range(3)], rotation=90)
    upright = (torch.rot90(hole(), 1, (1, 2)) > 0).float()  # as an editor exports it: no tag
    plain = write_video(tmp_path / "plain.mkv", [upright] * 3, codec="ffv1", pixel_format="bgr0")
    coded = (hole() > 0).float()  # as the camera coded the clip
    tagged = write_video(tmp_path / "tagged.mp4", [coded] * 3, rotation=90, options={"crf": "0"})
    for mask in (plain, tagged):
        inpaint_clip(clip, mask, tmp_path / mask.stem, black)
        made = frames_of(tmp_path / mask.stem)[1]
        assert made.shape == upright.shape
        assert made[:, upright[1] > 0].max() == 0
