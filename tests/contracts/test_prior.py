"""Prior preservation with every kind of method: nothing about it depends on what trains."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from inlay.base.families import load_base
from inlay.base.settings import BaseSettings
from inlay.base.stable_diffusion import StableDiffusion
from inlay.data.dataset import Dataset
from inlay.data.prior import Prior, make_prior
from inlay.data.settings import DataSettings, PriorSettings
from inlay.data.sources import Example, Loaded
from inlay.methods import Method
from inlay.objective.settings import Objective
from inlay.run.attach import attach
from inlay.train.diffusion import Diffusion
from inlay.train.loop import Loop
from inlay.train.settings import TrainSettings
from tests.contracts.bases import perturb
from tests.contracts.variants import VARIANTS

ACCELERATOR = Accelerator(cpu=True, mixed_precision="no")
WEIGHT = 0.5
METHODS = {name: variants[0] for name, variants in VARIANTS.items()}
"""One of each kind; those with a tokenizer's word in them get captions that hold it."""


def example(number: int, caption: str) -> Example:
    shade = (40 * number, 255 - 40 * number, 90)
    return Example(
        f"{caption} {number}", caption, f"{caption} {number}", 32, 32, lambda: Image.new("RGB", (32, 32), shade)
    )


class Run:
    """A step's losses and gradients on a tiny base, with a method attached and its parameters off their start."""

    def __init__(self, tiny_base, method: Method, folder, **train):
        settings = DataSettings(source="photos", prior=PriorSettings(prompt="a dog", weight=WEIGHT))
        word = getattr(method, "token", "sks")
        subject = Dataset(tuple(example(n, f"a {word} dog") for n in range(4)), (), settings, 32)
        self.subject = subject
        self.prior: Prior = make_prior(subject, Loaded([example(n, "a dog") for n in range(5)], [], []), [], "")
        self.base: StableDiffusion = load_base(BaseSettings(model=str(tiny_base)))
        [self.attachment] = attach([method], self.base, 0)
        perturb(self.attachment)
        parts = self.attachment.components
        self.diffusion = Diffusion(
            self.base, subject, Objective(), seed=0, tuned=frozenset(parts), prior=self.prior.dataset
        )
        self.diffusion.build_caches(lambda what, done, total: None)
        self.train = TrainSettings(steps=1, batch_size=4, clip_norm=None, checkpoint_every=None, **train)
        folder.mkdir()
        self.folder = folder

    def batches(self, step):
        return self.subject.batch(0, step, 4), self.prior.batch(0, step, 4)

    def step(self, cuts) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """Return the terms of the loss and the gradients of one step, in as many passes as there are cuts."""
        parameters = self.attachment.parameters()
        terms = {"instance_loss": 1.0, "prior_loss": WEIGHT}
        loop = Loop(self.train, parameters, 1e-3, 0, 4, self.folder, ACCELERATOR, "run", terms)
        gradients: dict[str, torch.Tensor] = {}

        def keep(*_, **__):
            gradients.update({name: p.grad.clone() for name, p in parameters.items() if p.grad is not None})

        loop.optimizers[0].step = keep

        def some(cut):
            return lambda step, part: self.diffusion.losses(self.batches(step)[cut], step, part)

        with self.base.evaluating():
            means, _ = loop.step(0, 1e-3, [some(cut) for cut in cuts], lambda step, part: [])
        return means, gradients


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_one_pass_two_passes_and_micro_batches_give_one_gradient(method, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))
    together, apart = [slice(0, 2)], [slice(0, 1), slice(1, 2)]
    means, gradients = Run(tiny_base, method, tmp_path / "one").step(together)
    assert means["loss"] == pytest.approx(means["instance_loss"] + WEIGHT * means["prior_loss"])
    assert means["instance_loss"] != pytest.approx(means["prior_loss"], rel=1e-4)
    assert any(gradient.abs().max() > 0 for gradient in gradients.values())
    for number, (cuts, accumulate) in enumerate([(apart, 1), (together, 2), (apart, 2)]):
        other, found = Run(tiny_base, method, tmp_path / str(number), accumulate=accumulate).step(cuts)
        # Rounding only; how much it grows on the way depends on the size of the method's update.
        assert other == pytest.approx(means, rel=1e-3)
        assert found.keys() == gradients.keys()
        whole = torch.cat([gradient.flatten() for gradient in gradients.values()])
        apart_from_it = torch.cat([found[name].flatten() for name in gradients]) - whole
        assert apart_from_it.norm() < 0.01 * whole.norm()


def test_the_subject_sees_the_same_noise_with_class_pictures_and_without(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))
    run = Run(tiny_base, METHODS["lora"], tmp_path / "run")
    with torch.no_grad(), run.base.evaluating():
        subject, prior = run.batches(3)
        both = run.diffusion.losses([subject, prior], 3, slice(0, 4))
        alone = run.diffusion.losses([subject], 3, slice(0, 4))
        of_class = run.diffusion.losses([prior], 3, slice(0, 4))
    torch.testing.assert_close(both, torch.cat([alone, of_class]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone, of_class, rtol=1e-3)
    drawn = [run.diffusion._drawn(batch, 3, slice(0, 4)) for batch in (subject, prior)]
    assert not torch.equal(drawn[0][2], drawn[1][2])
    assert not torch.equal(drawn[0][3], drawn[1][3])


def test_stratified_timesteps_are_spread_in_each_half(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))
    run = Run(tiny_base, METHODS["lora"], tmp_path / "run")
    objective = Objective.model_validate({"timesteps": {"name": "uniform", "stratified": True}})
    diffusion = Diffusion(run.base, run.subject, objective, 0, frozenset({"unet"}), run.prior.dataset)
    diffusion.build_caches(lambda what, done, total: None)
    for step in range(5):
        for batch in run.batches(step):
            timesteps = diffusion._drawn(batch, step, slice(0, 4))[3]
            assert sorted((timesteps // 250).tolist()) == [0, 1, 2, 3]
