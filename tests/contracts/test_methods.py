"""What every tuning method promises alone; in stacks: ``test_stacks.py``.

Which settings are tried is in ``variants.py``.
"""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from inlay.base.frozen import becomes_integers, lighten, to_int8
from inlay.errors import ArtifactError, TargetError
from inlay.methods import METHODS, Attachment, Lora, Method, TextualInversion
from tests.contracts.bases import (
    MERGE_TOLERANCE,
    Components,
    Snapshot,
    another,
    attach,
    outputs,
    perturb,
    saved,
    tiny,
    train,
)
from tests.contracts.family import FAMILY
from tests.contracts.variants import ADAPTERS, EVERY, QUICK, REFUSED, STACKED, VARIANTS, described

every_method = pytest.mark.parametrize("method", EVERY, ids=described)
SINGLE = {"boft", "c3a", "fourierft", "hra", "tlora", "waveft"}
"""Methods that compute in float32 whatever they are given."""


def quick_first(methods: list[Method]) -> pytest.MarkDecorator:
    """Try the first variant of each method at every change, the others in `make check-slow`."""
    marked = [pytest.param(one, marks=[] if one in QUICK else pytest.mark.slow, id=described(one)) for one in methods]
    return pytest.mark.parametrize("method", marked)


def test_every_method_of_the_table_is_held_to_the_contract():
    assert VARIANTS.keys() == METHODS.keys()
    assert all(type(method) is METHODS[name] for name, methods in VARIANTS.items() for method in methods)


@every_method
def test_the_description_survives_the_run_file(method: Method):
    assert type(method).model_validate_json(method.model_dump_json()) == method
    assert hash(method) == hash(method.model_copy())
    assert method.learning_rate > 0


@every_method
def test_step_0_is_the_base_and_detaching_brings_it_back(method: Method):
    components = tiny()
    before, snapshot = outputs(components), Snapshot(components)
    attachment = attach(method, components)
    assert torch.equal(outputs(components), before) == method.starts_at_base
    perturb(attachment)
    assert not torch.equal(outputs(components), before)
    attachment.detach()
    snapshot.assert_same(components)
    assert torch.equal(outputs(components), before)
    assert attachment.parameters() == {}


@every_method
def test_attaching_leaves_the_training_flags_of_the_base(method: Method):
    components = tiny()
    components["unet"].train()
    components["unet"].mid_block.eval()
    flags = {id(module): module.training for module in components["unet"].modules()}
    attach(method, components)
    assert all(flags.get(id(module), module.training) == module.training for module in components["unet"].modules())
    assert not any(module.training for module in components["unet"].mid_block.modules())
    assert not any(module.training for module in components["text_encoder"].modules())


@every_method
def test_only_owned_parameters_receive_gradients_and_move(method: Method):
    components = tiny()
    buffers = [(buffer, buffer.clone()) for part in components.values() for buffer in part.buffers()]
    assert buffers
    attachment = attach(method, components)
    owned = {id(parameter) for parameter in attachment.parameters().values()}
    everything = {id(p): (p, p.detach().clone()) for part in components.values() for p in part.parameters()}
    outputs(components).square().mean().backward()
    for identity, (parameter, _) in everything.items():
        assert (parameter.grad is not None) == (identity in owned)
        parameter.grad = None
    train(components, [attachment])
    for identity, (parameter, copied) in everything.items():
        assert torch.equal(parameter, copied) == (identity not in owned)
    assert all(torch.equal(buffer, copied) for buffer, copied in buffers)


@every_method
def test_it_owns_float32_parameters_of_the_parts_that_it_names(method: Method):
    components = tiny()
    attachment = attach(method, components)
    parameters = attachment.parameters()
    assert parameters
    assert all(isinstance(parameter, nn.Parameter) for parameter in parameters.values())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in parameters.values())
    if isinstance(method, TextualInversion):
        # Its names are words, as readers of the file want them, and not places.
        assert attachment.components == {"text_encoder"}
        assert parameters.keys() == {method.token}
    else:
        assert attachment.components == {name.partition(".")[0] for name in parameters}
    assert len({id(parameter) for parameter in parameters.values()}) == len(parameters)
    state = attachment.state()
    assert state.keys() >= parameters.keys()
    for name, parameter in parameters.items():
        doubled = isinstance(method, Lora) and method.from_weight
        assert (state[name].data_ptr() == parameter.data_ptr()) != doubled


@every_method
def test_loading_what_was_saved_reproduces_the_outputs_exactly(method: Method, tmp_path: Path):
    components = tiny()
    attachment = attach(method, components, seed=0)
    perturb(attachment)
    expected, state = outputs(components), saved(attachment, tmp_path / "method.safetensors")
    attachment.detach()
    for target in (components, tiny()):
        other = attach(method, target, seed=1)
        other.load(state)
        assert torch.equal(outputs(target), expected)


