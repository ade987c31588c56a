"""LoRA's relatives: their sizes, their agreement with PEFT itself, and what their settings refuse."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from inlay.errors import ArtifactError, TargetError
from inlay.methods import (
    BOFT,
    C3A,
    HRA,
    IA3,
    OFT,
    BitFit,
    DeLoRA,
    FourierFT,
    GraLoRA,
    HiRA,
    LoHa,
    LoKr,
    Lora,
    MiSS,
    PVeRA,
    RandLoRA,
    RoAd,
    VBLoRA,
    VeRA,
    WaveFT,
    merge_all,
)
from inlay.methods.peft_layers import LayerMethod, PeftMethod
from tests.contracts.bases import Snapshot, outputs, perturb, tiny
from tests.contracts.family import FAMILY

RELATED = [method for methods in FAMILY.values() for method in methods]


def described(value: object) -> str:
    return f"{value.name} {value.model_dump(exclude_defaults=True)}" if isinstance(value, LayerMethod) else ""  # pyright: ignore[reportAttributeAccessIssue]


def split(number: int) -> tuple[int, int]:
    """Return the factors nearest to the square root."""
    low = max(divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0)
    return low, number // low


def loha(i: int, o: int, k: int, r: int, effective: bool) -> int:
    if effective and k > 1:
        return 2 * (r * o + r * i + r * r * k * k)
    return 2 * r * (o + i * k * k)


def lokr(i: int, o: int, k: int, r: int) -> int:
    (a, b), (c, d) = split(o), split(i)
    return a * c + (r * (b + d * k * k) if r < max(b, d) / 2 else b * d * k * k)


def pieces(i: int, o: int, r: int) -> int:
    bases = math.ceil(min(i, o) / r)
    return r * bases + bases * min(i, o)


FORMULAS: list[tuple[LayerMethod, Any]] = [
    (LoHa(rank=3), lambda i, o, k: loha(i, o, k, 3, effective=False)),
    (LoHa(rank=3, effective_conv2d=True), lambda i, o, k: loha(i, o, k, 3, effective=True)),
    (LoKr(rank=2), lambda i, o, k: lokr(i, o, k, 2)),
    (LoKr(rank=64), lambda i, o, k: lokr(i, o, k, 64)),
    (HiRA(rank=3), lambda i, o, k: 3 * (i * k * k + o)),
    (IA3(feedforward=()), lambda i, o, k: o),
    (IA3(feedforward=("to_q",)), lambda i, o, k: o),
    (OFT(oft_block_size=4), lambda i, o, k: i // 4 * 4 * 3 // 2),
    (BOFT(boft_block_size=4, boft_n_butterfly_factor=2), lambda i, o, k: 2 * i * 4 + o),
    (HRA(rank=4), lambda i, o, k: 4 * i),
    (VeRA(rank=7), lambda i, o, k: 7 + o),
    (PVeRA(rank=7), lambda i, o, k: 2 * 7 + o),
    (RandLoRA(rank=5), lambda i, o, k: pieces(i, o, 5)),
    (FourierFT(n_frequency=9), lambda i, o, k: 9),
    (WaveFT(n_frequency=9), lambda i, o, k: 9),
    (C3A(block_size=8), lambda i, o, k: i * o // 8),
    (GraLoRA(rank=4), lambda i, o, k: 4 * (i + o)),
    (GraLoRA(rank=4, gralora_k=4, hybrid_r=3), lambda i, o, k: 7 * (i + o)),
    (DeLoRA(rank=3), lambda i, o, k: 3 * (i + o) + 1),
    (MiSS(rank=4), lambda i, o, k: 4 * o),
    (RoAd(group_size=4), lambda i, o, k: o),
    (RoAd(group_size=4, variant="road_2"), lambda i, o, k: 2 * o),
    (RoAd(group_size=4, variant="road_4"), lambda i, o, k: 4 * o),
]


@pytest.mark.parametrize(("method", "formula"), FORMULAS, ids=described)
def test_every_layer_has_as_many_parameters_as_the_formula_says(method: LayerMethod, formula: Any):
    components = tiny()
    layers = dict(components["unet"].named_modules())
    name = "up_blocks.1.resnets.0.conv1" if method.wraps == "convolutional" else "proj_in"
    targets = ("to_q", "attn2.to_k", "ff.net.0.proj", "ff.net.2", *([name] if method.wraps != "linear" else []))
    if isinstance(method, IA3):
        targets = ("to_q", "attn2.to_k", name) if not method.feedforward else ("attn1.to_q",)
    attachment = method.model_copy(update={"targets": targets}).attach(components)
    counts: dict[str, int] = {}
    for key, parameter in attachment.parameters().items():
        found = max((layer for layer in layers if key.startswith(f"unet.{layer}.")), key=len)
        counts[found] = counts.get(found, 0) + parameter.numel()
    kinds = set()
    for found, count in counts.items():
        layer = layers[found]
        window = layer.kernel_size[0] if isinstance(layer, nn.Conv2d) else 1
        inputs, outputs = (
            (layer.in_channels, layer.out_channels)
            if isinstance(layer, nn.Conv2d)
            else (layer.in_features, layer.out_features)
        )
        assert count == formula(inputs, outputs, window), found
        kinds.add((type(layer), window))
    assert len(kinds) == (1 if method.wraps == "linear" or (isinstance(method, IA3) and method.feedforward) else 2)


def test_the_bank_of_vectors_is_shared_by_all_layers():
    method = VBLoRA(rank=2, num_vectors=7, vector_length=16, targets=("attn1.to_q", "attn1.to_k"))
    attachment = method.attach(tiny())
    bank = attachment.parameters()["unet.vblora_vector_bank"]
    assert bank.shape == (7, 16)
    sites = {name.rpartition(".")[0] for name in attachment.parameters()} - {"unet"}
    widths = [
        nn_layer.in_features for nn_layer in (tiny()["unet"].get_submodule(n.removeprefix("unet.")) for n in sites)
    ]
    logits = sum(2 * (width + width) // 16 * 7 for width in widths)
    assert sum(p.numel() for p in attachment.parameters().values()) == logits + 7 * 16


@pytest.mark.parametrize("method", [m for m in RELATED if isinstance(m, PeftMethod)], ids=described)
def test_peft_itself_computes_the_same_from_the_file(method: PeftMethod):
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    components = tiny()
    attachment = method.attach(components)
    perturb(attachment)
    expected, state = outputs(components), attachment.state()
    theirs = tiny()
    for part, settings in json.loads(attachment.metadata()["peft_config"]).items():
        config = PEFT_TYPE_TO_CONFIG_MAPPING[settings["peft_type"]](**settings)
        PEFT_TYPE_TO_TUNER_MAPPING[settings["peft_type"]](theirs[part], config, "default")
        for name, parameter in theirs[part].named_parameters():
            own = f"{part}.{name.replace('.default', '')}"
            if "vector_bank" in own:
                own = f"{part}.vblora_vector_bank"
            own = own.replace("text_encoder.encoder.", "text_encoder.text_model.encoder.")
            if own in state:
                parameter.data = state.pop(own)
        theirs[part].eval()
    assert all(name.endswith(".sizes") for name in state), "every tensor has found its place"
    torch.testing.assert_close(outputs(theirs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "pointwise"])
def test_a_butterfly_is_orthogonal_and_reaches_further_with_every_factor(kind: str):
    for factors, reach in ((1, 4), (2, 8), (3, 16)):
        torch.manual_seed(factors)
        layer = nn.Linear(32, 32, bias=False) if kind == "linear" else nn.Conv2d(32, 32, 1, bias=False)
        layer.weight.data = torch.eye(32).reshape(layer.weight.shape)
        components: Any = {"unet": nn.Sequential(layer).requires_grad_(False)}
        method = BOFT(targets="everything", boft_block_size=4, boft_n_butterfly_factor=factors)
        attachment = method.attach(components)
        with torch.no_grad():
            attachment.parameters()["unet.0.boft_R"].normal_()
        attachment.merge()
        rotation = layer.weight.detach().reshape(32, 32)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(32), atol=1e-5, rtol=0)
        assert torch.all((rotation.abs() > 1e-7).sum(dim=1) == reach)


def test_reflections_are_those_of_peft():
    from peft import HRAConfig, inject_adapter_in_model

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 5)).requires_grad_(False)
    x = torch.randn(7, 12)
    components: Any = {"unet": net}
    attachment = HRA(rank=4, targets="everything").attach(components)
    perturb(attachment)
    ours, u = net(x), attachment.state()["unet.0.hra_u"].clone()
    attachment.detach()
    theirs: Any = inject_adapter_in_model(HRAConfig(r=4, target_modules=["0"]), net)
    theirs[0].hra_u["default"].data = u
    torch.testing.assert_close(theirs(x), ours)


def test_oft_rotates_and_leaves_lengths():
    torch.manual_seed(0)
    components: Any = {"unet": nn.Sequential(nn.Linear(8, 8, bias=False)).requires_grad_(False)}
    net = components["unet"]
    net[0].weight.data = torch.eye(8)
    attachment = OFT(targets="everything", oft_block_size=4).attach(components)
    perturb(attachment)
    x = torch.randn(6, 8)
    torch.testing.assert_close(net(x).norm(dim=1), x.norm(dim=1))
    assert not torch.allclose(net(x), x, atol=0.1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [(VeRA(targets="everything", rank=2), "linear"), (OFT(targets="everything", oft_block_size=4), "pointwise")],
    ids=described,
)
def test_presets_mean_the_layers_that_a_method_can_wrap(method: LayerMethod, expected: str):
    components = tiny()
    before = dict(components["unet"].named_modules())
    names = {
        name.split(".vera_")[0].split(".oft_")[0].removeprefix("unet.")
        for name in method.attach(components).parameters()
    }
    assert names == {
        name
        for name, layer in before.items()
        if isinstance(layer, nn.Linear)
        or (expected == "pointwise" and isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    }


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            VeRA(targets=("to_q", "conv1")),
            "none of the denoiser's linear layers ends in 'conv1'; linear layers end in: ",
        ),
        (HRA(targets=r".*conv\d"), "the whole name of one of its linear layers and 1 x 1 convolutions, such as"),
        (OFT(oft_block_size=24), r"oft_block_size=24 does not divide the 32 inputs of .*: 1, 2, 4, 8, 16, 32$"),
        (BOFT(boft_n_butterfly_factor=4), r"boft_block_size \* 2 \*\* .*=64 does not divide the 32 inputs"),
        (C3A(block_size=5), "block_size=5 does not divide the 32 inputs"),
        (RoAd(group_size=6), "group_size=6 does not divide the 32 outputs"),
        (GraLoRA(rank=6, gralora_k=3), "gralora_k=3 does not divide the 32 inputs"),
        (VBLoRA(vector_length=12), "vector_length=12 does not divide the 32 inputs"),
        (FourierFT(n_frequency=2000), "n_frequency=2000 is more than the 1,024 weights of"),
        (MiSS(rank=40), "rank=40 is more than the 32 inputs of"),
    ],
    ids=described,
)
def test_what_does_not_fit_the_layers_is_refused_and_the_base_stays(method: LayerMethod, message: str):
    components = tiny()
    snapshot = Snapshot(components)
    with pytest.raises(TargetError, match=message):
        method.attach(components)
    snapshot.assert_same(components)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (HRA, {"rank": 3}, "3 is odd, and reflections begin in pairs"),
        (RoAd, {"group_size": 7}, "7 is odd, and outputs are rotated in pairs"),
        (BOFT, {"boft_block_size": 3}, "boft_block_size=3 is odd"),
        (GraLoRA, {"rank": 3}, "rank=3 is no multiple of gralora_k=2"),
        (VBLoRA, {"topk": 91}, "topk=91 vectors of a bank of num_vectors=90"),
        (Lora, {"init": "pissa", "dora": True}, "init=pissa takes A and B out of the weight, which dora measures"),
        (WaveFT, {"wavelet_family": "haar"}, "Input should be 'db1'"),
    ],
)
def test_impossible_settings_are_refused(kind: Any, given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        kind(**given)


def test_coefficients_do_not_fit_layers_of_another_size():
    small: Any = {"unet": nn.Sequential(nn.Linear(4, 6)).requires_grad_(False)}
    large: Any = {"unet": nn.Sequential(nn.Linear(4, 8)).requires_grad_(False)}
    method = FourierFT(n_frequency=5, targets="everything")
    state, other = method.attach(small).state(), method.attach(large)
    before = {name: tensor.clone() for name, tensor in other.state().items()}
    with pytest.raises(ArtifactError, match=r"unet\.0\.sizes: 4 inputs and 6 outputs, here 4 and 8"):
        other.load(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state().items())


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_lora_out_of_the_weight_begins_at_its_principal_part(init: Any):
    torch.manual_seed(0)
    for layer in (nn.Linear(12, 9), nn.Conv2d(3, 9, 2)):
        components: Any = {"unet": nn.Sequential(layer).requires_grad_(False)}
        attachment = Lora(rank=3, alpha=6, init=init, targets="everything").attach(components)
        parameters = attachment.parameters()
        a, b = (parameters[f"unet.0.lora_{kind}.weight"].detach().flatten(1) for kind in "AB")
        weight = layer.weight.flatten(1)
        if init == "pissa":
            u, s, vh = torch.linalg.svd(weight, full_matrices=False)
            expected = u[:, :3] * s[:3] @ vh[:3]  # arXiv 2404.02948, equations 2 to 4
        else:
            q, r = torch.linalg.qr(weight)
            expected = q[:, :3] @ r[:3]
        torch.testing.assert_close(2 * b @ a, expected)
        state = attachment.state()
        assert state["unet.0.lora_A.weight"].shape[0] == 6
        down, up = (state[f"unet.0.lora_{kind}.weight"].flatten(1) for kind in "AB")
        torch.testing.assert_close(up @ down, torch.zeros_like(weight), atol=1e-6, rtol=0)


def test_a_rank_beyond_the_weight_adds_nothing():
    components: Any = {"unet": nn.Sequential(nn.Linear(3, 2)).requires_grad_(False)}
    x = torch.randn(4, 3)
    before = components["unet"](x)
    attachment = Lora(rank=5, init="pissa", targets="everything").attach(components)
    assert torch.equal(components["unet"](x), before)
    assert attachment.parameters()["unet.0.lora_A.weight"][2:].count_nonzero() == 0


class TwoLayers(nn.Module):
    """A net that methods can put a child into."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.silu(self.first(x)))


