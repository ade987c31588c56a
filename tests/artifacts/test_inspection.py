"""Strengths against explicit weight deltas, and what is said of each kind of file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from inlay.artifacts.a1111_hypernetwork import from_inlay
from inlay.artifacts.embeddings import Embeddings
from inlay.artifacts.inspection import (
    Inspection,
    differences,
    of_embeddings,
    of_hypernetwork,
    of_tensors,
    of_updates,
    span,
)
from inlay.artifacts.layers import Difference, Update, Updates
from inlay.errors import ArtifactError
from inlay.methods import Hypernetwork
from tests.artifacts.specimens import (
    LAYERS,
    difference,
    hadamard,
    kronecker,
    low_rank,
    random_tensor,
    tiny_blueprint,
)
from tests.contracts.bases import perturb, tiny

TINY = tiny_blueprint()
LINEAR, CONVOLUTION = LAYERS[0], LAYERS[5]
BLANK = Inspection(Path("file.safetensors"), 100, "diffusers", "", (), {})


def updates(name: str, update: Update) -> Updates:
    return Updates({name: update}, {"inlay.base": "tiny", "ss_steps": "3"})


@pytest.mark.parametrize("name", [LINEAR, CONVOLUTION])
@pytest.mark.parametrize(
    ("make", "form"),
    [
        (lambda shape: low_rank(shape, alpha=0.5), "LoRA"),
        (lambda shape: low_rank(shape, alpha=2.0, rslora=True), "LoRA"),
        (lambda shape: low_rank(shape, core=True) if len(shape) == 4 else low_rank(shape), "LoRA"),
        (lambda shape: hadamard(shape, alpha=1.0), "LoHa"),
        (lambda shape: hadamard(shape, core=len(shape) == 4), "LoHa"),
        (lambda shape: kronecker(shape, alpha=1.0), "LoKr"),
        (lambda shape: kronecker(shape, second=True), "LoKr"),
        (lambda shape: kronecker(shape, core=len(shape) == 4, first=False), "LoKr"),
        (lambda shape: difference(shape), "full difference"),
    ],
)
def test_a_strength_is_the_norm_of_the_explicit_change(name, make, form):
    shape = TINY.shapes[name]
    update, weight = make(shape), random_tensor(shape, 40)
    for tensors in (None, {f"{name}.weight": weight}):
        [one] = of_updates(BLANK, updates(name, update), [TINY], tensors).strengths
        assert one.norm == pytest.approx(float(update.delta(shape).norm()), rel=1e-4)
        assert one.form.startswith(form)
        assert one.parameters == sum(value.numel() for value in update.tensors().values())
        assert one.rank == getattr(update, "rank", None)
    assert one.relative == pytest.approx(float(update.delta(shape).norm() / weight.norm()), rel=1e-4)


def test_a_dora_is_measured_on_the_base_s_weights():
    update, weight = low_rank(TINY.shapes[LINEAR], dora="out"), random_tensor(TINY.shapes[LINEAR], 40)
    without = of_updates(BLANK, updates(LINEAR, update), [TINY], None)
    assert without.method == "DoRA"
    assert without.strengths[0].norm == pytest.approx(float(update.delta(TINY.shapes[LINEAR]).norm()), rel=1e-4)
    assert "norms of a DoRA are those of its low-rank part" in without.notes[0]
    held = of_updates(BLANK, updates(LINEAR, update), [TINY], {f"{LINEAR}.weight": weight})
    assert held.strengths[0].norm == pytest.approx(float((update.changed(weight) - weight).norm()), rel=1e-4)
    assert held.notes == ()


@pytest.mark.parametrize("whole", [True, False])
def test_biases_count(whole):
    bias, weight, own = random_tensor((32,), 1), random_tensor(TINY.shapes[LINEAR], 2), random_tensor((32,), 3)
    update = Difference(weight=random_tensor(TINY.shapes[LINEAR], 4) if whole else None, bias=bias)
    tensors = {f"{LINEAR}.weight": weight, f"{LINEAR}.bias": own}
    [one] = of_updates(BLANK, updates(LINEAR, update), [TINY], tensors).strengths
    change = [bias] if update.weight is None else [bias, update.weight]
    assert one.norm == pytest.approx(math.hypot(*(float(value.norm()) for value in change)), rel=1e-5)
    before = [own] if update.weight is None else [own, weight]
    assert one.relative == pytest.approx(one.norm / math.hypot(*(float(value.norm()) for value in before)), rel=1e-5)


def test_what_is_told_of_a_lora():
    both = {LINEAR: low_rank(TINY.shapes[LINEAR], rank=2, alpha=1.0), CONVOLUTION: low_rank(TINY.shapes[CONVOLUTION])}
    found = of_updates(BLANK, Updates(both, {"ss_base_model_version": "sd_v1"}), [TINY], None)
    told = json.loads(json.dumps(found.to_json()))
    assert told["method"] == "LoRA"
    assert told["base"] == {"stated": "sd_v1", "fits": ["tiny"]}
    assert told["ranks"] == [2, 3]
    assert told["alphas"] == [1, 3]
    assert told["parameters"] == sum(value.numel() for one in both.values() for value in one.tensors().values())
    assert told["precisions"] == {"float32": told["parameters"]}
    assert [layer["name"] for layer in told["layers"]] == [LINEAR, CONVOLUTION]
    assert told["norm"] == pytest.approx(math.hypot(*(layer["norm"] for layer in told["layers"])))
    with pytest.raises(ArtifactError, match="does not fit tiny"):
        of_updates(BLANK, updates("unet.nothing", both[LINEAR]), [TINY], None)


def test_what_is_told_of_a_hypernetwork():
    method = Hypernetwork(widths=(32, 64), activation="relu")
    attachment = method.attach(tiny())
    perturb(attachment)
    state = attachment.state()
    file = from_inlay(state, {**attachment.metadata(), "inlay.method": method.model_dump_json()}, "own")
    found = of_hypernetwork(BLANK, file, {"inlay.base": "tiny"})
    assert found.method == "hypernetwork"
    assert [one.name for one in found.strengths] == ["32.key", "32.value", "64.key", "64.value"]
    assert found.strengths[0].form == "network 1-2-1 relu"
    own = [value for name, value in state.items() if name.startswith("unet.32.key.")]
    assert found.strengths[0].norm == pytest.approx(math.hypot(*(float(value.norm()) for value in own)), rel=1e-5)
    assert found.parameters == sum(value.numel() for value in state.values())
    assert found.stated_base == "tiny"
    assert found.fits == ()
    assert found.facts["layer_structure"] == "[1, 2, 1]"
    wide = of_hypernetwork(BLANK, type(file)({320: file.networks[32], 768: file.networks[64]}), {})
    assert wide.fits == ("Stable Diffusion 1",)


def test_what_is_told_of_an_embedding():
    vectors, rows = random_tensor((3, 768), 1), random_tensor((9, 768), 2)
    tensors = {"text_encoder.text_model.embeddings.token_embedding.weight": rows}
    found = of_embeddings(BLANK, Embeddings({"<rex>": {"text_encoder": vectors}}, facts={"step": "4"}), tensors)
    [one] = found.strengths
    assert (one.name, one.rank, one.form) == ("<rex>", 3, "768 wide")
    assert one.norm == pytest.approx(float(vectors.norm()), rel=1e-5)
    assert one.relative == pytest.approx(float(vectors.norm(dim=1).mean() / rows.norm(dim=1).mean()), rel=1e-5)
    assert found.fits == ("Stable Diffusion 1",)
    both = {"text_encoder": vectors, "text_encoder_2": random_tensor((3, 1280), 1)}
    found = of_embeddings(BLANK, Embeddings({"<rex>": both}, "sdxl"), tensors)
    assert [one.name for one in found.strengths] == ["<rex> (text_encoder)", "<rex> (text_encoder_2)"]
    assert found.strengths[1].relative is None
    assert found.fits == ("Stable Diffusion XL",)


def test_other_files_are_told_by_their_tensors():
    tensors = {
        "unet.mid.adapter.down.weight": torch.ones(2, 2),
        "unet.mid.adapter.up.bias": torch.ones(5, dtype=torch.float16),
        "unet.mid.attn2.key": torch.ones(3),
    }
    found = of_tensors(BLANK, tensors, {"inlay.method": '{"name": "adapter"}'})
    assert found.method == "adapter"
    assert [(one.name, one.parameters) for one in found.strengths] == [("unet.mid.adapter", 9), ("unet.mid.attn2", 3)]
    assert found.strengths[0].norm == pytest.approx(3)
    assert found.precisions == {"float32": 7, "float16": 5}
    assert of_tensors(BLANK, tensors, {"inlay.method": "broken"}).method == "unknown"


def test_models_are_told_apart_by_layer():
    base = {"unet.a.weight": torch.ones(2, 2), "unet.a.bias": torch.zeros(2), "unet.b.weight": torch.ones(3)}
    tuned = {**base, "unet.a.weight": torch.full((2, 2), 1.5), "unet.a.bias": torch.full((2,), 2.0)}
    [one] = differences(tuned, base)
    assert (one.name, one.parameters) == ("unet.a", 6)
    assert one.norm == pytest.approx(3)
    assert one.relative == pytest.approx(1.5)


def test_a_span_leaves_out_what_is_absent():
    assert span([3, None, 1, 3]) == [1, 3]
    assert span([None]) == []
