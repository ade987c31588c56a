"""What methods promise in a stack, each with every other.

Which settings are tried is in ``variants.py``.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from inlay.errors import TargetError
from inlay.methods import Full, Method, merge_all
from inlay.methods.peft_layers import LayerMethod
from tests.contracts.bases import MERGE_TOLERANCE, Snapshot, attach, outputs, perturb, saved, tiny, train
from tests.contracts.family import FAMILY
from tests.contracts.variants import QUICK, STACKED, VARIANTS, described

ONCE = [VARIANTS["full"][0], *VARIANTS["textual_inversion"]]
PARTNERS = {"adapter", "full", "lora"}


def relatives(first: Method, second: Method) -> set[str]:
    """Return which of two methods belong to FAMILY; those share the code that wraps layers."""
    return {first.name, second.name} & set(FAMILY)  # pyright: ignore[reportAttributeAccessIssue]


def possible(first: Method, second: Method) -> bool:
    """Tell whether two stand on one base: each method with each, by its first variant, and by its second too where no
    relative takes part. Nobody stands twice who trains what can be trained once only."""
    if first == second and first in ONCE:
        return False
    return QUICK.issuperset((first, second)) or not relatives(first, second)


def quick(first: Method, second: Method) -> bool:
    """Tell whether a stack is tried at every change: a relative's with one that wraps, one that taps, one that trains
    the weights below, and itself, in both orders; with all others in `make check-slow`."""
    if not QUICK.issuperset((first, second)):
        return False
    names = {first.name, second.name}  # pyright: ignore[reportAttributeAccessIssue]
    return not relatives(first, second) or len(names) == 1 or bool(names & PARTNERS)


STACKS = [pair for pair in itertools.product(STACKED, STACKED) if possible(*pair)]


def stacks(pairs: list[tuple[Method, Method]]) -> pytest.MarkDecorator:
    marked = [pytest.param(*pair, marks=[] if quick(*pair) else pytest.mark.slow) for pair in pairs]
    return pytest.mark.parametrize(("first", "second"), marked, ids=described)


every_stack = stacks(STACKS)


@every_stack
def test_in_a_stack_both_act_and_each_leaves_alone(first: Method, second: Method):
    components = tiny()
    base, snapshot = outputs(components), Snapshot(components)
    one = attach(first, components, seed=0)
    perturb(one)
    with_one = outputs(components)
    two = attach(second, components, seed=1)
    assert torch.equal(outputs(components), with_one) == second.starts_at_base
    perturb(two, seed=4)
    with_both = outputs(components)
    assert not torch.allclose(with_both, with_one)
    with two.disabled():
        assert torch.equal(outputs(components), with_one)
    with one.disabled():
        with_two = outputs(components)
        with two.disabled():
            assert torch.equal(outputs(components), base)
    assert not torch.allclose(with_two, with_both)
    assert torch.equal(outputs(components), with_both)
    one.detach()
    if isinstance(first, Full) and isinstance(second, Full):
        assert torch.equal(outputs(components), with_two)
    two.detach()
    snapshot.assert_same(components)


@every_stack
def test_in_a_stack_only_owned_parameters_move(first: Method, second: Method):
    components = tiny()
    attachments = [attach(first, components, seed=0), attach(second, components, seed=1)]
    owned = [{id(parameter) for parameter in attachment.parameters().values()} for attachment in attachments]
    assert not owned[0] & owned[1]
    everything = {id(p): (p, p.detach().clone()) for part in components.values() for p in part.parameters()}
    train(components, attachments)
    for identity, (parameter, copied) in everything.items():
        assert torch.equal(parameter, copied) == (identity not in owned[0] | owned[1])


@every_stack
def test_a_stack_is_saved_and_loaded_method_by_method(first: Method, second: Method, tmp_path: Path):
    components = tiny()
    attachments = [attach(first, components, seed=0), attach(second, components, seed=1)]
    for attachment in attachments:
        perturb(attachment)
    expected = outputs(components)
    states = [saved(attachment, tmp_path / f"{index}.safetensors") for index, attachment in enumerate(attachments)]
    target = tiny()
    others = [attach(first, target, seed=2), attach(second, target, seed=3)]
    for other, state in zip(others, states, strict=True):
        other.load(state)
    assert torch.equal(outputs(target), expected)


@stacks(
    [
        pair
        for pair in STACKS
        # DiffFit merges over nothing that still acts; its own tests say what it does in a stack.
        if pair[0].merges and pair[1].merges and "difffit" not in (pair[0].name, pair[1].name)  # pyright: ignore[reportAttributeAccessIssue]
    ]
)
def test_a_stack_merges(first: Method, second: Method):
    components = tiny()
    one, two = attach(first, components, seed=0), attach(second, components, seed=1)
    perturb(one)
    perturb(two, seed=4)
    expected = outputs(components)
    if isinstance(first, LayerMethod) and isinstance(second, LayerMethod) and second.form == "measured":
        with pytest.raises(TargetError, match=r"carries (another|a) method (above|below) it"):
            merge_all([one, two])
        assert torch.equal(outputs(components), expected)
        return
    merge_all([two, one])
    # WaveFT's coefficients count 25 times, so its perturbed updates, and their rounding, are that much larger.
    tolerance = 2 * MERGE_TOLERANCE * (10 if "waveft" in (first.name, second.name) else 1)  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(outputs(components), expected, atol=tolerance, rtol=0)
    assert Snapshot(components).facts == Snapshot(tiny()).facts


def test_full_refuses_what_another_method_trains_already():
    components = tiny()
    attach(Full(), components)
    with pytest.raises(TargetError, match="another method trains all of the base's unet already"):
        Full(parameters="attn2").attach(components)
