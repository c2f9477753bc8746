"""Jobs that stop: what is left, what is kept, and that nothing is lost or repeated when they go on."""

import errno
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vfikit.files import InputError
from vfikit.video import Options, VideoReader, interpolate_clip, interpolate_pair, read_image, write_image
from vfikit.video.work import Work

from .clips import audio_packets, blend, picture, write_video


class Stops:
    """``blend`` that fails at its n-th call."""

    def __init__(self, at: int, error: BaseException):
        self.left, self.error = at, error

    def __call__(self, frame0: Tensor, frame1: Tensor, t: float) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return blend(frame0, frame1, t)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_video(tmp_path / "in" / "clip.mp4", [picture(k) for k in range(12)], audio=True)


def decoded(path: Path) -> list[tuple[object, ...]]:
    with VideoReader(path) as reader:
        return [(frame.time, frame.duration, frame.rgb.numpy().tobytes()) for frame in reader]


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out"])
def test_a_stopped_job_goes_on_and_gives_the_same(tmp_path: Path, clip: Path, name: str) -> None:
    whole, output = tmp_path / "whole" / name, tmp_path / "parts" / name
    interpolate_clip([clip], whole, blend, segment=4)
    with pytest.raises(KeyboardInterrupt):
        interpolate_clip([clip], output, Stops(9, KeyboardInterrupt()), segment=4)
    assert not output.exists()
    report = interpolate_clip([clip], output, blend, segment=4)
    assert (report.reused, report.calls, report.frames) == (2, 3, 23)
    assert [path.name for path in output.parent.iterdir()] == [name]
    if output.is_dir():
        assert {p.name: p.read_bytes() for p in output.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}
    else:
        assert decoded(output) == decoded(whole)
    if name == "out.mp4":
        assert audio_packets(output) == audio_packets(clip)


def test_only_the_same_job_goes_on(tmp_path: Path, clip: Path) -> None:
    output = tmp_path / "out" / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        interpolate_clip([clip], output, Stops(9, KeyboardInterrupt()), segment=4)
    assert len(list(output.parent.iterdir())) == 1
    report = interpolate_clip([clip], output, blend, Options(factor=3, any_time=True), segment=4)
    assert report.reused == 0
    with pytest.raises(KeyboardInterrupt):
        interpolate_clip([clip], output, Stops(9, KeyboardInterrupt()), identity={"weights": "a"}, segment=4)
    assert interpolate_clip([clip], output, blend, identity={"weights": "b"}, segment=4).reused == 0
    assert [path.name for path in output.parent.iterdir()] == ["out.mp4"]


KILLED = """
import os, sys
from pathlib import Path
from vfikit.video import interpolate_clip

def blend(frame0, frame1, t):
    blend.calls += 1
    if blend.calls == 10:
        os.kill(os.getpid(), 9)
    return frame0 * (1 - t) + frame1 * t

blend.calls = 0
interpolate_clip([Path(sys.argv[1])], Path(sys.argv[2]), blend, segment=4)
"""


