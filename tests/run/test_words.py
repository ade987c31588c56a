"""New words from the run file to the picture: captions, plans, runs, files, plain diffusers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from inlay.errors import ConfigError, TargetError
from inlay.run.config import RunConfig
from inlay.run.directory import load_run, read_trace
from inlay.run.draw import draw, load_target
from inlay.run.job import execute
from inlay.run.load import validate
from inlay.run.plan import make_plan
from inlay.train.checkpoint import checkpoints
from tests.killed import KillAt, Killed
from tests.run.plain_diffusers import check_same_picture

EMBEDS = "learned_embeds.safetensors"
PIVOTAL = {"method": {"name": "lora", "rank": 2}, "stack": [{"name": "textual_inversion", "init": "dog"}]}


@pytest.fixture
def make(tiny_base, photos):
    """Return a function that makes a configuration: a method's settings, then `section__key` overrides."""

    def build(sections=None, **overrides):
        data = {
            "base": str(tiny_base),
            "data": {"source": str(photos), "prompt": "a photo of <new>"},
            "method": {"name": "textual_inversion", "init": "dog"},
            "train": {"steps": 6, "batch_size": 2, "checkpoint_every": 2, "trackers": []},
            "preview": {"pictures": 1, "steps": 2},
            **(sections or {}),
        }
        for key, value in overrides.items():
            section, _, name = key.partition("__")
            data[section] = {**data[section], name: value}
        return validate(RunConfig, data)

    return build


@pytest.mark.parametrize("vectors", [1, 3])
def test_plain_diffusers_draws_the_same_picture(make, tiny_base, tmp_path, vectors):
    run = tmp_path / "run"
    execute(make(method__vectors=vectors, method__std=0.2, train__learning_rate=0.1), run)
    assert load_file(run / EMBEDS)["<new>"].shape == (vectors, 32)
    check_same_picture(tiny_base, run, "a red <new>, the photo", lambda pipeline: pipeline.load_textual_inversion(run))


def test_a_run_moves_the_word_and_nothing_else(make, tiny_base, tmp_path):
    execute(make(), tmp_path / "run")
    base, [attachment] = load_run(tmp_path / "run")
    untouched = load_target(str(tiny_base))
    ids = untouched.tokenizer("dog", add_special_tokens=False).input_ids
    start = untouched.text_encoder.get_input_embeddings().weight[ids]
    moved = (attachment.state()["<new>"] - start).abs()
    assert moved.min() > 0
    for part, module in untouched.components.items():
        tuned = base.components[part].state_dict()
        assert all(torch.equal(tuned[name], value) for name, value in module.state_dict().items())
    seen = [[one.pixels for one in draw(target, ["a dog"], 1, steps=2)] for target in (base, untouched)]
    assert (seen[0][0] == seen[1][0]).all()


def test_a_growing_word_reaches_the_same_bits_when_killed(make, tmp_path):
    config = make(method__vectors=3, method__grow_at=[2, 4], method__init="dog red ball")
    execute(config, tmp_path / "whole")
    assert load_file(tmp_path / "whole" / EMBEDS)["<new>"].shape == (3, 32)

    with pytest.raises(Killed):
        execute(config, tmp_path / "killed", KillAt(5))
    assert [path.name for path in checkpoints(tmp_path / "killed" / "checkpoints")][-1] == "step-00000004"
    assert execute(config, tmp_path / "killed").record["resumed_from_step"] == 4
    one, other = (load_file(tmp_path / name / EMBEDS)["<new>"] for name in ("whole", "killed"))
    assert torch.equal(one, other)


def test_vectors_whose_step_is_not_reached_are_not_saved(make, tmp_path):
    execute(make(method__vectors=3, method__grow_at=[2, 100]), tmp_path / "run")
    assert load_file(tmp_path / "run" / EMBEDS)["<new>"].shape == (2, 32)
    _, [attachment] = load_run(tmp_path / "run")
    assert len(attachment.words["<new>"]) == 2


