"""Costs against closed forms, against torch's own bookkeeping, and against published counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from inlay.base.architecture import read_architecture
from inlay.base.locate import locate
from inlay.base.settings import BaseSettings
from inlay.base.stable_diffusion import StableDiffusion
from inlay.methods import Full, Lora
from inlay.run import cost as counting
from inlay.run.cost import Arithmetic, forward_cost, step_cost

PLAIN = Arithmetic(None, accelerator=False)
GIGA = 1e9


@pytest.fixture(scope="module")
def architecture():
    settings = BaseSettings(model="sd-v1.4")
    return read_architecture(settings, locate(settings, weights=False))


def meta_base(architecture):
    return StableDiffusion(architecture, architecture.meta(), None, "sd-v1.4")


def step(base, attachment, latents=(1, 4, 64, 64), arithmetic=PLAIN, checkpointing=False):
    return step_cost(base, attachment.parameters().values(), latents, arithmetic, checkpointing)


# GFLOP an image of Stable Diffusion 1.x at 512 pixels, as counted with torch's counter on the published scripts.
@pytest.mark.parametrize(
    ("method", "checkpointing", "total"),
    [
        (Lora(rank=4), False, 1714),
        pytest.param(Lora(rank=4), True, 2303, marks=pytest.mark.slow),
        (Full(), False, 2407),
    ],
)
def test_flops_of_a_step_of_stable_diffusion(architecture, method, checkpointing, total):
    base = meta_base(architecture)
    cost = step(base, method.attach(base.components), checkpointing=checkpointing)
    assert cost.forward_flops / GIGA == pytest.approx(803, rel=2e-3)
    assert (cost.forward_flops + cost.backward_flops) / GIGA == pytest.approx(total, rel=5e-4)


def test_flops_of_encoding(architecture):
    base = meta_base(architecture)
    pictures = forward_cost(base, PLAIN, lambda: base.vae.encode(torch.empty(1, 3, 512, 512)))
    text = forward_cost(base, PLAIN, lambda: base.text_encoder(torch.zeros(1, 77, dtype=torch.int64))[0])
    assert round(pictures.flops / GIGA) == 1117
    assert round(text.flops / GIGA) == 13
    assert text.result.shape == (1, 77, 768)


def small(**changes):
    """A base whose denoiser has one level, so that steps take no time."""
    settings = BaseSettings(model="sd-v1.4")
    denoiser = {
        "sample_size": 16,
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        **changes,
    }
    return meta_base(read_architecture(settings, locate(settings, weights=False), denoiser))


def test_memory_is_what_real_tensors_take():
    """The same step with real tensors: what autograd saves, each storage once, weights apart."""
    base = small()
    attachment = Lora(rank=2).attach(base.components)
    cost = step(base, attachment, (2, 4, 16, 16))
    unet = base.unet.to_empty(device="cpu")
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor([3, 7]), torch.randn(2, 77, 768))
    apart = {tensor.untyped_storage().data_ptr() for tensor in (*inputs, *unet.parameters(), *unet.buffers())}
    saved = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in apart:
            saved[tensor.untyped_storage().data_ptr()] = tensor  # kept, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        unet.train()(*inputs, return_dict=False)[0].square().sum().backward()
    total = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert cost.kept_bytes == pytest.approx(total, rel=0.02)


def test_memory_of_one_batch_grows_with_the_batch():
    base = small()
    attachment = Lora(rank=2).attach(base.components)
    one, four = (step(base, attachment, (count, 4, 16, 16)) for count in (1, 4))
    assert four.forward_flops == 4 * one.forward_flops
    assert four.kept_bytes == pytest.approx(4 * one.kept_bytes, rel=0.1)
    assert four.kept_bytes <= four.activations_bytes <= four.peak_bytes


def test_gradients_come_while_activations_go():
    base = small()
    attachment = Full().attach(base.components)
    gradients = sum(parameter.nbytes for parameter in attachment.parameters().values())
    cost = step(base, attachment, (1, 4, 16, 16))
    assert max(gradients, cost.activations_bytes) <= cost.peak_bytes < gradients + cost.activations_bytes


def test_checkpointing_trades_memory_for_arithmetic():
    base = small(layers_per_block=2)
    attachment = Lora(rank=2).attach(base.components)
    without, within = (step(base, attachment, (4, 4, 16, 16), checkpointing=value) for value in (False, True))
    assert within.kept_bytes < without.kept_bytes / 2
    assert within.activations_bytes < without.activations_bytes
    assert without.backward_flops < within.backward_flops <= without.backward_flops + without.forward_flops


def test_counting_leaves_nothing_behind():
    base = small()
    attachment = Full().attach(base.components)
    first, second = (step(base, attachment, (1, 4, 16, 16), checkpointing=True) for _ in range(2))
    assert first == second
    assert not base.unet.training
    assert not base.unet.is_gradient_checkpointing
    assert all(parameter.grad is None for parameter in base.unet.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_is_remembered_of_operations_changes_no_count(monkeypatch, checkpointing):
    """Torch finds out every shape, or each once: the same counts, also where a result shares its argument's memory."""
    base = small()
    attachment = Lora(rank=2).attach(base.components)
    remembered = [step(base, attachment, (2, 4, 16, 16), checkpointing=checkpointing) for _ in range(2)]
    calls = []

    def found_out(func, args, kwargs):
        calls.append(func)
        return func(*args, **kwargs)

    monkeypatch.setattr(counting, "_result", found_out)
    assert [step(base, attachment, (2, 4, 16, 16), checkpointing=checkpointing)] * 2 == remembered
    assert len(calls) > 1000