def two_layers() -> Any:
    torch.manual_seed(0)
    return {"unet": TwoLayers().requires_grad_(False)}


@pytest.mark.parametrize(
    "methods",
    [
        (Lora(rank=2, targets="everything"), OFT(oft_block_size=4, targets="everything"), VeRA(targets="everything")),
        (RoAd(group_size=4, targets="everything"), LoHa(rank=2, targets="everything"), HRA(targets="everything")),
        (
            HiRA(rank=2, targets="everything"),
            Lora(rank=2, targets="everything"),
            BOFT(boft_block_size=4, targets="everything"),
        ),
        (BitFit(scope="all"), IA3(targets="everything", feedforward=()), BitFit(scope="all")),
    ],
    ids=lambda methods: " ".join(method.name for method in methods),
)
def test_what_shares_a_layer_merges_in_an_order_that_keeps_the_outputs(methods: Any):
    components = two_layers()
    attachments = [method.attach(components) for method in methods]
    for seed, attachment in enumerate(attachments):
        perturb(attachment, seed)
    x = torch.randn(5, 8)
    expected = components["unet"](x)
    merge_all(list(reversed(attachments)))
    torch.testing.assert_close(components["unet"](x), expected, atol=2e-5, rtol=1e-5)
    assert type(components["unet"].first) is nn.Linear