def test_kill_nine_costs_one_segment(tmp_path: Path, clip: Path) -> None:
    output = tmp_path / "out" / "out.mp4"
    killed = subprocess.run([sys.executable, "-c", KILLED, clip, output], check=False)
    assert killed.returncode == -9
    assert not output.exists()
    report = interpolate_clip([clip], output, blend, segment=4)
    assert (report.reused, report.frames) == (2, 23)
    interpolate_clip([clip], tmp_path / "whole.mp4", blend, segment=4)
    assert decoded(output) == decoded(tmp_path / "whole.mp4")
    assert [path.name for path in output.parent.iterdir()] == ["out.mp4"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, clip: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments go through a link to /dev/full: every write of libav fails as on a full disk."""
    plain = Work.path

    def full(self: Work, segment: int, kind: str) -> Path:
        path = plain(self, segment, kind)
        path.symlink_to("/dev/full")
        return path

    monkeypatch.setattr(Work, "path", full)
    output = tmp_path / "out" / f"out{suffix}"
    with pytest.raises(OSError, match=r"(?i)no space left|disk full") as caught:
        interpolate_clip([clip], output, blend)
    assert not isinstance(caught.value, InputError)
    assert list(output.parent.iterdir()) == []


def test_a_disk_that_fills_later_keeps_what_is_finished(tmp_path: Path, clip: Path) -> None:
    output = tmp_path / "out" / "out.mp4"
    with pytest.raises(OSError, match="No space left on device; run the same command again"):
        interpolate_clip([clip], output, Stops(6, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), segment=4)
    assert not output.exists()
    assert interpolate_clip([clip], output, blend, segment=4).reused == 1


def test_a_second_run_is_refused(tmp_path: Path, clip: Path) -> None:
    output = tmp_path / "out" / "out.mp4"

    def again(frame0: Tensor, frame1: Tensor, t: float) -> Tensor:
        with pytest.raises(InputError, match="another run is writing it"):
            interpolate_clip([clip], output, blend)
        return blend(frame0, frame1, t)

    assert interpolate_clip([clip], output, again).frames == 23


def test_bad_input_is_named_and_leaves_nothing(tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "out"
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:900])
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    write_image(picture(0), one)
    write_image(picture(0, 50, 30), two)
    broken = tmp_path / "broken.png"
    broken.write_bytes(one.read_bytes()[:200])
    empty = tmp_path / "empty"
    empty.mkdir()
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    cases: list[tuple[list[Path], Path, str]] = [
        ([tmp_path / "no.mp4"], out / "o.mp4", "no.mp4: no such file"),
        ([text], out / "o.mp4", "text.mp4: not a video that can be read"),
        ([cut], out / "o.mp4", "cut.mp4: not a video that can be read"),
        ([one], out / "o.mp4", "one image, expected two or more"),
        ([one, two], out / "o.mp4", "2.png: is 50x30, expected 48x32"),
        ([one, broken], out / "o.mp4", "broken.png: not an image that can be read"),
        ([one, tmp_path / "no.png"], out / "o.mp4", "no.png: no such file"),
        ([one, text], out / "o.mp4", "text.mp4: is no image"),
        ([empty], out / "o.mp4", "empty: holds 0 images"),
        ([clip], out / "o.xyz", "output .xyz: unknown, expected one of .mp4"),
        ([clip], clip, "is an input"),
        ([clip], full, "is a folder that holds files"),
    ]
    for inputs, output, message in cases:
        with pytest.raises(InputError, match=f"(?s).*{message.replace('.', '[.]')}"):
            interpolate_clip(inputs, output, blend)
        assert not out.exists() or list(out.iterdir()) == []
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


def test_video_damaged_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [picture(k) for k in range(12)]
    source = write_video(tmp_path / "in.mov", pictures, codec="png", pixel_format="rgb24")
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = b"\xff" * 400
    source.write_bytes(data)
    with pytest.raises(InputError, match=r"in.mov: damaged after \d+ frames"):
        interpolate_clip([source], tmp_path / "out" / "out.mp4", blend, segment=2)
    assert list((tmp_path / "out").iterdir()) == []  # it would not get further: nothing is kept
    times = [Fraction(k) for k in range(12)]
    torn = write_video(tmp_path / "torn.mkv", pictures, codec="ffv1", times=times)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size * 2 // 3])
    interpolate_clip([torn], tmp_path / "torn.mp4", blend)
    assert "torn.mkv: its video ends at 7.00 s of 1" in capsys.readouterr().err


def test_an_output_that_could_not_be_made_is_said_first(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "o.mp4", tmp_path / "file" / "deeper" / "o.mp4"):
        with pytest.raises(InputError, match="file is no folder that can be written to"):
            interpolate_clip([clip], output, Stops(0, AssertionError("asked for a frame")))


@pytest.mark.parametrize(("suffix", "crf", "top"), [(".mp4", -1, 51), (".mp4", 52, 51), (".webm", 64, 63)])
def test_quality_has_bounds(tmp_path: Path, clip: Path, suffix: str, crf: int, top: int) -> None:
    with pytest.raises(InputError, match=f"crf is {crf}, expected 0 to {top}"):
        interpolate_clip([clip], tmp_path / f"o{suffix}", blend, Options(crf=crf, audio=False))


def test_two_images_to_one(tmp_path: Path) -> None:
    for k in range(2):
        write_image(picture(k), tmp_path / f"{k}.png", bits=16)
    pair = [tmp_path / "0.png", tmp_path / "1.png"]
    interpolate_pair(pair, tmp_path / "middle.png", blend)
    torch.testing.assert_close(read_image(tmp_path / "middle.png"), (picture(0) + picture(1)) / 2, atol=2e-5, rtol=0)
    with pytest.raises(InputError, match="one image, expected from two"):
        interpolate_pair([*pair, pair[0]], tmp_path / "middle.png", blend)
    with pytest.raises(RuntimeError):
        interpolate_pair(pair, tmp_path / "never.png", Stops(0, RuntimeError()))
    assert not (tmp_path / "never.png").exists()
