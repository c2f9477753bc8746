"""The nodes as ComfyUI loads and calls them: by the folder's path, under ``torch.inference_mode``."""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from vfikit import checkpoints
from vfikit.data.synthetic import Scenes
from vfikit.models import MODELS
from vfikit.video import interpolate_stream, made

from ..models import test_e2fgvi, toys
from ..repo import ROOT

FOLDER = ROOT / "integrations" / "comfyui"
PAGE = ROOT / "docs" / "use-in-comfyui-and-vapoursynth.md"


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for loaded in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[loaded]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of small random networks; the one that interpolates with what ships is not among them."""
    folder = tmp_path_factory.mktemp("weights")
    networks = {"cdfi": toys.toy("cdfi"), "ldmvfi": toys.toy("ldmvfi"), "e2fgvi-hq": test_e2fgvi.toy()}
    for name, network in networks.items():
        checkpoints.save(network, folder / f"{name}.safetensors")
    return {"adacof": ""} | {name: str(folder / f"{name}.safetensors") for name in networks}


def run(package: ModuleType, name: str, **inputs: Any) -> Tensor:
    node = package.NODE_CLASS_MAPPINGS[name]()
    with torch.inference_mode():
        (images,) = getattr(node, node.FUNCTION)(**inputs)
    return images


def clip(count: int, size: tuple[int, int] = (32, 32)) -> Tensor:
    return Scenes(1, size=size).scene(0).frames([k / 2 for k in range(count)]).clamp(0, 1).movedim(1, -1).contiguous()


def declared(node: Any) -> dict[str, Any]:
    inputs = node.INPUT_TYPES()
    return inputs["required"] | inputs["optional"]


def test_the_nodes_say_what_comfyui_reads(package: ModuleType) -> None:
    assert set(package.NODE_CLASS_MAPPINGS) == set(package.NODE_DISPLAY_NAME_MAPPINGS)
    for node in package.NODE_CLASS_MAPPINGS.values():
        assert node.RETURN_TYPES == ("IMAGE",)
        assert node.CATEGORY == "vfikit"
        arguments = getattr(node, node.FUNCTION).__code__.co_varnames
        assert set(declared(node)) <= set(arguments)
    models = {name: declared(node)["model"][0] for name, node in package.NODE_CLASS_MAPPINGS.items()}
    assert models["VfikitInterpolate"][0] == "adacof"
    assert models["VfikitFillHoles"] == ["e2fgvi-hq", "e2fgvi"]
    assert {name for names in models.values() for name in names} == set(MODELS) - {"lvdm", "video-ldm"}


@pytest.mark.parametrize(("model", "factor"), [("adacof", 2), ("cdfi", 3), ("ldmvfi", 4)])
def test_interpolate(package: ModuleType, weights: dict[str, str], model: str, factor: int) -> None:
    images = clip(3)
    inputs = {"images": images, "model": model, "factor": factor, "checkpoint": weights[model], "device": "cpu"}
    result = run(package, "VfikitInterpolate", **inputs)
    network = checkpoints.load(weights[model] or checkpoints.shipped(model, "small"))
    frames = [made(image.movedim(-1, 0), Fraction(k), Fraction(1)) for k, image in enumerate(images)]
    expected = [frame.rgb.movedim(0, -1) for frame in interpolate_stream(frames, network.interpolate, factor=factor)]
    assert result.shape == (2 * factor + 1, 32, 32, 3)
    assert torch.equal(result[::factor], images)
    assert torch.equal(result, torch.stack(expected))
    assert not torch.equal(result[1], result[0])


def test_one_image_stays_one(package: ModuleType) -> None:
    images = clip(1)
    result = run(package, "VfikitInterpolate", images=images, model="adacof", factor=8, device="cpu")
    assert torch.equal(result, images)


def test_a_checkpoint_of_ones_own(package: ModuleType) -> None:
    path = checkpoints.SHIPPED / "adacof-small-compressed.safetensors"
    inputs = {"images": clip(2), "model": "adacof", "factor": 2, "device": "cpu"}
    result = run(package, "VfikitInterpolate", **inputs, checkpoint=str(path))
    pair = inputs["images"].movedim(-1, 1)[:, None]
    assert torch.equal(result[1].movedim(-1, 0), checkpoints.load(path).interpolate(*pair)[0])


@pytest.mark.parametrize("crop", [-1, 6])
@pytest.mark.parametrize("count", [1, 7])
def test_fill_holes(package: ModuleType, weights: dict[str, str], crop: int, count: int) -> None:
    images = clip(7, (32, 48))
    mask = torch.zeros(count, 32, 48)
    mask[:, 8:16, 20:30] = 0.4  # soft rims are holes too
    inputs = {"model": "e2fgvi-hq", "preset": "small", "checkpoint": weights["e2fgvi-hq"], "device": "cpu"}
    result = run(package, "VfikitFillHoles", images=images, mask=mask, **inputs, dilation=1, crop=crop)
    network = checkpoints.load(weights["e2fgvi-hq"])
    frames, masks = images.movedim(-1, 1)[None], mask[None, :, None]
    expected = network.inpaint(frames, masks, dilation=1, crop=None if crop < 0 else crop)
    assert (result - expected[0].movedim(1, -1)).abs().max() < 1e-4  # the node streams: other sums, rounded otherwise
    outside = torch.ones(32, 48, dtype=torch.bool)
    outside[7:17, 19:31] = False
    assert torch.equal(result[:, outside], images[:, outside])
    assert not torch.equal(result[:, 8:16, 20:30], images[:, 8:16, 20:30])


def test_wrong_input(package: ModuleType, weights: dict[str, str]) -> None:
    fill = {"images": clip(3), "model": "e2fgvi-hq", "preset": "small", "device": "cpu"}
    with pytest.raises(ValueError, match=re.escape("mask is (1, 64, 64), expected (3 or 1, 32, 32) like the images")):
        run(package, "VfikitFillHoles", **fill, checkpoint=weights["e2fgvi-hq"], mask=torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match=re.escape("mask is (2, 32, 32), expected (3 or 1, 32, 32) like the images")):
        run(package, "VfikitFillHoles", **fill, checkpoint=weights["e2fgvi-hq"], mask=torch.zeros(2, 32, 32))
    with pytest.raises(ValueError, match="no weights ship with vfikit"):
        run(package, "VfikitFillHoles", **fill, checkpoint="", mask=torch.zeros(1, 32, 32))
    with pytest.raises(ValueError, match="no such file"):
        run(package, "VfikitInterpolate", images=clip(2), model="adacof", factor=2, checkpoint="none.safetensors")


def test_the_page_shows_nodes_and_inputs_that_exist(package: ModuleType) -> None:
    workflow = json.loads(re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0])
    ours = [node for node in workflow.values() if node["class_type"].startswith("Vfikit")]
    assert {node["class_type"] for node in ours} == set(package.NODE_CLASS_MAPPINGS)
    for node in ours:
        inputs = package.NODE_CLASS_MAPPINGS[node["class_type"]].INPUT_TYPES()
        assert set(inputs["required"]) <= set(node["inputs"]) <= set(inputs["required"]) | set(inputs["optional"])
