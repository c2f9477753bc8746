"""What runs where: the table behind ``vfikit.ops.backends()``."""

from typing import NamedTuple

from . import _cpu, _cuda

OPS = ("adacof", "attention", "conv3x3", "deform_conv2d", "dsepconv")
WITHOUT_CUDA = {
    "attention": "torch's own is the fast one there",
    "conv3x3": "torch's convolution is the fast one there",
}


class Backend(NamedTuple):
    """One row: ``op`` runs on ``device`` by ``backend`` ("cpp", "cupy", "nvrtc", "reference"), and ``why``."""

    op: str
    device: str
    backend: str
    why: str


def backends() -> list[Backend]:
    """Which implementation each op uses on each device, and why; the torch reference is there on every device."""
    library, why = _cpu.load()
    rows = [("cpu", "cpp" if library else "reference", why)]
    launcher, why = _cuda.find()
    rows.append(("cuda", {"cupy": "cupy", "torch": "nvrtc"}.get(launcher or "", "reference"), why))
    table = [Backend(op, *row) for op in OPS for row in rows]
    return [
        row._replace(backend="reference", why=WITHOUT_CUDA[row.op])
        if row.device == "cuda" and row.op in WITHOUT_CUDA
        else row
        for row in table
    ]
