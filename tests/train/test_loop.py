"""The loop on a net of six weights: no pictures, no diffusion model."""

import copy
import json
import math
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from inlay.errors import ArtifactError, ConfigError, TrainingError
from inlay.train.checkpoint import checkpoints
from inlay.train.loop import Loop
from inlay.train.settings import TrainSettings

ACCELERATOR = Accelerator(cpu=True, mixed_precision="no")
FILES = [f"{index}.png" for index in range(4)]


class Toy:
    """Fit y = A x on drawn points; the batch of a step follows from the step."""

    def __init__(self, directory, run_hash="toy", images_per_epoch=8, terms=None, **settings):
        torch.manual_seed(0)
        self.net = nn.Linear(3, 2, bias=False)
        self.settings = TrainSettings(**{"steps": 6, "batch_size": 4, "checkpoint_every": None, **settings})
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.loop = Loop(
            self.settings,
            dict(self.net.named_parameters()),
            0.1,
            0,
            images_per_epoch,
            directory,
            ACCELERATOR,
            run_hash,
            terms,
        )
        self.minimised = [self.losses]
        self.names = lambda step, part: FILES[part]
        self.factor = lambda step, part: torch.ones(4)[part]
        self.seen = []
        self.states = []
        self.after = lambda step: None
        self.validation = lambda: None

    def losses(self, step, part):
        self.seen.append((step, part.start, part.stop))
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(4, 3, generator=generator)[part], torch.randn(4, 2, generator=generator)[part]
        return ((self.net(x) - y) ** 2).mean(1) * self.factor(step, part)

    def run(self):
        return self.loop.run(
            self.minimised,
            self.names,
            self.states.append,
            lambda step: self.after(step),
            lambda: self.validation(),
        )

    @property
    def weight(self):
        return self.net.weight.detach().clone()

    def trace(self):
        return [json.loads(line) for line in (self.directory / "trace.jsonl").read_text().splitlines()]


def by_hand(directory, clip=None):
    """Return the weights after the toy's six steps, written with torch alone."""
    toy = Toy(directory)
    optimizer = torch.optim.AdamW(toy.net.parameters(), lr=0.1, weight_decay=1e-2, fused=True)
    norms = []
    for step in range(6):
        optimizer.zero_grad()
        toy.losses(step, slice(0, 4)).mean().backward()
        norms.append(torch.nn.utils.clip_grad_norm_(toy.net.parameters(), clip or math.inf).item())
        optimizer.step()
    return toy.weight, norms


@pytest.mark.parametrize("clip", [None, 0.01])
def test_steps_are_those_of_plain_torch(tmp_path, clip):
    expected, norms = by_hand(tmp_path / "hand", clip)
    toy = Toy(tmp_path / "run", clip_norm=clip)
    outcome = toy.run()
    assert (outcome.steps, outcome.stopped, outcome.resumed_from) == (6, False, None)
    torch.testing.assert_close(toy.weight, expected)
    assert [entry["gradient_norm"] for entry in toy.trace()] == pytest.approx(norms)
    assert all(norm > 0.01 for norm in norms)  # what is traced is the norm before clipping


def test_clipping_changes_the_weights(tmp_path):
    one, other = Toy(tmp_path / "one", clip_norm=1e-9), Toy(tmp_path / "other", clip_norm=None)
    one.run()
    other.run()
    assert not torch.allclose(one.weight, other.weight)


def test_micro_batches_add_up_to_the_batch(tmp_path):
    whole, cut = Toy(tmp_path / "whole"), Toy(tmp_path / "cut", accumulate=4)
    whole.run()
    cut.run()
    torch.testing.assert_close(whole.weight, cut.weight)
    assert [entry["loss"] for entry in whole.trace()] == pytest.approx([entry["loss"] for entry in cut.trace()])
    assert cut.seen[:5] == [(0, 0, 1), (0, 1, 2), (0, 2, 3), (0, 3, 4), (1, 0, 1)]


def test_a_batch_that_cannot_be_spread_is_refused():
    settings = TrainSettings(steps=1, batch_size=4, accumulate=2)
    assert settings.micro_batch(2) == 1
    with pytest.raises(ConfigError, match=r"batch_size=4 cannot be spread over 3 processes x 2 micro-batches.*of 6"):
        settings.micro_batch(3)


def test_the_schedule_is_applied(tmp_path):
    toy = Toy(tmp_path / "run", schedule={"name": "linear", "warmup_steps": 2})
    toy.run()
    assert [entry["learning_rate"] for entry in toy.trace()] == pytest.approx([0.05, 0.1, 0.1, 0.075, 0.05, 0.025])


