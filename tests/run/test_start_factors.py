"""LoHa and LoKr of other programs, ranks and scales as the beginning of one."""

import pytest
import torch

from inlay.artifacts.formats import FORMATS
from inlay.artifacts.layers import Updates
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError
from inlay.files import write_tensors
from inlay.methods import LoHa, LoKr
from inlay.run.blueprints import base_blueprint
from inlay.run.start_factors import begin_factors
from tests.artifacts.specimens import LAYERS, TEXT_LAYERS, hadamard, kronecker, low_rank, magnitude
from tests.tiny import make_tiny_components

ATTENTION = tuple(name for name in LAYERS if ".attn" in name)
WINDOWS = tuple(name for name in LAYERS if name.endswith(("conv1", "downsamplers.0.conv", "upsamplers.0.conv")))


@pytest.fixture
def base(tiny_base) -> BaseSettings:
    return BaseSettings(model=str(tiny_base))


def write(base, path, format_name, names, make, **facts):
    """Write updates of some layers in a format; return the file and the updates."""
    model = base_blueprint(base)
    layers = {name: make(model.shapes[name], seed=number, **facts) for number, name in enumerate(names)}
    return FORMATS[format_name].write(path / f"theirs{FORMATS[format_name].suffix}", Updates(layers), [model]), layers


def begun(path, base, method):
    """Return the state of a method that has begun with a file, and what its own file then says."""
    attachment = method.attach(make_tiny_components())
    tensors, _, _ = begin_factors(path, base, method, attachment.state())
    attachment.load(tensors)
    file = write_tensors(
        path.with_name("begun.safetensors"),
        attachment.state(),
        {**attachment.metadata(), "inlay.method": method.model_dump_json()},
    )
    return attachment.state(), FORMATS["inlay"].read(file, [base_blueprint(base)]).layers


def same_change(theirs, ours, base):
    shapes = base_blueprint(base).shapes
    for name, one in ours.items():
        expected = theirs[name].delta(shapes[name]) if name in theirs else torch.zeros(shapes[name])
        torch.testing.assert_close(one.delta(shapes[name]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("format_name", "settings", "facts"),
    [
        ("lycoris", {"rank": 3}, {}),
        ("lycoris", {"rank": 8}, {"alpha": 1.0}),
        ("lycoris", {"rank": 5, "alpha": 7}, {"alpha": 2.0}),
        ("peft", {"rank": 4}, {"alpha": 2.0}),
        ("inlay", {"rank": 16, "rank_dropout": 0.5}, {"alpha": 2.0}),
    ],
)
def test_step_0_of_a_loha_is_what_the_file_makes_of_the_base(base, tmp_path, format_name, settings, facts):
    path, theirs = write(base, tmp_path, format_name, (*LAYERS, *TEXT_LAYERS), hadamard, **facts)
    method = LoHa(targets="everything", text_encoder="transformer", **settings)
    state, ours = begun(path, base, method)
    assert set(theirs) < set(ours)
    same_change(theirs, ours, base)
    # The rank that the file lacks can be learned: the new rows of each `_b` are random, as at the beginning.
    assert (state[f"{LAYERS[0]}.hada_w1_b"].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("rank", [3, 6])
def test_cores_of_convolutions_grow_too(base, tmp_path, rank):
    path, theirs = write(base, tmp_path, "lycoris", WINDOWS, hadamard, core=True, alpha=2.0)
    method = LoHa(targets=[name.partition(".")[2] for name in WINDOWS], rank=rank, effective_conv2d=True)
    state, ours = begun(path, base, method)
    same_change(theirs, ours, base)
    assert state[f"{WINDOWS[0]}.hada_t1"].shape[:2] == (rank, rank)


def test_what_was_added_to_a_rank_is_learned(base, tmp_path):
    """All that is new and zero, of A1 and of B2, gets a gradient, with a core and without."""
    for core in (False, True):
        path, _ = write(base, tmp_path, "lycoris", WINDOWS[:1], hadamard, core=core)
        method = LoHa(targets=[WINDOWS[0].partition(".")[2]], rank=5, effective_conv2d=core)
        components = make_tiny_components()
        attachment = method.attach(components)
        tensors, _, lacking = begin_factors(path, base, method, attachment.state())
        assert lacking == 0
        attachment.load(tensors)
        layer = components["unet"].get_submodule(WINDOWS[0].partition(".")[2])
        layer(torch.randn(2, layer.base_layer.in_channels, 4, 4)).square().sum().backward()
        first, second = (attachment.parameters()[f"{WINDOWS[0]}.hada_{one}"] for one in ("w1_a", "w2_b"))
        for new, gradient in (
            (first[3:] if core else first[:, 3:].T, first.grad[3:] if core else first.grad[:, 3:].T),
            (second[3:], second.grad[3:]),
        ):
            assert new.shape[0] == 2
            assert not new.any()
            assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("format_name", "settings", "facts"),
    [
        ("lycoris", {"rank": 3, "decompose_factor": 2}, {"sides": (2, 2)}),
        ("lycoris", {"rank": 4, "decompose_factor": 2, "alpha": 5}, {"sides": (2, 2), "alpha": 1.0}),
        ("lycoris", {"rank": 64, "decompose_factor": 2, "alpha": 5}, {"sides": (2, 2), "second": True}),
        ("peft", {"rank": 3, "decompose_factor": 2}, {"sides": (2, 2), "alpha": 2.0}),
    ],
)
def test_step_0_of_a_lokr_is_what_the_file_makes_of_the_base(base, tmp_path, format_name, settings, facts):
    path, theirs = write(base, tmp_path, format_name, ATTENTION, kronecker, **facts)
    _, ours = begun(path, base, LoKr(**settings))
    assert set(theirs) < set(ours)
    same_change(theirs, ours, base)


@pytest.mark.parametrize(
    ("method", "names", "make", "facts", "said"),
    [
        (LoHa(rank=2), ATTENTION, hadamard, {}, "(3, 32); method.rank=3 or more and method.effective_conv2d=false"),
        (LoHa(), LAYERS, hadamard, {}, "; method.targets=everything trains them"),
        (LoHa(), ATTENTION, low_rank, {}, "the method loha cannot hold this: unet.down_blocks.0.attentions.0.t"),
        (LoKr(), ATTENTION, hadamard, {}, "is a LoHa"),
        (
            LoHa(targets="everything"),
            WINDOWS,
            hadamard,
            {"core": True},
            "; method.rank=3 or more and method.effective_conv2d=true have them",
        ),
        (
            LoKr(),
            ATTENTION,
            kronecker,
            {"sides": (2, 2)},
            "; method.rank=3, method.decompose_factor=2, method.decompose_both=false, method.effective_conv2d=false ",
        ),
        (
            LoKr(decompose_factor=2),
            ATTENTION,
            kronecker,
            {"sides": (2, 2), "first": False, "rank": 1},
            "PEFT cannot hold this: no decompose_factor gives these layers",
        ),
    ],
)
def test_what_cannot_be_a_beginning_is_refused_with_what_would_do(base, tmp_path, method, names, make, facts, said):
    path, _ = write(base, tmp_path, "lycoris", names, make, **facts)
    with pytest.raises(ArtifactError) as caught:
        begun(path, base, method)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_magnitudes_are_refused(base, tmp_path):
    shape = base_blueprint(base).shapes[LAYERS[0]]
    path, _ = write(base, tmp_path, "lycoris", LAYERS[:1], hadamard, magnitude=magnitude(shape, "out", 0))
    with pytest.raises(ArtifactError, match=r"has DoRA's magnitudes \(unet\..*\), which loha does not train"):
        begun(path, base, LoHa())
