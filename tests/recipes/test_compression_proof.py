"""The proof that compressing pays, in little: every arm, and going on where it was stopped."""

import json
import runpy
import sys

import pytest

pytestmark = pytest.mark.slow

TINY = ["--models", "adacof", "--seeds", "1", "--train-steps", "1", "--sparsify-steps", "2", "--steps", "1"]
TINY += ["--pool", "4", "--batch-size", "2", "--crop", "32", "--limit", "1", "--size", "64", "64"]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["proof", *TINY, "--out", str(tmp_path), *map(str, arguments)])
        runpy.run_module("benchmarks.compression_proof", run_name="__main__")
        said: str = capsys.readouterr().out
        return said

    return call


def test_every_arm_once(run, tmp_path):
    run("--arms", "full", "ours")
    first = (tmp_path / "results.jsonl").read_text()
    said = run()
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert (tmp_path / "results.jsonl").read_text().startswith(first)
    assert [row["arm"] for row in rows] == ["full", "ours", "density", "scratch", "uniform", "magnitude", "longer"]
    size = {row["arm"]: row["parameters"] for row in rows}
    assert size["full"] == size["longer"] > size["magnitude"]
    assert size["ours"] == size["scratch"] <= size["full"] / 8 * 1.02  # fewer where the work asks for it
    assert size["density"] == pytest.approx(size["full"] / 8, rel=0.02)
    assert size["uniform"] == pytest.approx(size["ours"], rel=0.02)
    assert rows[5]["graph"] == "its own"
    report = json.loads((tmp_path / "compression.json").read_text())
    assert all(arm["latency_ms"] > 0 and arm["macs"] > 0 for arm in report["arms"])
    assert said.count("| `adacof` |") == 7
    assert (tmp_path / "compression.png").stat().st_size > 1000


def test_unknown_arms_are_named(run, capsys):
    with pytest.raises(SystemExit) as end:
        run("--arms", "full", "best")
    assert end.value.code == 2
    assert "best" in capsys.readouterr().err