@pytest.mark.parametrize("measuring", [Lora(rank=2, dora=True, targets="everything"), HiRA(targets="everything")])
def test_one_that_measures_the_weights_above_another_is_refused(measuring: Any):
    components = two_layers()
    attachments = [Lora(rank=2, targets="everything").attach(components), measuring.attach(components)]
    for attachment in attachments:
        perturb(attachment)
    x = torch.randn(5, 8)
    expected = components["unet"](x)
    with pytest.raises(TargetError, match=r"unet\.first carries"):
        merge_all(attachments)
    assert torch.equal(components["unet"](x), expected)
    attachments[0].detach()
    attachments[1].merge()


def test_a_middle_one_is_taken_out_and_the_others_stay():
    components = two_layers()
    methods = [
        Lora(rank=2, targets="everything"),
        OFT(oft_block_size=4, targets="everything"),
        MiSS(rank=2, targets="everything"),
    ]
    attachments = [method.attach(components) for method in methods]
    for attachment in attachments:
        perturb(attachment)
    x = torch.randn(5, 8)
    with attachments[1].disabled():
        expected = components["unet"](x)
    attachments[1].detach()
    assert torch.equal(components["unet"](x), expected)


def test_the_mean_is_used_after_training_and_a_sample_in_training():
    components = tiny()
    perturb(PVeRA(rank=8).attach(components))
    assert torch.equal(outputs(components), outputs(components))
    components["unet"].train()
    assert not torch.equal(outputs(components), outputs(components))