def test_parameters_have_rates_of_their_own(tmp_path):
    rates = {"weight": 0.1, "bias": 0.3}
    toy = Toy(tmp_path / "run", schedule={"name": "linear"}, clip_norm=None)
    toy.net = nn.Linear(3, 2)
    expected = copy.deepcopy(toy.net)
    parameters = dict(toy.net.named_parameters())
    toy.loop = Loop(toy.settings, parameters, rates, 0, 8, toy.directory, ACCELERATOR, "toy")
    toy.run()
    trained, toy.net = toy.net, expected
    groups = [{"params": [parameter], "lr": rates[name]} for name, parameter in expected.named_parameters()]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 6)
    for step in range(6):
        optimizer.zero_grad()
        toy.losses(step, slice(0, 4)).mean().backward()
        optimizer.step()
        schedule.step()
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(dict(trained.named_parameters())[name], parameter)
    assert toy.trace()[0]["learning_rate"] == 0.1


def test_previews_and_validation_see_the_average_and_training_does_not(tmp_path):
    toy = Toy(tmp_path / "run", ema={"decay": 0.5, "warmup": False}, validate_every=1)
    live, seen = [toy.weight], []
    toy.validation = lambda: seen.append(toy.weight) or 1.0
    toy.after = lambda step: live.append(toy.weight)
    toy.run()
    average = live[0]
    for weight, shown in zip(live[1:], seen, strict=True):
        average = 0.5 * average + 0.5 * weight
        torch.testing.assert_close(shown, average)
        assert not torch.allclose(shown, weight)
    plain = Toy(tmp_path / "plain")
    plain.run()
    torch.testing.assert_close(toy.weight, plain.weight, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon", "prodigy", "schedule_free"])
def test_a_run_with_any_optimizer_goes_on_to_the_same_bits_whatever_is_looked_at(tmp_path, name):
    whole = Toy(tmp_path / "whole", optimizer=name)
    whole.run()
    toy = Toy(tmp_path / "run", optimizer=name, checkpoint_every=3, validate_every=1)
    toy.validation = lambda: 1.0
    weights = []

    def end(step):
        weights.append(toy.weight)
        if step == 4:
            raise KeyboardInterrupt

    toy.after = end
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    again = Toy(tmp_path / "run", optimizer=name, checkpoint_every=3)
    assert again.run().resumed_from == 3
    assert torch.equal(again.weight, whole.weight)
    assert not torch.equal(again.weight, weights[0])
    assert [entry["loss"] for entry in again.trace()] == [entry["loss"] for entry in whole.trace()]


def test_the_rate_that_prodigy_found_is_reported_and_no_other_is(tmp_path):
    plain = Toy(tmp_path / "plain", optimizer={"name": "adafactor", "clip_threshold": 2})
    plain.run()
    assert {entry["learning_rate"] for entry in plain.trace()} == {0.1}
    toy = Toy(tmp_path / "run", optimizer={"name": "prodigy", "safeguard_warmup": False}, steps=30)
    toy.loop.learning_rate = 1.0
    toy.run()
    rates = [entry["learning_rate"] for entry in toy.trace()]
    assert rates[0] < 1e-5 < rates[-1]
    assert [state.learning_rate for state in toy.states] == rates


def test_a_loss_that_is_not_finite_changes_nothing_and_names_its_files(tmp_path):
    toy = Toy(tmp_path / "run", accumulate=2)
    toy.factor = lambda step, part: torch.tensor([1, 1, math.nan if step == 2 else 1, 1])[part]
    weights = []
    toy.after = lambda step: weights.append(toy.weight)
    with pytest.raises(TrainingError, match=r"the loss at step 3 is not finite, for 2\.png; the weights are those"):
        toy.run()
    assert torch.equal(toy.weight, weights[-1])
    assert len(toy.trace()) == 2
    assert toy.net.weight.grad is None


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path):
    toy = Toy(tmp_path / "run")
    toy.factor = lambda step, part: torch.ones(4)[part] * (1 + 0 * torch.sqrt(toy.net.weight.sum() * 0))  # sqrt'(0)
    before = toy.weight
    with pytest.raises(TrainingError, match=r"the gradient \(of a loss of \d.*at step 1 is not finite, for 0\.png, 1"):
        toy.run()
    assert torch.equal(toy.weight, before)


def test_half_precision_leaves_a_step_out_and_lowers_the_scale(tmp_path):
    toy = Toy(tmp_path / "run", precision="fp16", steps=2)
    toy.loop.scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    before = toy.weight
    weights = []
    toy.after = lambda step: weights.append(toy.weight)
    toy.run()
    assert toy.trace()[0]["gradient_norm"] is None
    assert torch.equal(weights[0], before)
    assert toy.loop.scaler.get_scale() < 1e38