@every_method
def test_a_state_that_does_not_fit_is_refused_and_nothing_changes(method: Method):
    components = tiny()
    attachment = attach(method, components)
    state = {name: tensor.clone() + 1 for name, tensor in attachment.state().items()}
    before = {name: tensor.clone() for name, tensor in attachment.state().items()}
    first = next(iter(state))
    less = {name: tensor for name, tensor in state.items() if name != first}
    with pytest.raises(ArtifactError, match=f"1 tensors are missing, such as {first}"):
        attachment.load(less)
    with pytest.raises(ArtifactError, match=r"1 are not expected, such as unet\.more"):
        attachment.load({**state, "unet.more": torch.zeros(1)})
    with pytest.raises(ArtifactError, match=f"1 have another shape, such as {first}: \\(1, 2, 3\\), here "):
        attachment.load({**state, first: torch.zeros(1, 2, 3)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in attachment.state().items())


@every_method
def test_loading_onto_another_base_says_what_differs(method: Method):
    state = attach(method, tiny()).state()
    differs = f"the saved {method.name} does not fit here: .*(another shape|are missing), such as"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(
        (ArtifactError, TargetError),
        match=f"{differs}|no attention layer's context has width 32|does not divide the \\d+ ",
    ):
        attach(method, another()).load(state)


@pytest.mark.parametrize("method", [method for method in EVERY if not method.merges], ids=described)
def test_what_cannot_merge_says_so_and_stays(method: Method):
    components = tiny()
    attachment = attach(method, components)
    perturb(attachment)
    tuned = outputs(components)
    with pytest.raises(TargetError, match=f"{method.name}: .*beside the base"):  # pyright: ignore[reportAttributeAccessIssue]
        attachment.merge()
    assert torch.equal(outputs(components), tuned)


@pytest.mark.parametrize("method", [method for method in EVERY if method.merges], ids=described)
def test_merging_equals_the_unmerged_forward(method: Method):
    components = tiny()
    before = Snapshot(components)
    attachment = attach(method, components)
    perturb(attachment)
    base, unmerged = outputs(tiny()), outputs(components)
    attachment.merge()
    merged = outputs(components)
    assert not merged.requires_grad
    # Some outputs are several units large, where float32 itself rounds by half of the tolerance.
    torch.testing.assert_close(merged, unmerged, atol=MERGE_TOLERANCE, rtol=1e-5)
    assert (merged - base).abs().max() > 100 * MERGE_TOLERANCE
    assert Snapshot(components).facts == before.facts
    assert Snapshot(components).tensors.keys() == before.tensors.keys()


@every_method
def test_disabled_is_the_base_also_after_an_exception(method: Method):
    components = tiny()
    before = outputs(components)
    attachment = attach(method, components)
    perturb(attachment)
    tuned = outputs(components)
    with attachment.disabled():
        assert torch.equal(outputs(components), before)
        with attachment.disabled():
            assert torch.equal(outputs(components), before)
        assert torch.equal(outputs(components), before)
    assert torch.equal(outputs(components), tuned)
    with pytest.raises(KeyError), attachment.disabled():
        raise KeyError
    assert torch.equal(outputs(components), tuned)
    outputs(components).square().mean().backward()
    assert all(parameter.grad is not None for parameter in attachment.parameters().values())


# DoRA takes the norms that it divides by for constants.
@quick_first([method for method in EVERY if not getattr(method, "dora", False)])
def test_gradients_are_how_the_outputs_change(method: Method):
    """Of each kind of tensor, the slope along its gradient is the gradient's length.

    By central differences. Rounding limits small steps and curvature large ones, so the best of three counts.
    """
    components = tiny()
    attachment = attach(method, components)
    perturb(attachment, size=0.05)
    single = method.name in SINGLE  # pyright: ignore[reportAttributeAccessIssue]
    if not single:
        for part in components.values():
            part.double()
        for parameter in attachment.parameters().values():
            parameter.data = parameter.data.double()
    outputs(components).double().square().mean().backward()
    kinds: dict[str, list[nn.Parameter]] = {}
    for name, parameter in attachment.parameters().items():
        kinds.setdefault(name.rpartition(".")[2], []).append(parameter)
    for kind, parameters in kinds.items():
        length = torch.stack([parameter.grad.double().square().sum() for parameter in parameters]).sum().sqrt().item()  # pyright: ignore[reportOptionalMemberAccess]
        errors = []
        for step in (1e-1, 1e-2, 1e-3) if single else (1e-3, 1e-4, 1e-5):
            found = []
            with torch.no_grad():
                before = [parameter.clone() for parameter in parameters]
                for sign in (step, -step):
                    for parameter, value in zip(parameters, before, strict=True):
                        parameter.copy_(value + sign / length * parameter.grad)
                    found.append(outputs(components).double().square().mean().item())
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)
            errors.append(abs((found[0] - found[1]) / (2 * step) / length - 1))
        assert min(errors) < (5e-4 if single else 1e-5), (kind, errors)