def test_only_new_tensors_are_remembered(monkeypatch):
    monkeypatch.setattr(counting, "_MADE", {})
    aten, x = torch.ops.aten, torch.empty(2, 3, device="meta")
    first, second = (counting._result(aten.native_layer_norm.default, (x, [3], None, None, 1e-5), {}) for _ in range(2))
    assert len(counting._MADE) == 1
    for one, other in zip(first, second, strict=True):
        assert (one.shape, one.stride(), one.dtype, one.is_meta) == (other.shape, other.stride(), other.dtype, True)
        assert one.untyped_storage()._cdata != other.untyped_storage()._cdata
    for function in (aten.view.default, aten._unsafe_view.default):
        viewed = counting._result(function, (x, [6]), {})
        assert viewed.untyped_storage()._cdata == x.untyped_storage()._cdata
    assert len(counting._MADE) == 1
    transposed = counting._result(aten.relu.default, (x.t(),), {})
    assert transposed.stride() == counting._result(aten.relu.default, (x.t(),), {}).stride()
    assert len(counting._MADE) == 2


def test_only_what_a_trained_layer_needs_is_computed_backward():
    base = small()
    last = Full(parameters=r"^conv_out\.").attach(base.components)
    cost = step(base, last, (1, 4, 16, 16))
    assert cost.backward_flops == 2 * 16 * 16 * 4 * 32 * 9  # the gradient of one 3 x 3 convolution's weight
    assert cost.backward_flops < cost.forward_flops / 100


def test_attention_is_counted_as_its_two_products():
    base = small()

    def attend():
        query, key = torch.empty(2, 4, 100, 8), torch.empty(2, 4, 30, 8)
        return torch.nn.functional.scaled_dot_product_attention(query, key, key)

    cost = forward_cost(base, PLAIN, attend)
    assert cost.flops == 2 * 2 * (2 * 4 * 100 * 30 * 8)
    assert cost.peak_bytes < 4 * (2 * 4) * (100 * 8 + 2 * 30 * 8 + 2 * 100 * 8 + 100 * 30)  # no attention matrix


def test_lower_precision_saves_activations_and_keeps_trained_weights():
    sizes = {}
    for name, arithmetic in {
        "fp32": PLAIN,
        "cpu": Arithmetic(torch.bfloat16, accelerator=False),
        "gpu": Arithmetic(torch.bfloat16, accelerator=True),
    }.items():
        base = small()
        attachment = Lora(rank=2).attach(base.components)
        if arithmetic.lowered is not None:
            base.cast_frozen(arithmetic.lowered)
        sizes[name] = step(base, attachment, (4, 4, 16, 16), arithmetic)
        assert {parameter.dtype for parameter in attachment.parameters().values()} == {torch.float32}
    assert sizes["cpu"].kept_bytes < 0.8 * sizes["fp32"].kept_bytes
    assert sizes["cpu"].kept_bytes < sizes["gpu"].kept_bytes < sizes["fp32"].kept_bytes  # norms stay in float32 there
    assert len({(size.forward_flops, size.backward_flops) for size in sizes.values()}) == 1


@pytest.mark.parametrize("integers", [False, True])
def test_frozen_convolutions_keep_nothing_of_large_inputs(integers):
    sizes = []
    for light in (False, True):
        base = small()
        attachment = Lora(rank=2).attach(base.components)
        if light:
            base.lighten(integers)
        sizes.append(step(base, attachment, (2, 4, 64, 64)))
    heavy, light = sizes
    assert light.kept_bytes < 0.93 * heavy.kept_bytes
    assert (light.forward_flops, light.backward_flops) == (heavy.forward_flops, heavy.backward_flops)


def test_autocast_is_emulated_as_it_is():
    """A real step under torch.autocast saves as many bytes as the emulation counts, and dtypes agree."""
    base = small()
    attachment = Lora(rank=2).attach(base.components)
    base.cast_frozen(torch.bfloat16)
    cost = step(base, attachment, (2, 4, 16, 16), Arithmetic(torch.bfloat16, accelerator=False))
    unet = base.unet.to_empty(device="cpu")
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    inputs = (
        torch.randn(2, 4, 16, 16, dtype=torch.bfloat16),
        torch.tensor([3, 7]),
        torch.randn(2, 77, 768, dtype=torch.bfloat16),
    )
    apart = {tensor.untyped_storage().data_ptr() for tensor in (*inputs, *unet.parameters(), *unet.buffers())}
    saved = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in apart:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        FlopCounterMode(display=False) as flops,
    ):
        unet.train()(*inputs, return_dict=False)[0]
    total = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert cost.kept_bytes == pytest.approx(total, rel=0.05)
    assert flops.get_total_flops() <= cost.forward_flops  # torch's counter knows no fused attention on CPUs


def test_a_trained_text_encoder_is_part_of_the_step():
    base = small()
    without = step(base, Lora(rank=2).attach(base.components), (1, 4, 16, 16))
    base = small()
    attachment = Lora(rank=2, text_encoder=True).attach(base.components)
    within = step(base, attachment, (1, 4, 16, 16))
    assert (within.forward_flops - without.forward_flops) / GIGA == pytest.approx(13.3, rel=0.02)
    assert within.backward_flops > without.backward_flops
    assert not base.text_encoder.training