def test_a_stop_is_kept_and_the_run_goes_on_to_the_same_weights(tmp_path):
    whole = Toy(tmp_path / "whole", ema={"decay": 0.5})
    whole.run()
    toy = Toy(tmp_path / "run", ema={"decay": 0.5})
    before = signal.getsignal(signal.SIGINT)

    def interrupt(state):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    toy.states = type("Reports", (), {"append": staticmethod(interrupt)})()
    outcome = toy.run()
    assert signal.getsignal(signal.SIGINT) is before
    assert outcome.stopped
    assert outcome.steps == 3  # asked for after its second step, it ends after the next
    again = Toy(tmp_path / "run", ema={"decay": 0.5})
    resumed = again.run()
    assert (resumed.resumed_from, resumed.steps, resumed.stopped) == (3, 6, False)
    assert torch.equal(again.weight, whole.weight)
    assert all(
        torch.equal(one, other) for one, other in zip(again.loop.ema.values(0), whole.loop.ema.values(0), strict=True)
    )
    assert resumed.smoothed_loss == Toy(tmp_path / "whole2").run().smoothed_loss
    assert resumed.seconds > outcome.seconds


def test_the_trace_is_cut_to_the_checkpoint(tmp_path):
    toy = Toy(tmp_path / "run", checkpoint_every=2)

    def end(step):
        if step == 5:
            raise RuntimeError("killed")

    toy.after = end
    with pytest.raises(RuntimeError):
        toy.run()
    with (tmp_path / "run" / "trace.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # half a line
    again = Toy(tmp_path / "run", checkpoint_every=2)
    assert again.run().resumed_from == 4
    assert [entry["step"] for entry in again.trace()] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_died_after_its_last_step_does_not_repeat_any(tmp_path):
    Toy(tmp_path / "run", checkpoint_every=4).run()
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000004", "step-00000006"]
    again = Toy(tmp_path / "run", checkpoint_every=4)
    outcome = again.run()
    assert (outcome.steps, outcome.resumed_from, again.seen) == (6, 6, [])


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    Toy(tmp_path / "run", checkpoint_every=1).run()
    with pytest.raises(ArtifactError, match="other data, base or start"):
        Toy(tmp_path / "run", checkpoint_every=1, run_hash="other").run()


def test_epochs_count_pictures(tmp_path):
    toy = Toy(tmp_path / "run", steps=None, epochs=1.5, images_per_epoch=8)
    assert toy.run().steps == 3


def test_a_validation_loss_that_is_not_finite_is_null(tmp_path):
    toy = Toy(tmp_path / "run", steps=1)
    toy.validation = lambda: math.inf
    toy.run()
    assert toy.trace()[0]["validation_loss"] is None


def two_terms(toy):
    """Return the toy's losses, and others of the same net that pull elsewhere."""

    def other(step, part):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1000 + step))[part]
        return (toy.net(x) + 1).square().mean(1)

    return toy.losses, other


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("apart", [False, True])
def test_a_weighted_sum_of_terms(tmp_path, apart, accumulate):
    toy = Toy(tmp_path / "run", terms={"first": 1.0, "second": 0.25}, accumulate=accumulate)
    first, second = two_terms(toy)
    toy.minimised = (
        [first, second] if apart else [lambda step, part: torch.stack([first(step, part), second(step, part)])]
    )
    toy.run()
    by_hand = Toy(tmp_path / "hand")
    first, second = two_terms(by_hand)
    optimizer = torch.optim.AdamW(by_hand.net.parameters(), lr=0.1, weight_decay=1e-2, fused=True)
    for step, entry in enumerate(toy.trace()):
        optimizer.zero_grad()
        one, other = first(step, slice(0, 4)).mean(), second(step, slice(0, 4)).mean()
        (one + 0.25 * other).backward()
        torch.nn.utils.clip_grad_norm_(by_hand.net.parameters(), 1.0)
        optimizer.step()
        told = [entry[name] for name in ("first", "second", "loss")]
        assert told == pytest.approx([one.item(), other.item(), (one + 0.25 * other).item()], rel=1e-5)
    torch.testing.assert_close(toy.weight, by_hand.weight)


def test_a_term_that_is_not_finite_names_its_own_files(tmp_path):
    toy = Toy(tmp_path / "run", terms={"first": 1.0, "second": 1.0})
    bad = torch.tensor([1, 1, 1, math.inf])
    toy.minimised = [toy.losses, lambda step, part: toy.losses(step, part) * bad[part]]
    toy.names = lambda step, part: [*FILES[part], *(f"class {name}" for name in FILES[part])]
    with pytest.raises(TrainingError, match=r"the loss at step 1 is not finite, for class 3\.png; the weights"):
        toy.run()
