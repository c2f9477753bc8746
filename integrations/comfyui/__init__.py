"""Nodes for ComfyUI: more frames, and something taken out of a clip. Link or copy this folder into ``custom_nodes``."""

from .nodes import FillHoles, Interpolate

NODE_CLASS_MAPPINGS = {"VfikitInterpolate": Interpolate, "VfikitFillHoles": FillHoles}
NODE_DISPLAY_NAME_MAPPINGS = {
    "VfikitInterpolate": "Interpolate Frames (vfikit)",
    "VfikitFillHoles": "Fill Holes in Video (vfikit)",
}
__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
