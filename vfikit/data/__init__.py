"""Training and test data: folders of triplets, clips, exact synthetic motion, augmentation."""

from .augmentation import augment
from .clips import Clips, FileClips, SyntheticClips, open_clips
from .masks import Draws, irregular_masks
from .pool import Pool
from .sources import Triplets, held_out, open_triplets
from .synthetic import Clip, Scene, Scenes
from .triplets import Triplet, TripletFolder
from .video_objects import ObjectMasks

__all__ = [
    "Clip",
    "Clips",
    "Draws",
    "FileClips",
    "ObjectMasks",
    "Pool",
    "Scene",
    "Scenes",
    "SyntheticClips",
    "Triplet",
    "TripletFolder",
    "Triplets",
    "augment",
    "held_out",
    "irregular_masks",
    "open_clips",
    "open_triplets",
]
