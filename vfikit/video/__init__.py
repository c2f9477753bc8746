"""Video in and out, with exact times, and frame interpolation over streams of any length. Needs ``vfikit[video]``."""

try:
    import av  # noqa: F401
except ImportError as error:
    raise ImportError("vfikit.video reads and writes with PyAV: pip install 'vfikit[video]'") from error

from .engine import Engine, Factor, Rate, interpolate_stream
from .fill import FillOptions, FillReport, inpaint_clip
from .frames import Colour, Frame, Info, made
from .images import ImageReader, read_image, write_image
from .job import Options, Report, interpolate_clip, interpolate_pair, open_clip
from .reader import VideoReader
from .similarity import change, scene_change

__all__ = [
    "Colour",
    "Engine",
    "Factor",
    "FillOptions",
    "FillReport",
    "Frame",
    "ImageReader",
    "Info",
    "Options",
    "Rate",
    "Report",
    "VideoReader",
    "change",
    "inpaint_clip",
    "interpolate_clip",
    "interpolate_pair",
    "interpolate_stream",
    "made",
    "open_clip",
    "read_image",
    "scene_change",
    "write_image",
]
