"""Image networks of diffusers made networks of videos: everything that works for the one works for the other."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from vfikit.layers import inflate
from vfikit.layers.inflate import inflated_name, published_name, temporal_parameters

KEYS = Path(__file__).parent.parent / "golden" / "data"
FRAMES = 3


def toy(**settings: Any) -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 6,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
        "sample_size": 8,
    }
    return UNet2DConditionModel(**{**config, **settings}).eval()


def inputs(videos: int = 2, size: tuple[int, int] = (8, 6)) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(videos * FRAMES, 4, *size, generator=torch.Generator().manual_seed(1))
    text = torch.randn(videos * FRAMES, 4, 6, generator=torch.Generator().manual_seed(2))
    return x, torch.tensor(300), text


def call(net: Any, *more: Tensor, video: bool = True, **known: Any) -> Tensor:
    given = {"num_frames": FRAMES, **known} if video else None
    output: Tensor = net(*(more or inputs()), cross_attention_kwargs=given).sample
    return output


@pytest.mark.parametrize("attention", ["text", "frames", "both"])
@pytest.mark.parametrize("middle", [False, True])
def test_at_alpha_one_it_is_the_image_network(attention: Any, middle: bool) -> None:
    image = toy()
    x, t, text = inputs()
    with torch.no_grad():
        frame_by_frame = torch.cat([image(x[i : i + 1], t, text[i : i + 1]).sample for i in range(len(x))])
        net = inflate(image, attention=attention, middle=middle, condition_channels=2)
        planes = torch.randn(len(x), 2, *x.shape[2:])
        torch.testing.assert_close(call(net, temporal_condition=planes), frame_by_frame)
        torch.testing.assert_close(call(net, video=False), frame_by_frame)


def test_frames_meet_below_alpha_one() -> None:
    net = inflate(toy(), attention="frames", alpha=0.5)
    x, t, text = inputs()
    changed = x.clone()
    changed[1] += 1
    with torch.no_grad():
        difference = (call(net) - call(net, changed, t, text)).flatten(1).abs().amax(1)
    assert (difference[:FRAMES] > 0).all()
    assert not difference[FRAMES:].any(), "videos are mixed"


def test_without_attention_to_frames_a_mask_is_all_that_matters() -> None:
    """Frames beyond a window are not attended to; convolutions still reach their neighbours."""
    net = inflate(toy(), attention="frames", alpha=0.5)
    with torch.no_grad():
        alone = call(net, temporal_mask=torch.eye(FRAMES, dtype=torch.bool))
        assert not torch.allclose(alone, call(net))


def test_the_temporal_layers_may_read_another_text() -> None:
    net = inflate(toy(), alpha=0.5)
    x, t, text = inputs()
    other = torch.randn_like(text)
    with torch.no_grad():
        same = call(net, temporal_context=text)
        torch.testing.assert_close(same, call(net))
        both = call(net, temporal_context=other)
        assert not torch.allclose(both, same)
        assert not torch.allclose(both, call(net, x, t, other))


def test_masked_tokens_of_a_text_do_not_matter() -> None:
    net = inflate(toy(), alpha=0.5)
    x, t, text = inputs()
    mask = torch.tensor([[1, 1, 0, 0]]).expand(len(x), -1)
    changed = text.clone()
    changed[:, 2:] += 5
    known = {"num_frames": FRAMES}
    with torch.no_grad():
        before = net(x, t, text, encoder_attention_mask=mask, cross_attention_kwargs=known).sample
        after = net(x, t, changed, encoder_attention_mask=mask, cross_attention_kwargs=known).sample
    torch.testing.assert_close(before, after)


def test_the_condition_begins_without_effect_and_learns() -> None:
    net = inflate(toy(), alpha=0.5, condition_channels=5, middle=True)
    x, _, _ = inputs()
    planes = torch.randn(len(x), 5, *x.shape[2:], requires_grad=True)
    zeros = torch.zeros_like(planes)
    torch.testing.assert_close(call(net, temporal_condition=planes), call(net, temporal_condition=zeros))
    call(net, temporal_condition=planes).square().sum().backward()
    heads = [p for name, p in net.named_parameters() if name.endswith("condition.proj_out.weight")]
    assert len(heads) == 4  # one down, one in the middle, two up
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in heads)
    with pytest.raises(ValueError, match="got no temporal_condition"):
        call(net)


def test_odd_sizes() -> None:
    net = inflate(toy(), alpha=0.5, condition_channels=1, middle=True)
    x, t, text = inputs(1, (7, 9))
    assert call(net, x, t, text, temporal_condition=torch.ones(3, 1, 7, 9)).shape == x.shape


def test_only_temporal_layers_are_trained_unless_asked() -> None:
    net = inflate(toy(), alpha=0.9)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert {id(p) for p in temporal_parameters(net)} == {id(p) for p in net.parameters() if p.requires_grad}
    assert all(".conv3d." in name or ".temporal." in name for name in trained)
    assert all(p.requires_grad for p in inflate(toy(), freeze=False).parameters())


def test_copies_and_pickles_are_their_own() -> None:
    net = inflate(toy(), alpha=0.5)
    others = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    with torch.no_grad():
        expected = call(net)
        for parameter in net.parameters():
            parameter.zero_()
        for other in others:
            torch.testing.assert_close(call(other), expected)
            published = {published_name(key): value for key, value in other.state_dict().items()}
            other.load_state_dict(published)  # the names are still understood


def test_checkpointing_gives_the_same_gradients() -> None:
    found = []
    for checkpointing in (False, True):
        net = inflate(toy(), alpha=0.5, attention="both").train()
        if checkpointing:
            net.enable_gradient_checkpointing()
        call(net).square().mean().backward()
        found.append([p.grad for p in temporal_parameters(net)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def bytes_kept(net: Any) -> int:
    """What a forward pass keeps for the backward pass, parameters left out."""
    parameters, kept = {p.data_ptr() for p in net.parameters()}, {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = call(net, temporal_condition=torch.ones(6, 2, 8, 6))
    assert output.requires_grad
    return sum(kept.values())


def test_checkpointing_keeps_nothing_inside_the_temporal_layers() -> None:
    kept = []
    for checkpointing in (False, True):
        net = inflate(toy(), alpha=0.5, attention="both", condition_channels=2, freeze=False).train()
        if checkpointing:
            net.enable_gradient_checkpointing()
        kept.append(bytes_kept(net))
    assert kept[1] < 0.3 * kept[0], kept


def test_fullgraph_compile_forward_and_backward() -> None:
    one_level = toy(
        block_out_channels=(16,), down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",)
    )
    net = inflate(one_level, alpha=0.5, attention="both")
    expected = call(net)
    expected.square().mean().backward()
    gradients = [p.grad.clone() for p in temporal_parameters(net)]
    net.zero_grad()
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=False)
    output = call(compiled)
    output.square().mean().backward()
    torch.testing.assert_close(output, expected)
    for parameter, gradient in zip(temporal_parameters(net), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_export() -> None:
    net = inflate(toy(), alpha=0.5)
    known = {"cross_attention_kwargs": {"num_frames": FRAMES}}
    with torch.no_grad():
        program = torch.export.export(net, inputs(), known)
        torch.testing.assert_close(program.module()(*inputs(), **known).sample, call(net))


class LoRA(nn.Module):
    """A linear layer and what is learned beside it."""

    def __init__(self, linear: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.up(self.down(x))


def test_adapters_of_the_spatial_layers_are_those_of_the_image_network() -> None:
    image, net = toy(), inflate(toy(), alpha=0.5)
    places = [name for name, module in image.named_modules() if name.endswith("attn1.to_q")]
    assert places
    for name in places:
        adapter = LoRA(image.get_submodule(name))
        image.set_submodule(name, adapter)
        own = inflated_name(f"{name}.")[:-1]
        net.set_submodule(own, LoRA(net.get_submodule(own)))
        net.get_submodule(own).load_state_dict(adapter.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(call(net, video=False), call(image, video=False))
    call(net).square().sum().backward()
    assert all(net.get_submodule(inflated_name(f"{name}.")[:-1]).up.weight.grad is not None for name in places)


def test_an_image_checkpoint_lacks_temporal_keys_alone() -> None:
    image = toy()
    net = inflate(toy(), attention="both")
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    result = net.load_state_dict(image.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert {id(net.get_parameter(name)) for name in result.missing_keys} == {id(p) for p in temporal_parameters(net)}
    with torch.no_grad():
        torch.testing.assert_close(call(net, video=False), call(image, video=False))


@pytest.mark.parametrize("name", ["video_ldm", "video_ldm_small"])
def test_published_keys_and_sizes(name: str) -> None:
    """The full network is built and inflated on ``meta``, in seconds."""
    spec = json.loads((KEYS / f"{name}.keys.json").read_text())
    config = {key: value for key, value in spec["config"].items() if not key.startswith("n_")}
    with torch.device("meta"):
        net = inflate(UNet2DConditionModel(**config), heads=spec["config"]["n_temp_heads"])
    ours = {published_name(key): list(value.shape) for key, value in net.named_parameters()}
    dummies = {key for key in spec["keys"] if key.endswith(".dummy")}
    assert ours == {key: shape for key, shape in spec["keys"].items() if key not in dummies}
    assert sum(p.numel() for p in net.parameters()) + len(dummies) == spec["parameters"]
    state = {key: torch.empty(shape, device="meta") for key, shape in spec["keys"].items()}
    net.load_state_dict(state, assign=True)
    images = {key: value for key, value in state.items() if "conv3ds" not in key and "tempo_attns" not in key}
    missing, unexpected = net.load_state_dict(images, strict=False, assign=True)
    assert len(missing) == len(ours) - len(images)
    assert not unexpected


def test_networks_it_cannot_take_are_named() -> None:
    with pytest.raises(ValueError, match="UNet2DConditionModel has no transformers"):
        inflate(toy(down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, mid_block_type=None))
    with pytest.raises(ValueError, match="attention is 'time', expected one of text, frames, both"):
        inflate(toy(), attention="time")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got VideoTransformer, expected a Transformer2DModel"):
        inflate(inflate(toy()))


def test_a_network_that_is_refused_stays_as_it_was() -> None:
    net = toy(down_block_types=("CrossAttnDownBlock2D", "AttnDownBlock2D"))
    before = [type(module) for module in net.modules()]
    with pytest.raises(ValueError, match="got Attention, expected a Transformer2DModel"):
        inflate(net)
    assert [type(module) for module in net.modules()] == before
    assert all(p.requires_grad for p in net.parameters())