@pytest.mark.parametrize("turned", [False, True], ids=["lora first", "word first"])
def test_pivotal_tuning_trains_word_and_lora_at_their_own_rates(make, tmp_path, turned):
    sections = PIVOTAL if not turned else {"method": PIVOTAL["stack"][0], "stack": [PIVOTAL["method"]]}
    result = execute(make(sections), tmp_path / "run")
    assert len(result.record["files"]) == 2
    base, attachments = load_run(tmp_path / "run")
    word = attachments[0 if turned else 1]
    ids = base.tokenizer("dog", add_special_tokens=False).input_ids
    moved = (word.state()["<new>"] - base.text_encoder.get_input_embeddings().weight[ids]).abs()
    # Adam's first steps are as long as the rate: six of 2e-3 here, of 1e-4 in the LoRA.
    assert 2e-3 < moved.median() < 7 * type(word.method).learning_rate
    lora = attachments[1 if turned else 0]
    ups = [value.abs().max() for name, value in lora.state().items() if "lora_B" in name or "up" in name.split(".")]
    assert 0 < max(ups) < 8 * type(lora.method).learning_rate < 1e-3


def test_gradients_pass_through_checkpointing_and_half_precision(make, tmp_path):
    execute(make(train__gradient_checkpointing=True), tmp_path / "recomputed")
    execute(make(), tmp_path / "kept")
    execute(make(train__precision="bf16"), tmp_path / "half")
    one, other, half = (load_file(tmp_path / name / EMBEDS)["<new>"] for name in ("kept", "recomputed", "half"))
    torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-5)
    assert half.dtype == torch.float32
    losses = [[entry["loss"] for entry in read_trace(tmp_path / name)] for name in ("kept", "half")]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_plan_counts_the_vectors(make):
    plan = make_plan(make(method__vectors=3))
    assert plan.trainable_parameters == 3 * 32
    assert plan.methods[0].components == ("text_encoder",)
    assert {kind.name: kind.trainable_parameters for kind in plan.kinds if kind.trainable_parameters} == {
        "text embeddings": 96
    }
    assert plan.memory.optimizer_bytes == 2 * 4 * 96
    assert plan.disk.text_bytes == 0  # captions are read at every step
    assert plan.work.backward_image_flops > 0.5 * plan.work.forward_image_flops  # through the whole denoiser
    both = make_plan(make(PIVOTAL))
    assert [method.learning_rate for method in both.methods] == [1e-4, 2e-3]


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ({"data__prompt": "a photo of new"}, ConfigError, "method.token='<new>': none of the 1 captions contains"),
        ({"method__token": "sks"}, TargetError, "method.token='sks': the base's vocabulary has this word"),
        ({"method__init": "zebra"}, TargetError, "method.init='zebra': the base's tokenizer cuts 'zebra' into 5"),
        ({"method__vectors": 76}, TargetError, "method.vectors=76: a prompt has room for 75 tokens"),
        ({"method__vectors": 74}, ConfigError, "has 77 tokens, 74 of them for '<new>', and the text encoder reads"),
        (
            {"method__vectors": 74, "method__grow_at": list(range(1, 74))},
            ConfigError,
            "has 77 tokens, 74 of them for '<new>'",
        ),
    ],
)
def test_mistakes_are_found_before_training_and_in_plans(make, tmp_path, overrides, error, said):
    config = make(**overrides)
    for attempt in (lambda: execute(config, tmp_path / "run"), lambda: make_plan(config)):
        with pytest.raises(error, match=said):
            attempt()
    assert not (tmp_path / "run").exists()


def test_the_same_word_twice_is_refused(make, tmp_path):
    with pytest.raises(TargetError, match="another method of the stack brings this word"):
        execute(make({"stack": [{"name": "textual_inversion"}]}), tmp_path / "run")


def test_a_word_stays_beside_the_base(make):
    with pytest.raises(ConfigError, match="full saves a whole model, into which textual_inversion cannot be merged"):
        make({"stack": [{"name": "full"}]})
