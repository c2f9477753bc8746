"""The proof that alignment steadies videos, on toy networks; and the plain formulation that layers are timed beside."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import alignment
from benchmarks.plain.temporal import temporal_attention
from vfikit import checkpoints
from vfikit.layers import TemporalAttentionLayer
from vfikit.models import build

from ..models.toys import VIDEO_LDM


def test_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    checkpoints.save(build(VIDEO_LDM, interpolation=False, upsampling=False), path)
    config = alignment.Config(path, path, tmp_path / "out", clips=2, frames=3, size=(16, 16), steps=4)
    alignment.main(config)
    rows = json.loads((tmp_path / "out" / "alignment.json").read_text())["rows"]
    assert len(rows) == 8
    by = {(row["clip"], row["video"]): row for row in rows}
    assert by[0, "clip"]["psnr"] == 99
    assert all(by[k, "clip"]["warping_error"] < by[k, "before"]["warping_error"] for k in (0, 1))
    assert by[0, "before"]["warping_error"] != by[0, "after"]["warping_error"]
    assert (tmp_path / "out" / "alignment.png").exists()
    assert "| before |" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, 6])
def test_plain_temporal_attention_is_ours(text: int | None) -> None:
    layer = TemporalAttentionLayer(16, 4, text, alpha=0.3)
    x, context = torch.randn(6, 16, 3, 5), None if text is None else torch.randn(2, 7, text)
    torch.testing.assert_close(temporal_attention(layer, x, 3, context), layer(x, 3, context))
