"""LoRAs of other programs, ranks and scales as the beginning of a LoRA."""

import pytest
import torch
from safetensors.torch import save_file

from inlay.artifacts.formats import FORMATS
from inlay.artifacts.layers import LowRank, Updates
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError
from inlay.files import write_tensors
from inlay.methods import Lora
from inlay.run.blueprints import base_blueprint
from inlay.run.exchange import adopt, export, open_file
from inlay.run.start_lora import begin_lora, begin_with, read_loras
from tests.artifacts.specimens import LAYERS, TEXT_LAYERS, difference, low_rank
from tests.tiny import make_tiny_components

ATTENTION = tuple(name for name in LAYERS if ".attn" in name)


@pytest.fixture
def base(tiny_base) -> BaseSettings:
    return BaseSettings(model=str(tiny_base))


@pytest.fixture
def write(base, tmp_path):
    """Return a function that writes LoRAs of some layers in a format."""
    model = base_blueprint(base)

    def build(format_name, names, ranks=(3,), **facts):
        layers = {
            name: low_rank(model.shapes[name], ranks[number % len(ranks)], number, **facts)
            for number, name in enumerate(names)
        }
        path = tmp_path / f"theirs{FORMATS[format_name].suffix}"
        return FORMATS[format_name].write(path, Updates(layers), [model]), layers

    return build


def begun(path, base, method):
    """Return the attachment of a LoRA that has begun with a file, and what its own file then says."""
    attachment = method.attach(make_tiny_components())
    tensors, _, _ = begin_lora(path, base, method, attachment.state())
    attachment.load(tensors)
    file = path.with_name("begun.safetensors")
    header = {**attachment.metadata(), "inlay.method": method.model_dump_json()}
    write_tensors(file, attachment.state(), header)
    return attachment, FORMATS["inlay"].read(file, [base_blueprint(base)]).layers


@pytest.mark.parametrize(
    ("format_name", "settings", "facts"),
    [
        ("kohya", {"rank": 8}, {"alpha": 1.0}),
        ("kohya", {"rank": 3, "alpha": 7}, {}),
        ("diffusers", {"rank": 5, "rslora": True}, {"alpha": 4.0, "rslora": True}),
        ("diffusers", {"rank": 4, "dora": True, "init": "gaussian"}, {"dora": "out"}),
        ("peft", {"rank": 4}, {"alpha": 2.0}),
        ("lycoris", {"rank": 4, "dora": True}, {"dora": "out"}),
        ("inlay", {"rank": 16, "dropout": 0.5}, {"alpha": 2.0}),
    ],
)
def test_step_0_is_what_the_file_makes_of_the_base(base, write, format_name, settings, facts):
    method = Lora(targets="everything", text_encoder="transformer", **settings)
    path, theirs = write(format_name, (*LAYERS, *TEXT_LAYERS), **facts)
    attachment, ours = begun(path, base, method)
    assert set(theirs) < set(ours)
    for name, shape in base_blueprint(base).shapes.items():
        if name not in ours:
            continue
        weight = torch.full(shape, 0.25)
        expected = theirs[name].changed(weight) if name in theirs else None
        if expected is None and not method.dora:
            expected = weight
        if expected is not None:
            torch.testing.assert_close(ours[name].changed(weight), expected, rtol=1e-4, atol=1e-5)
    # What the file lacks in rank can be learned: the other rows of A are random, as at the beginning.
    name = f"{LAYERS[0]}.lora_A.weight"
    assert (attachment.state()[name].abs().sum(dim=1) > 0).all()


def test_layers_may_have_ranks_of_their_own(base, write):
    path, theirs = write("kohya", ATTENTION, ranks=(2, 6, 4))
    _, ours = begun(path, base, Lora(rank=6))
    for name, one in theirs.items():
        shape = base_blueprint(base).shapes[name]
        torch.testing.assert_close(ours[name].delta(shape), one.delta(shape), rtol=1e-4, atol=1e-5)


def test_what_is_imported_needs_no_settings_of_its_own(base, write, tmp_path):
    path, theirs = write("kohya", ATTENTION)
    opened = adopt(open_file(path, base.model), base.model)
    imported = export(opened, "inlay", tmp_path / "imported.safetensors")
    _, ours = begun(imported, base, Lora(rank=4))
    for name, one in theirs.items():
        shape = base_blueprint(base).shapes[name]
        torch.testing.assert_close(ours[name].delta(shape), one.delta(shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "settings", "facts", "said"),
    [
        (ATTENTION, {"rank": 2}, {}, "has rank 3 at unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
        (ATTENTION, {"dora": True}, {}, "has none of DoRA's magnitudes"),
        (ATTENTION, {}, {"dora": "out"}, "has DoRA's magnitudes; give method.dora=true"),
        (ATTENTION, {"init": "pissa"}, {}, "cannot be continued with method.init=pissa"),
        (
            LAYERS[:4],
            {},
            {},
            "changes 1 layers that the run does not train (unet.down_blocks.0.attentions.0.transformer_bl",
        ),
        (LAYERS[:4], {}, {}, "; method.targets=transformer trains them"),
        (LAYERS, {}, {}, "; method.targets=everything trains them"),
        (TEXT_LAYERS[:2], {}, {}, "; method.text_encoder=true trains them"),
        ((*ATTENTION, *TEXT_LAYERS), {}, {}, "out_proj); method.text_encoder=transformer trains them"),
        (
            (*ATTENTION, *TEXT_LAYERS),
            {"targets": "cross-attention-qk"},
            {},
            "; method.targets=attention and method.text_encoder=transformer trains them",
        ),
    ],
)
def test_what_cannot_be_a_beginning_is_refused_with_what_would_do(base, write, names, settings, facts, said):
    path, _ = write("diffusers", names, **facts)
    with pytest.raises(ArtifactError) as caught:
        begun(path, base, Lora(**settings))
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_what_is_no_lora_is_refused(base, tmp_path):
    model = base_blueprint(base)
    path = tmp_path / "theirs.safetensors"
    FORMATS["lycoris"].write(path, Updates({LAYERS[0]: difference(model.shapes[LAYERS[0]])}), [model])
    with pytest.raises(ArtifactError, match=r"the method lora cannot hold this: .* is a full difference"):
        read_loras(path, base)
    save_file({"<new>": torch.ones(1, 32)}, tmp_path / "word.safetensors")
    with pytest.raises(ArtifactError, match="holds embeddings, but the method is lora"):
        read_loras(tmp_path / "word.safetensors", base)


def test_the_other_columns_of_b_are_zero_and_the_rank_is_that_of_the_settings():
    theirs = {"unet.a": LowRank(down=torch.ones(2, 4), up=torch.ones(3, 2), alpha=1.0)}
    fresh = {"unet.a.lora_A.weight": torch.full((4, 4), 9.0), "unet.a.lora_B.weight": torch.zeros(3, 4)}
    state = begin_with(theirs, Lora(rank=4, alpha=8), fresh)
    assert state["unet.a.lora_A.weight"].tolist() == [[1.0] * 4] * 2 + [[9.0] * 4] * 2
    assert state["unet.a.lora_B.weight"].tolist() == [[0.25, 0.25, 0.0, 0.0]] * 3  # (1 / 2) / (8 / 4)
    assert fresh["unet.a.lora_B.weight"].abs().max() == 0
