"""Whole clips through the engine, read back: times, lengths, colours, sound."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest
import torch

from vfikit.files import InputError
from vfikit.video import Options, VideoReader, interpolate_clip, read_image, write_image
from vfikit.video.frames import Colour

from .clips import BT709, audio_packets, blend, other_scene, picture, write_video

HDR = Colour(primaries=9, transfer=16, matrix=9, range=1)


def read(path: Path) -> tuple[VideoReader, list[tuple[Fraction, Fraction]], list[torch.Tensor]]:
    with VideoReader(path) as reader:
        frames = [(frame.time, frame.duration, frame.rgb) for frame in reader]
    return reader, [(time, duration) for time, duration, _ in frames], [rgb for _, _, rgb in frames]


def end(times: list[tuple[Fraction, Fraction]]) -> Fraction:
    return times[-1][0] + times[-1][1]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_doubling_keeps_times_length_and_sound(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / f"in{suffix}", [picture(k) for k in range(9)], audio=True)
    output = tmp_path / f"out{suffix}"
    report = interpolate_clip([source], output, blend, segment=4)
    _, before, originals = read(source)
    reader, after, pixels = read(output)
    assert report.frames == len(after) == 17
    shift = after[0][0] - before[0][0]  # Matroska moves all streams alike where the sound starts before zero
    assert suffix == ".mkv" or shift == 0
    tick = Fraction(1, 1000) if suffix == ".mkv" else Fraction(0)
    assert all(abs(new[0] - shift - old[0]) <= tick for old, new in zip(before, after[::2], strict=True))
    assert all(abs(b[0] - a[0] - Fraction(1, 50)) <= tick for a, b in pairwise(after))
    assert abs(end(after) - shift - end(before)) <= tick
    assert reader.info.colour == BT709
    assert all(torch.allclose(a, b, atol=0.06) for a, b in zip(originals, pixels[::2], strict=True))
    sound, copied = audio_packets(source), audio_packets(output)
    assert [data for _, data in sound] == [data for _, data in copied]
    assert all(abs(b[0] - shift - a[0]) <= tick for a, b in zip(sound, copied, strict=True))


def test_thirty_two_times(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", [picture(k) for k in range(3)])
    interpolate_clip([source], tmp_path / "out.mp4", blend, Options(factor=32))
    _, times, _ = read(tmp_path / "out.mp4")
    assert [time for time, _ in times] == [Fraction(k, 25 * 32) for k in range(65)]
    assert end(times) == Fraction(3, 25)


def test_varying_rate_and_odd_time_base(tmp_path: Path) -> None:
    base = Fraction(1, 30000)
    times = [base * k for k in (0, 1001, 1501, 4004, 5005, 6007, 12000)]
    source = write_video(tmp_path / "in.mp4", [picture(k) for k in range(7)], times=times, base=base)
    interpolate_clip([source], tmp_path / "out.mp4", blend, segment=2)
    _, before, _ = read(source)
    _, after, _ = read(tmp_path / "out.mp4")
    assert [time for time, _ in before] == times
    assert [time for time, _ in after[::2]] == times
    assert [time for time, _ in after[1::2]] == [(a + b) / 2 for a, b in pairwise(times)]
    assert end(after) == end(before)
    options = Options(fps=Fraction(60000, 1001), any_time=True)
    interpolate_clip([source], tmp_path / "even.mp4", blend, options)
    _, even, _ = read(tmp_path / "even.mp4")
    assert [time for time, _ in even] == [k * Fraction(1001, 60000) for k in range(len(even))]
    assert abs(end(even) - end(before)) <= Fraction(1001, 60000)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix"),
    [
        ("libx264", "yuv420p10le", ".mp4"),
        ("libx265", "yuv420p12le", ".mkv"),
        ("libx264", "yuv444p", ".mp4"),
        ("libx264", "yuv422p10le", ".mov"),
        ("libx264", "yuvj420p", ".mp4"),
    ],
)
def test_bit_depth_chroma_and_colour_tags_are_kept(tmp_path: Path, codec: str, pixel_format: str, suffix: str) -> None:
    colour = Colour(1, 1, 1, 2) if "j" in pixel_format else HDR
    pictures = [picture(k, 64, 64) for k in range(4)]
    if codec == "libx265":
        source = write_video(tmp_path / "in.mkv", pictures, codec="ffv1", pixel_format=pixel_format, colour=colour)
    else:
        source = write_video(tmp_path / f"in{suffix}", pictures, codec=codec, pixel_format=pixel_format, colour=colour)
    interpolate_clip([source], tmp_path / f"out{suffix}", blend)
    first, _, _ = read(source)
    second, times, pixels = read(tmp_path / f"out{suffix}")
    assert len(times) == 7
    assert second.info.pixel_format == first.info.pixel_format == pixel_format
    assert second.info.colour == first.info.colour == colour
    worst = max(float((rgb - picture(k / 2, 64, 64)).abs().mean()) for k, rgb in enumerate(pixels))
    assert worst < 0.01


def test_untagged_and_rotated_video_stays_so(tmp_path: Path) -> None:
    pictures = [picture(k) for k in range(3)]
    source = write_video(tmp_path / "in.mp4", pictures, colour=Colour(), rotation=90)
    interpolate_clip([source], tmp_path / "out.mp4", blend)
    reader, _, pixels = read(tmp_path / "out.mp4")
    assert reader.info.rotation == 90
    assert reader.info.colour == Colour()
    interpolate_clip([source], tmp_path / "stills", blend)
    upright = read_image(tmp_path / "stills" / "000001.png")
    assert upright.shape == (3, 48, 32)
    torch.testing.assert_close(upright, torch.rot90(pixels[1], 1, (1, 2)), atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [(47, 31), (1, 3), (50, 33)])
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    for k in range(3):
        write_image(picture(k, width, height), tmp_path / f"{k}.png")
    images = [tmp_path / f"{k}.png" for k in range(3)]
    interpolate_clip(images, tmp_path / "out.mp4", blend, Options(repeat=0))
    reader, times, _ = read(tmp_path / "out.mp4")
    assert (reader.info.width, reader.info.height, len(times)) == (width, height, 5)


def test_webm(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", [picture(k) for k in range(4)])
    interpolate_clip([source], tmp_path / "out.webm", blend)
    reader, times, _ = read(tmp_path / "out.webm")
    assert len(times) == 7
    assert reader.info.colour == BT709


@pytest.mark.parametrize("name", ["out.mp4", "out.webm"])
def test_grey_keeps_its_brightness(tmp_path: Path, name: str) -> None:
    pictures = [picture(k).mean(0, keepdim=True).expand(3, -1, -1) for k in range(3)]
    source = write_video(tmp_path / "in.mkv", pictures, codec="ffv1", pixel_format="gray", colour=Colour())
    interpolate_clip([source], tmp_path / name, blend, Options(crf=1))
    _, _, pixels = read(tmp_path / name)
    for made, expected in zip(pixels[::2], pictures, strict=True):
        assert (made - expected).abs().max() < 3 / 255


def test_ten_bits_in_webm(tmp_path: Path) -> None:
    """By AV1, whose decoder has another name than its encoder."""
    kind = {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": "log-level=error"}}
    source = write_video(tmp_path / "in.mp4", [picture(k, 64, 64) for k in range(4)], **kind)
    interpolate_clip([source], tmp_path / "out.webm", blend, segment=2)
    reader, times, _ = read(tmp_path / "out.webm")
    assert len(times) == 7
    assert (reader.info.pixel_format, reader.info.colour) == ("yuv420p10le", BT709)


def test_gif_in_and_out(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", [picture(k) for k in range(6)])
    interpolate_clip([source], tmp_path / "out.gif", blend, segment=2)
    reader, times, pixels = read(tmp_path / "out.gif")
    assert [time for time, _ in times] == [Fraction(k, 50) for k in range(11)]
    assert end(times) == Fraction(6, 25)
    assert float((pixels[1] - picture(0.5)).abs().mean()) < 0.02
    interpolate_clip([tmp_path / "out.gif"], tmp_path / "again.mp4", blend)
    reader, times, _ = read(tmp_path / "again.mp4")
    assert len(times) == 21
    assert end(times) == Fraction(6, 25)
    assert reader.info.colour.matrix == 1
    with pytest.raises(InputError, match="a GIF holds at least 2/100 s"):
        interpolate_clip([source], tmp_path / "fast.gif", blend, Options(factor=4))
    assert not (tmp_path / "fast.gif").exists()


def test_folders_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(11):  # 10 sorts after 9
        write_image(picture(k), folder / f"frame{k}.png", bits=16)
    interpolate_clip([folder], tmp_path / "out", blend, segment=3)
    made = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in made] == [f"{k:06d}.png" for k in range(21)]
    for k in range(11):
        assert made[2 * k].read_bytes() == (folder / f"frame{k}.png").read_bytes()
    torch.testing.assert_close(read_image(made[19]), (picture(9) + picture(10)) / 2, atol=2e-5, rtol=0)
    interpolate_clip([folder], tmp_path / "out.mp4", blend, Options(input_fps=Fraction(30000, 1001)))
    reader, times, pixels = read(tmp_path / "out.mp4")
    assert reader.info.pixel_format == "yuv420p10le"
    assert times[1][0] == Fraction(1001, 60000)
    assert float((pixels[19] - picture(9.5)).abs().mean()) < 0.01


def test_cuts_and_repeats_in_a_file(tmp_path: Path) -> None:
    shots = [picture(0), picture(1), picture(1), other_scene(), other_scene() * 0.8]
    source = write_video(tmp_path / "in.mp4", shots)
    report = interpolate_clip([source], tmp_path / "out.mp4", blend)
    assert (report.frames, report.calls, report.cuts, report.repeats) == (9, 2, 1, 1)


def test_subtitles_chapters_and_sound_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.srt").write_text("1\n00:00:00,040 --> 00:00:00,120\nhello\n")
    plain = write_video(tmp_path / "plain.mkv", [picture(k) for k in range(5)], audio=True)
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out, av.open(str(plain)) as video, av.open(str(tmp_path / "words.srt")) as words:
        inputs = [video.streams.video[0], video.streams.audio[0], words.streams.subtitles[0]]
        twins = [out.add_stream_from_template(stream) for stream in inputs]
        twins[2].metadata["language"] = "eng"
        for container, pairs in ((video, zip(inputs[:2], twins[:2], strict=True)), (words, [(inputs[2], twins[2])])):
            twin_of = {stream.index: twin for stream, twin in pairs}
            for packet in container.demux():
                if packet.size:
                    packet.stream = twin_of[packet.stream_index]
                    out.mux(packet)
    interpolate_clip([source], tmp_path / "out.mkv", blend)
    with av.open(str(tmp_path / "out.mkv")) as container:
        (subtitle,) = container.streams.subtitles
        assert subtitle.metadata["language"] == "eng"
        (packet,) = [packet for packet in container.demux(subtitle) if packet.size]
        assert bytes(packet) == b"hello"
    interpolate_clip([source], tmp_path / "out.mp4", blend)
    assert "its subrip subtitles can't be copied into .mp4" in capsys.readouterr().err
    assert audio_packets(tmp_path / "out.mp4")
    with pytest.raises(
        InputError, match=r"its audio \(aac\) can't be copied into .webm; write .mkv, or give --no-audio"
    ):
        interpolate_clip([source], tmp_path / "out.webm", blend)
    interpolate_clip([source], tmp_path / "out.webm", blend, Options(audio=False))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("words.srt", "plain.mkv", "in.mkv", "out.mkv", "out.mp4", "out.webm")
    }


def test_interlaced_video_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [picture(k, 64, 64) for k in range(3)]
    source = write_video(tmp_path / "in.mp4", pictures, options={"x264-params": "interlaced=1"})
    interpolate_clip([source], tmp_path / "out.mp4", blend)
    assert "in.mp4: is interlaced; deinterlace it first" in capsys.readouterr().err


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """96 columns: there libx264's fastest kernels read what nobody wrote, unless told otherwise."""
    source = write_video(tmp_path / "in.mp4", [picture(k, 96, 64) for k in range(5)])
    written = set()
    for k in range(12):
        interpolate_clip([source], tmp_path / f"{k}.mp4", blend)
        written.add((tmp_path / f"{k}.mp4").read_bytes())
    assert len(written) == 1
