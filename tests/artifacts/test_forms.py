import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inlay.artifacts.forms import ALPHA, alpha_tensor, assemble, disassemble, is_tensor_name
from inlay.errors import ArtifactError
from tests.artifacts.specimens import difference, hadamard, kronecker, low_rank, same

SHAPES = st.sampled_from([(8, 12), (8, 12, 3, 3), (8, 12, 1, 1)])


@st.composite
def updates(draw):
    shape, seed = draw(SHAPES), draw(st.integers(0, 99))
    rank, alpha = draw(st.integers(1, 5)), draw(st.none() | st.floats(0.1, 64))
    core = draw(st.booleans()) and len(shape) == 4
    kind = draw(st.sampled_from(["LoRA", "LoHa", "LoKr", "difference"]))
    if kind == "LoRA":
        dora = draw(st.sampled_from(["", "out", "in"]))
        return low_rank(shape, rank, seed, dora, core, alpha=alpha)
    if kind == "LoHa":
        return hadamard(shape, rank, seed, core, alpha=alpha)
    if kind == "LoKr":
        first, second = draw(st.booleans()), draw(st.booleans())
        return kronecker(shape, (2, 4), rank, seed, first, second, core, alpha=alpha)
    return difference(shape, seed, bias=draw(st.booleans()))


@given(updates())
def test_taking_apart_and_putting_together_changes_nothing(update):
    tensors = disassemble(update)
    assert all(is_tensor_name(name) for name in tensors)
    if getattr(update, "alpha", None) is not None:
        tensors[ALPHA] = alpha_tensor(update.alpha, next(iter(tensors.values())))
    same({"layer": update}, {"layer": assemble(tensors, "here")})


@given(st.floats(1e-3, 1e6), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_alpha_is_held_exactly(value, dtype):
    tensor = alpha_tensor(value, torch.zeros(1, dtype=dtype))
    assert tensor.shape == ()
    assert tensor.item() == value
    if value == 8:
        assert tensor.dtype == dtype


def test_a_whole_number_stays_in_the_file_s_precision():
    assert alpha_tensor(8, torch.zeros(1, dtype=torch.float16)).dtype == torch.float16
    assert alpha_tensor(0.1, torch.zeros(1, dtype=torch.float16)).dtype == torch.float64


@pytest.mark.parametrize(
    ("left_out", "added", "message"),
    [
        ("lora_up.weight", {}, r"file: layer: lora_down.weight do not make a whole LoRA"),
        ("", {"hada_w1_a": torch.zeros(2, 2)}, r"holds LoHa and LoRA"),
        ("", {"alpha": torch.tensor([1.0, 2.0])}, r"alpha is \[1.0, 2.0\]"),
        ("", {"alpha": torch.tensor(float("nan"))}, r"one number above 0"),
        ("", {"alpha": torch.tensor(0.0)}, r"one number above 0"),
        ("", {"lora_up.weight": torch.zeros(8, 4)}, r"ranks of its factors differ: .*up \(8, 4\)"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_layer(left_out, added, message):
    tensors = {**disassemble(low_rank((8, 12))), **added}
    tensors.pop(left_out, None)
    with pytest.raises(ArtifactError, match=message):
        assemble(tensors, "file: layer")


def test_alpha_alone_is_no_update():
    with pytest.raises(ArtifactError, match="only alpha or magnitudes"):
        assemble({"alpha": torch.tensor(1.0)}, "file: layer")


def test_both_sides_of_a_lokr_share_a_rank():
    tensors = disassemble(kronecker((8, 12), first=False))
    tensors["lokr_w1_a"], tensors["lokr_w1_b"] = torch.zeros(2, 5), torch.zeros(5, 4)
    with pytest.raises(ArtifactError, match="ranks of its factors differ"):
        assemble(tensors, "file: layer")


def test_norms_have_names_of_their_own():
    update = assemble({"w_norm": torch.ones(4), "b_norm": torch.zeros(4)}, "file: layer")
    assert disassemble(update).keys() == {"diff", "diff_b"}
