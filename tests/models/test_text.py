"""Real text encoders of transformers, their weights random: prompts, captions, a subject's own encoder."""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from vfikit import checkpoints
from vfikit.files import InputError
from vfikit.models import build
from vfikit.models.text import encode_text
from vfikit.models.video_ldm import VideoLDMNet
from vfikit.recipe import show_subject
from vfikit.video.clip import write_clip

from ..test_recipes_cli import recipe
from .test_video_ldm import seeded
from .test_video_ldm_published import stable_diffusion
from .text_encoders import TOKENS, save_text_encoder
from .toys import LVDM, VIDEO_LDM

pytestmark = pytest.mark.slow
WIDTH = VIDEO_LDM.unet.text_width


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The original and one tuned to a subject, beside the image model tuned with it."""
    if not os.environ.get("VFIKIT_CI"):
        pytest.importorskip("transformers")
    folders = {name: tmp_path_factory.mktemp(name) for name in ("original", "tuned")}
    for seed, folder in enumerate(folders.values()):
        save_text_encoder(folder, WIDTH, seed)
    stable_diffusion(folders["tuned"])
    return folders


@pytest.fixture
def net(encoders: dict[str, Path]) -> VideoLDMNet:
    torch.manual_seed(0)
    return build(replace(VIDEO_LDM, text_encoder=str(encoders["original"]))).eval()


def test_words_become_hidden_states(encoders: dict[str, Path]) -> None:
    """As the model's own call gives them, filled or cut to its length; a part's folder does as well."""
    from transformers import CLIPTextModel

    like, place = torch.zeros(1, dtype=torch.bfloat16), encoders["original"]
    one, two, long = encode_text(str(place), ["a cat", "a dog", "a cat " * 9], torch.zeros(1))
    assert one.shape == two.shape == long.shape == (TOKENS, WIDTH)
    assert not torch.allclose(one, two)
    letter_a, cat, start, end = 26, 53, 54, 55
    tokens = torch.tensor([[start, letter_a, cat, end, end, end]])
    model = CLIPTextModel.from_pretrained(place / "text_encoder").eval()
    torch.testing.assert_close(one, model(tokens).last_hidden_state[0].detach())
    assert encode_text(str(place), ["a cat"], like).dtype == torch.bfloat16


def test_a_prompt_is_what_its_embeddings_are(net: VideoLDMNet, encoders: dict[str, Path]) -> None:
    embeds, nothing = (encode_text(str(encoders["original"]), [text], torch.zeros(1)) for text in ("a cat", ""))
    asked = {"num_frames": 2, "guidance_scale": 3.0}
    of_words = net.generate("a cat", **asked, generator=seeded())
    same = net.generate(prompt_embeds=embeds, negative_prompt_embeds=nothing, **asked, generator=seeded())
    assert torch.equal(of_words, same)
    assert not torch.allclose(of_words, net.generate("a dog", **asked, generator=seeded()))


def test_a_subject_gives_its_layers_and_its_encoder_to_space_alone(
    net: VideoLDMNet, encoders: dict[str, Path], tmp_path: Path
) -> None:
    original, tuned = encoders["original"], encoders["tuned"]
    in_time = {name: x.clone() for name, x in net.generator.state_dict().items() if ".spatial." not in name}
    in_time = {name: x for name, x in in_time.items() if ".attentions." in name}
    show_subject(net, tuned)
    unet, _ = stable_diffusion(tmp_path)  # the same weights
    ours = net.generator.unet.mid_block.attentions[0].spatial
    assert torch.equal(ours.proj_out.weight, unet.mid_block.attentions[0].proj_out.weight)
    assert all(torch.equal(net.generator.state_dict()[name], x) for name, x in in_time.items())
    texts = {
        name: encode_text(str(place), [text], torch.zeros(1))
        for place, kind in ((tuned, ""), (original, "temporal_"))
        for name, text in ((f"{kind}prompt_embeds", "a cat"), (f"{kind}negative_prompt_embeds", ""))
    }
    checkpoints.save(net, tmp_path / "net.safetensors")
    asked = {"num_frames": 2, "guidance_scale": 3.0}
    for model in (net, checkpoints.load(tmp_path / "net.safetensors")):
        made = model.generate("a cat", **asked, generator=seeded())
        assert torch.equal(made, net.generate(**texts, **asked, generator=seeded()))
    alone = {name: text for name, text in texts.items() if not name.startswith("temporal_")}
    assert not torch.allclose(made, net.generate(**alone, **asked, generator=seeded()))


def test_who_takes_no_subject_says_so(net: VideoLDMNet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text_encoder in it"):
        show_subject(net, tmp_path)
    with pytest.raises(ValueError, match="cannot take a subject"):
        show_subject(build("lvdm", "small"), tmp_path)


def test_captions_train_and_a_subject_is_shown_from_the_command_line(encoders: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    toy = build(VIDEO_LDM)
    for name, parameter in toy.named_parameters():
        if ".temporal.o_proj." in name:
            nn.init.zeros_(parameter)
    checkpoints.save(toy, tmp_path / "toy.safetensors")
    write_clip(iter(torch.rand(3, 3, 16, 16)), tmp_path / "clip.mp4", Fraction(8))
    (tmp_path / "list.csv").write_text("path,name\nclip.mp4,a cat\nclip.mp4,a cat\n")
    done = recipe(
        Path("recipes/train_video_ldm.py"),
        *("--init", "toy.safetensors", "--text-encoder", str(encoders["original"]), "--data", "list.csv"),
        *("--stage", "temporal", "--steps", "1", "--batch-size", "1", "--frames", "2", "--size", "16", "16"),
        *("--ema", "0", "--device", "cpu", "--out", "run"),
        folder=tmp_path,
    )
    assert done.code == 0, done.stderr
    trained = checkpoints.load(tmp_path / "run" / "model.safetensors")
    assert trained.config.text_encoder == str(encoders["original"])
    moved = [p.abs().max() > 0 for n, p in trained.generator.named_parameters() if ".temporal.o_proj." in n]
    assert moved
    assert all(moved), "the text had no part in it"
    done = recipe(
        Path("recipes/generate.py"),
        *("cat.mp4", "--model", "video-ldm", "--checkpoint", "run/model.safetensors", "--prompt", "a cat"),
        *("--subject", str(encoders["tuned"]), "--num-frames", "2", "--device", "cpu"),
        folder=tmp_path,
    )
    assert done.code == 0, done.stderr
    assert (tmp_path / "cat.mp4").stat().st_size > 0


def test_lvdm_trains_on_captions(encoders: dict[str, Path], tmp_path: Path) -> None:
    """Also validated by them; without them the text would have no part."""
    reads = replace(LVDM.short, attention="transformer", context_channels=WIDTH, scale_shift=False)
    model = build(
        replace(LVDM, short=reads, prediction=None, interpolation=None, text_encoder=str(encoders["original"]))
    )
    for module in (module for module in model.short.modules() if hasattr(module, "proj_out")):
        nn.init.normal_(module.proj_out.weight)  # else nothing is learned of the first step
    nn.init.normal_(model.short.out[-1].weight)
    checkpoints.save(model, tmp_path / "toy.safetensors")
    write_clip(iter(torch.rand(16, 3, 16, 16)), tmp_path / "clip.mp4", Fraction(8))
    (tmp_path / "list.csv").write_text("path,name\n" + "clip.mp4,a cat\n" * 11)  # two are held out
    done = recipe(
        Path("recipes/train_lvdm.py"),
        *("--init", "toy.safetensors", "--data", "list.csv", "--stage", "short", "--steps", "2", "--batch-size", "1"),
        *("--size", "8", "--ema", "0", "--validation-limit", "1", "--device", "cpu", "--out", "run"),
        folder=tmp_path,
    )
    assert done.code == 0, done.stderr
    after = checkpoints.load(tmp_path / "run" / "model.safetensors").state_dict()
    keys = [name for name in after if ".attn2.to_v." in name or ".attn2.v" in name]
    assert keys
    assert all(not torch.equal(after[name], model.state_dict()[name]) for name in keys)