@every_method
def test_gradient_checkpointing_changes_no_gradient(method: Method):
    found = []
    for checkpointing in (False, True):
        components = tiny()
        attachment = attach(method, components)
        perturb(attachment)
        components["unet"].train()
        if checkpointing:
            components["unet"].enable_gradient_checkpointing()
        found.append(gradients(components, attachment))
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@every_method
def test_mixed_precision_trains_in_float32_beside_frozen_bf16(method: Method):
    components = tiny()
    attachment = attach(method, components)
    perturb(attachment, size=0.02)  # far from the base some predict with weights so large that rounding shows
    exact = outputs(components)
    for part in components.values():
        for parameter in part.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = outputs(components).float()
        found = gradients(components, attachment)
    assert (rounded - exact).norm() < 0.03 * exact.norm()
    assert all(gradient.dtype == torch.float32 and gradient.abs().sum() > 0 for gradient in found)


@quick_first(ADAPTERS)
def test_on_weights_of_8_bits_it_does_what_it_does_on_the_rounded_ones(method: Method):
    found = []
    for quantized in (False, True):
        components = tiny()
        attachment = attach(method, components)
        perturb(attachment)
        if quantized:
            lighten(components["unet"], integers=True)
        else:
            for layer in components["unet"].modules():
                if becomes_integers(layer):
                    rounded, scale = to_int8(layer.weight)
                    layer.weight.data = rounded * scale
        found.append([outputs(components), *gradients(components, attachment)])
    for on_rounded, on_integers in zip(*found, strict=True):
        torch.testing.assert_close(on_integers, on_rounded)


@pytest.mark.slow
@pytest.mark.parametrize("method", [one for one in EVERY if one.name not in FAMILY], ids=described)  # pyright: ignore[reportAttributeAccessIssue]
def test_a_compiled_denoiser_computes_the_same(method: Method):
    components = tiny()
    attachment = attach(method, components)
    perturb(attachment)
    Lora(rank=2).attach(components)
    expected = outputs(components)
    with attachment.disabled():
        disabled = outputs(components)
    components["unet"].compile(backend="eager")
    torch.testing.assert_close(outputs(components), expected)
    with attachment.disabled():
        torch.testing.assert_close(outputs(components), disabled)


def gradients(components: Components, attachment: Attachment) -> list[Tensor]:
    """Return the gradient of every owned parameter, with the same dropout whenever it is asked for."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs(components).float().square().mean().backward()
    found = [p.grad for p in attachment.parameters().values()]
    assert all(gradient is not None for gradient in found)
    return found  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("method", STACKED, ids=described)
def test_detaching_frees_memory(method: Method):
    components = tiny()
    before = live_bytes()
    attachment = attach(method, components)
    train(components, [attachment])
    assert live_bytes() > before
    handle = weakref.ref(attachment)
    attachment.detach()
    assert live_bytes() == before, "detaching frees; dropping the handle too"
    del attachment
    gc.collect()
    assert handle() is None


def live_bytes() -> int:
    """Bytes of all tensors of this process, each storage once."""
    gc.collect()
    storages = {}
    for value in gc.get_objects():
        if type(value) in (Tensor, nn.Parameter):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(storages.values())


@every_method
def test_attaching_without_weights_counts_the_same(method: Method):
    real = attach(method, tiny())
    meta = attach(method, {name: root.to("meta") for name, root in tiny().items()})
    assert {name: p.shape for name, p in meta.parameters().items()} == {
        name: p.shape for name, p in real.parameters().items()
    }
    assert {p.device.type for p in meta.parameters().values()} == {"meta"}
    assert all(p.dtype == torch.float32 for p in meta.parameters().values())
    assert meta.metadata() == real.metadata()


@pytest.mark.parametrize("method", ADAPTERS, ids=described)
def test_on_a_base_of_half_precision_step_0_is_still_the_base(method: Method):
    components = {name: root.to(torch.bfloat16) for name, root in tiny().items()}
    before, snapshot = outputs(components), Snapshot(components)
    attachment = attach(method, components)
    assert all(p.dtype == torch.float32 for p in attachment.parameters().values())
    assert torch.equal(outputs(components), before) == method.starts_at_base
    perturb(attachment)
    assert not torch.equal(outputs(components), before)
    attachment.detach()
    snapshot.assert_same(components)


@pytest.mark.parametrize("method", [method for method in EVERY if method not in ADAPTERS], ids=described)
def test_a_base_of_half_precision_comes_back(method: Method):
    components = {name: root.to(torch.bfloat16) for name, root in tiny().items()}
    snapshot = Snapshot(components)
    attachment = attach(method, components)
    perturb(attachment)
    attachment.detach()
    snapshot.assert_same(components)


@pytest.mark.parametrize(("method", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_the_base_lacks_is_refused_and_the_base_stays(method: Method, message: str):
    components = tiny()
    snapshot = Snapshot(components)
    with pytest.raises(TargetError, match=message):
        method.attach(components)
    snapshot.assert_same(components)


@every_method
def test_a_base_without_the_part_is_refused(method: Method):
    components = {"vae": nn.Linear(2, 2)}
    with pytest.raises(TargetError, match=r"the base has no (unet|text_encoder).*; it has: vae"):
        method.attach(components)
