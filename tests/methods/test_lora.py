"""LoRA: its arithmetic by hand, where it sits, its size, and its files in plain diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.errors import TargetError
from inlay.methods import Lora
from tests.contracts.bases import Snapshot, outputs, perturb, tiny
from tests.tiny import make_tiny_pipeline


def three_layers() -> dict[str, Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.Linear(4, 6, bias=False), nn.SiLU()), nn.Linear(6, 3))
    return {"unet": net.requires_grad_(False).eval()}


def pair(attachment: Any, layer: str) -> tuple[Tensor, Tensor]:
    state = attachment.state()
    return state[f"{layer}.lora_A.weight"], state[f"{layer}.lora_B.weight"]


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        (Lora(rank=4, targets="everything"), 1.0),
        (Lora(rank=4, alpha=2, targets="everything"), 0.5),
        (Lora(rank=4, alpha=2, targets="everything", rslora=True), 1.0),
        (Lora(rank=1, alpha=3, targets="everything", rslora=True), 3.0),
    ],
)
def test_the_update_of_a_linear_layer_is_scaled_b_times_a(method: Lora, scale: float):
    # arXiv 2106.09685, equation 3; arXiv 2312.03732, equation 4 for alpha / sqrt(rank)
    components = three_layers()
    attachment = method.attach(components)
    perturb(attachment)
    net, x = components["unet"], torch.randn(7, 5)
    hidden = x
    for name, layer in (("0", net[0]), ("1.0", net[1][0]), ("2", net[2])):
        down, up = pair(attachment, f"unet.{name}")
        hidden = layer.get_base_layer()(hidden) + scale * hidden @ down.T @ up.T
        hidden = nn.functional.silu(hidden) if name == "1.0" else hidden
    torch.testing.assert_close(net(x), hidden)


def test_the_update_of_a_convolution_is_the_product_over_its_window():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    components = {"unet": nn.Sequential(conv).requires_grad_(False)}
    attachment = Lora(rank=2, alpha=3, targets="everything").attach(components)
    perturb(attachment)
    down, up = pair(attachment, "unet.0")
    delta = 1.5 * torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    x = torch.randn(2, 3, 8, 8)
    expected = nn.functional.conv2d(x, conv.weight + delta, conv.bias, stride=2, padding=1)
    torch.testing.assert_close(components["unet"](x), expected)


@pytest.mark.parametrize("kernel", [None, 3])
def test_dora_gives_each_output_its_magnitude(kernel: int | None):
    # arXiv 2402.09353, equation 5: W' = m (W + B A) / ||W + B A||, a norm for each output
    torch.manual_seed(0)
    layer = nn.Linear(6, 4) if kernel is None else nn.Conv2d(6, 4, kernel)
    components = {"unet": nn.Sequential(layer).requires_grad_(False)}
    attachment = Lora(rank=2, dora=True, targets="everything").attach(components)
    norms = layer.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(attachment.state()["unet.0.lora_magnitude_vector"].flatten(), norms)
    perturb(attachment)
    down, up = pair(attachment, "unet.0")
    moved = layer.weight + (up.flatten(1) @ down.flatten(1)).reshape(layer.weight.shape)
    direction = moved / moved.flatten(1).norm(dim=1).reshape(-1, *[1] * (moved.dim() - 1))
    magnitude = attachment.state()["unet.0.lora_magnitude_vector"].flatten()
    tuned = magnitude.reshape(-1, *[1] * (moved.dim() - 1)) * direction
    x = torch.randn(3, 6) if kernel is None else torch.randn(3, 6, 5, 5)
    function = nn.functional.linear if kernel is None else nn.functional.conv2d
    torch.testing.assert_close(components["unet"](x), function(x, tuned, layer.bias))


def test_a_starts_random_and_b_at_zero():
    attachment = Lora(rank=2).attach(tiny())
    for name, value in attachment.state().items():
        assert torch.count_nonzero(value) == (value.numel() if ".lora_A." in name else 0)


def test_dropout_acts_in_training_only():
    components = tiny()
    attachment = Lora(rank=4, dropout=0.5).attach(components)
    perturb(attachment)
    assert torch.equal(outputs(components), outputs(components))
    components["unet"].train()
    assert not torch.equal(outputs(components), outputs(components))


def test_a_name_means_one_layer_even_where_others_end_in_it():
    attachment = Lora(targets="[02]").attach(three_layers())
    assert {name.split(".lora")[0] for name in attachment.parameters()} == {"unet.0", "unet.2"}


def sites(targets: Any) -> set[str]:
    return {name.split(".lora_")[0].removeprefix("unet.") for name in Lora(targets=targets).attach(tiny()).parameters()}


def test_presets_take_the_layers_that_they_name():
    modules = dict(tiny()["unet"].named_modules())
    assert sites("everything") == {n for n, m in modules.items() if isinstance(m, (nn.Linear, nn.Conv2d))}
    attention = {n for n in sites("everything") if ".attn1." in n or ".attn2." in n}
    assert sites("attention") == attention
    assert len(attention) == 4 * 8  # four transformer blocks with queries, keys, values and output, twice
    assert sites("cross-attention") == {n for n in attention if ".attn2." in n}
    assert sites("cross-attention-qk") == {n for n in attention if n.endswith((".attn2.to_q", ".attn2.to_k"))}
    assert sites("transformer") == {n for n in sites("everything") if ".attentions." in n}


def test_lists_take_whole_endings_and_expressions_whole_names():
    assert sites(["to_q"]) == {n for n in sites("attention") if n.endswith(".to_q")}
    assert sites(["conv_in", "attn2.to_k"]) == {"conv_in", *(n for n in sites("attention") if n.endswith("attn2.to_k"))}
    assert sites(r"mid_block\..*to_v") == {f"mid_block.attentions.0.transformer_blocks.0.attn{n}.to_v" for n in (1, 2)}


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("dora", [False, True])
def test_the_count_is_rank_times_inputs_and_outputs(rank: int, dora: bool):
    components = tiny()
    expected = 0
    for module in components["unet"].modules():
        if isinstance(module, nn.Linear):
            expected += rank * (module.in_features + module.out_features) + dora * module.out_features
        elif isinstance(module, nn.Conv2d):
            window = module.kernel_size[0] * module.kernel_size[1]
            expected += rank * (module.in_channels * window + module.out_channels) + dora * module.out_channels
    attachment = Lora(rank=rank, dora=dora, targets="everything").attach(components)
    assert sum(parameter.numel() for parameter in attachment.parameters().values()) == expected


@pytest.mark.parametrize(
    ("method", "count"),
    [
        (Lora(rank=4), 797_184),  # what diffusers' text-to-image LoRA example trains at its default rank
        (Lora(rank=4, targets="cross-attention-qk"), 198_912),  # the comparative study's LoRA on queries and keys
        # 12 layers of 4 projections of 768: 4 (768 + 768) each
        (Lora(rank=4, targets="cross-attention-qk", text_encoder=True), 198_912 + 12 * 4 * 4 * (768 + 768)),
        (
            Lora(rank=4, targets="cross-attention-qk", text_encoder="transformer"),
            198_912 + 12 * 4 * (4 * (768 + 768) + 2 * (768 + 3072)),
        ),
    ],
)
def test_published_sizes_on_stable_diffusion_1(method: Lora, count: int):
    settings = BaseSettings(model="sd-v1.4")
    parts = read_architecture(settings, locate(settings, weights=False)).meta()
    assert sum(parameter.numel() for parameter in method.attach(parts).parameters().values()) == count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 0}, "greater than or equal to 1"),
        ({"alpha": 0}, "greater than 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"targets": []}, r"targets is empty; give a preset \(attention"),
        ({"targets": ""}, "targets is empty"),
        ({"targets": ["to_q", ""]}, "targets is empty"),
        ({"targets": "attn[2"}, r"'attn\[2' is no regular expression"),
        ({"rang": 4}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Lora(**given)


def test_a_preset_without_layers_is_refused():
    components = three_layers()
    snapshot = Snapshot(components)
    with pytest.raises(TargetError, match=r"method.targets=attention: the denoiser has no such layers; .* 0, 1.0, 2"):
        Lora().attach(components)
    snapshot.assert_same(components)


def test_a_text_encoder_of_another_kind_is_refused_before_anything_is_wrapped():
    components = {**tiny(), "text_encoder": nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)}
    snapshot = Snapshot(components)
    with pytest.raises(TargetError, match="text encoder has no CLIP attention layers"):
        Lora(text_encoder=True).attach(components)
    snapshot.assert_same(components)


def test_adapters_that_diffusers_loaded_stay(tmp_path: Path):
    components = tiny()
    attachment = Lora(rank=2, targets=["to_v"]).attach(components)
    perturb(attachment)
    folder = write(attachment, tmp_path)
    pipe = diffusers_pipeline(tmp_path / "base")
    pipe.load_lora_weights(folder, adapter_name="theirs")
    parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    before = outputs(parts)
    ours = Lora(rank=2, targets="attention").attach(parts)
    assert torch.equal(outputs(parts), before)
    assert list(pipe.unet.peft_config) == ["theirs"]
    perturb(ours, seed=9)
    assert not torch.allclose(outputs(parts), before)
    ours.detach()
    assert torch.equal(outputs(parts), before)


def write(attachment: Any, directory: Path) -> Path:
    save_file(attachment.state(), directory / "pytorch_lora_weights.safetensors", attachment.metadata())
    return directory


def diffusers_pipeline(directory: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(make_tiny_pipeline(directory), safety_checker=None)


@pytest.mark.parametrize(
    "method",
    [
        Lora(rank=2),
        Lora(rank=4, alpha=1.5),
        Lora(rank=4, alpha=2, rslora=True),
        Lora(rank=2, alpha=3, dora=True),
        Lora(rank=2, alpha=4, targets="everything"),
        Lora(rank=2, alpha=4, targets="everything", dora=True),
        Lora(rank=2, alpha=4, targets="transformer", text_encoder="transformer"),
        Lora(rank=2, alpha=4, targets="cross-attention-qk", text_encoder=True, rslora=True),
        Lora(rank=2, alpha=4, text_encoder=True, dora=True),
        Lora(rank=2, alpha=4, dropout=0.3, targets=r"mid_block.*attn2\.to_k"),
        Lora(rank=2, alpha=3, init="pissa", targets="everything"),
        Lora(rank=3, alpha=3, init="olora", rslora=True, text_encoder=True),
    ],
    ids=lambda method: " ".join(f"{k}={v}" for k, v in method.model_dump(exclude_defaults=True).items()),
)
def test_plain_diffusers_reads_the_file_to_the_same_outputs(method: Lora, tmp_path: Path):
    components = tiny()
    base = outputs(components)
    attachment = method.attach(components)
    perturb(attachment)
    folder = write(attachment, tmp_path)
    pipe = diffusers_pipeline(tmp_path / "base")
    theirs = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    assert torch.equal(outputs(theirs), base)
    pipe.load_lora_weights(folder)
    # PiSSA's file is the difference of two low-rank products: what both share cancels but for rounding.
    tolerance = 1e-6 if method.init in ("default", "gaussian") else 1e-4
    torch.testing.assert_close(outputs(theirs), outputs(components), atol=tolerance, rtol=tolerance)
    assert (outputs(theirs) - base).abs().max() > 1e-3


def test_the_metadata_states_rank_alpha_and_layers_by_part():
    attachment = Lora(rank=2, alpha=3, dropout=0.5, text_encoder=True).attach(tiny())
    settings = json.loads(attachment.metadata()["lora_adapter_metadata"])
    assert settings["unet.r"] == settings["text_encoder.r"] == 2
    assert settings["unet.lora_alpha"] == 3
    assert settings["unet.lora_dropout"] == 0  # diffusers would apply it to the pictures that it draws
    names = {name.split(".lora_")[0] for name in attachment.parameters() if name.startswith("unet.")}
    assert {f"unet.{name}" for name in settings["unet.target_modules"]} == names


def test_names_in_files_are_the_published_ones():
    names = list(Lora(text_encoder=True, dora=True).attach(tiny()).parameters())
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_magnitude_vector" in names
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight" in names
    assert "text_encoder.text_model.encoder.layers.1.self_attn.out_proj.lora_A.weight" in names
