"""A batch's losses: pictures and captions => latents and conditions => noise => prediction => loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from inlay.base.autoencoder import coded_together
from inlay.base.contract import Base
from inlay.data.cache import TensorCache
from inlay.data.dataset import Batch, Dataset, Item
from inlay.data.farm import farm
from inlay.data.sources import Example
from inlay.data.views import View, center_view, mask_weights, pixels
from inlay.objective.live import LiveObjective
from inlay.objective.loss import loss_per_sample
from inlay.objective.settings import Objective
from inlay.randomness import stream
from inlay.train.noise_path import noise_path

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

VALIDATION_TIMESTEPS = 8
"""Timesteps, evenly spread, at which the loss on held-out pictures is measured."""


@dataclass
class Diffusion:
    """The objective of one run, bound to its base and its data.

    A picture's latents are drawn from the autoencoder's posterior anew at every visit, from its cached mean and
    standard deviation, so that caching changes nothing.
    """

    base: Base
    dataset: Dataset
    objective: Objective
    seed: int
    tuned: frozenset[str]
    """Parts of the base whose output training changes; nothing that depends on them is cached."""
    prior: Dataset | None = None
    """Pictures of the subject's class, which are shown beside the others (`data.prior`)."""
    _latents: TensorCache | None = field(init=False, default=None)
    _states: TensorCache | None = field(init=False, default=None)
    _masks: TensorCache | None = field(init=False, default=None)
    _state_keys: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.path = noise_path(self.base.architecture)
        self.objective = self.objective.resolved(self.base.prediction)
        self.live = LiveObjective(self.objective, self.path, self.seed, self.base.device)

    def build_caches(self, progress: Progress) -> None:
        """Encode every picture and caption once, as far as they stay the same."""
        with farm():
            if "vae" not in self.tuned and self.dataset.cacheable:
                self._cache_latents(progress)
            if self.dataset.settings.mask is not None and self.dataset.cacheable:
                self._cache_masks(progress)
        readers = self.base.architecture.readers
        if readers and self.tuned.isdisjoint(readers):
            self._cache_states(progress)

    @property
    def _datasets(self) -> list[Dataset]:
        return [self.dataset] if self.prior is None else [self.dataset, self.prior]

    def _cache_latents(self, progress: Progress) -> None:
        base = self.base
        places: dict[str, tuple[Example, View]] = {}
        # Sizes apart, because a call encodes pictures of one; data sets apart, so that one does not change which
        # pictures of the other are encoded together, which can change their last bits.
        groups: dict[tuple[int, int, int], list[str]] = {}
        for number, dataset in enumerate(self._datasets):
            shown = [(example, view) for index, example in enumerate(dataset.examples) for view in dataset.views(index)]
            shown += [(example, center_view(example, dataset.size(example))) for example in dataset.validation]
            for example, view in shown:
                key = dataset.pixel_key(example, view)
                if key not in places:
                    groups.setdefault((number, view.height, view.width), []).append(key)
                    places[key] = example, view

        def read(key: str) -> Tensor:
            return pixels(*places[key])

        def encode(keys: Sequence[str]) -> dict[str, Tensor]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and resizing release the interpreter's lock
                shown = list(pool.map(read, keys))
            mean, std = base.encode_images(torch.stack(shown))
            return {"mean": mean} if std is None else {"mean": mean, "std": std}

        self._latents = TensorCache(f"latents 2 {base.image_encoder_hash()}")
        _build(self._latents, groups, encode, partial(progress, "encoding pictures"))

    def _cache_masks(self, progress: Progress) -> None:
        """Read every mask once: a photograph's mask takes as long to decode as the photograph."""
        settings = self.dataset.settings.mask
        assert settings is not None
        places: dict[str, tuple[Example, View]] = {}
        groups: dict[tuple[int, int, int], list[str]] = {}
        for index, example in enumerate(self.dataset.examples):
            for view in self.dataset.views(index):
                key = _mask_key(self.dataset, example, view)
                groups.setdefault((0, view.height, view.width), []).append(key)
                places[key] = example, view

        def read(keys: Sequence[str]) -> dict[str, Tensor]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return {"weights": torch.stack([*pool.map(lambda key: self._mask(*places[key]), keys)])}

        self._masks = TensorCache(f"masks 1 {settings.outside} {self.base.architecture.downscale}")
        _build(self._masks, groups, read, partial(progress, "reading masks"))

    def _mask(self, example: Example, view: View) -> Tensor:
        settings = self.dataset.settings.mask
        assert settings is not None
        return mask_weights(example, view, settings, self.base.architecture.downscale)

    def _places(self, items: Sequence[Item]) -> Tensor | None:
        """Return by what the loss at each latent pixel is multiplied, float32 [b, 1, h, w]; None for nothing."""
        if self.dataset.settings.mask is None:
            return None
        return torch.stack([self._place(item.example, item.view) for item in items])

    def _place(self, example: Example, view: View) -> Tensor:
        if self._masks is None or example.mask is None:  # a class picture, whose weights need no reading
            return self._mask(example, view)
        return self._masks.get([_mask_key(self.dataset, example, view)])["weights"][0]

    def _cache_states(self, progress: Progress) -> None:
        base = self.base
        examples = [example for dataset in self._datasets for example in (*dataset.examples, *dataset.validation)]
        captions = list(dict.fromkeys(["", *(example.caption for example in examples)]))
        # Kept by token ids, not by caption: another tokenizer of the same size must not find these.
        ids = base.tokenize(captions)
        tokens = {" ".join(map(str, row.tolist())): row for row in ids}
        self._state_keys = dict(zip(captions, (" ".join(map(str, row.tolist())) for row in ids), strict=True))

        @torch.no_grad()
        def read(keys: Sequence[str]) -> dict[str, Tensor]:
            return {"states": base.encode_tokens(torch.stack([tokens[key] for key in keys]))}

        dtype = next(base.components[base.architecture.readers[0]].parameters()).dtype
        self._states = TensorCache(f"text states 2 {base.prompt_reader_hash()} {dtype}")
        self._states.build(tokens, read, 64, lambda now, total: progress("encoding captions", now, total))

    def losses(self, batches: Sequence[Batch], step: int, part: slice) -> Tensor:
        """Return the weighted losses of some pictures of each batch, float32 [len(batches), b], with a graph.

        All of them go through the denoiser together. Noise and timesteps are drawn for each whole batch from its own
        seed and then cut, so they depend neither on how it is spread over processes and micro-batches nor on what is
        shown beside it.

        Args:
            batches: the whole batches of the step, of the pictures to learn, of the class's (`data.prior`), or both.
            step: the optimizer step.
            part: which of each batch's pictures.
        """
        drawn = [self._drawn(batch, step, part) for batch in batches]
        clean, states, noise, timesteps = (torch.cat(tensors) for tensors in zip(*drawn, strict=True))
        places = self._places([item for batch in batches for item in batch.items[part]])
        weights, offset = self.live.terms(timesteps)
        losses = self._loss(clean, noise, timesteps, states, weights, places)
        if offset is not None:
            losses = losses + offset.to(losses.device)
        self.live.note(timesteps, losses)
        return losses.view(len(batches), -1)

    def errors(self, timesteps: Tensor, seed: int, number: int) -> Tensor:
        """Return unweighted losses at given timesteps, float32 [b], with a graph, on pictures and noise of a draw.

        Args:
            timesteps: int64 [b] on the CPU.
            seed: of the draw.
            number: of the batch within it.
        """
        batch = self.dataset.batch(seed, number, len(timesteps))
        count = len(batch.items)
        clean, states = self._inputs(batch.items, stream(seed, "posterior", number), count, slice(0, count))
        noise = torch.randn(clean.shape, generator=stream(seed, "noise", number))
        return self._loss(clean, noise, timesteps, states, torch.ones(count), self._places(batch.items))

    def _drawn(self, batch: Batch, step: int, part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return latents, conditions, noise and timesteps of a part of a batch."""
        count = len(batch.items)
        timesteps = self.live.draw(stream(batch.seed, "timesteps", step), count)
        clean, states = self._inputs(batch.items[part], stream(batch.seed, "posterior", step), count, part)
        noise = torch.randn((count, *clean.shape[1:]), generator=stream(batch.seed, "noise", step))
        return clean, states, noise[part], timesteps[part]

    @property
    def validation_timesteps(self) -> Tensor:
        """The timesteps of :meth:`validation_losses`, int64 [T]."""
        return torch.linspace(0, self.path.timesteps - 1, VALIDATION_TIMESTEPS + 2)[1:-1].long()

    @torch.no_grad()
    def validation_losses(self) -> Tensor | None:
        """Return the unweighted losses on the held-out pictures, float64 [pictures, T]; None without any.

        Noise and timesteps are fixed, so values of one seed and data set differ by the weights alone.
        """
        if not self.dataset.validation:
            return None
        levels = self.validation_timesteps
        rows = []
        for index, example in enumerate(self.dataset.validation):
            item = Item(-1, example, center_view(example, self.dataset.size(example)), example.caption, index)
            clean, states = self._inputs([item], stream(self.seed, "validation posterior", index), 1, slice(0, 1))
            noise = torch.randn(
                (VALIDATION_TIMESTEPS, *clean.shape[1:]), generator=stream(self.seed, "validation noise", index)
            )
            wide = [tensor.expand(VALIDATION_TIMESTEPS, *tensor.shape[1:]) for tensor in (clean, states)]
            losses = self._loss(wide[0], noise, levels, wide[1], torch.ones(VALIDATION_TIMESTEPS))
            rows.append(losses.double().cpu())
        return torch.stack(rows)

    def _loss(
        self,
        clean: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        states: Tensor,
        weights: Tensor,
        places: Tensor | None = None,
    ) -> Tensor:
        prediction = self.objective.prediction
        assert prediction != "auto"
        noise = noise.to(clean.device)
        noisy = self.path.add_noise(clean, noise, timesteps)
        output = self.base.predict(noisy, timesteps.to(clean.device), states)
        return loss_per_sample(output, self.path.target(prediction, clean, noise, timesteps), weights, places)

    def _inputs(
        self, items: Sequence[Item], generator: torch.Generator, count: int, part: slice
    ) -> tuple[Tensor, Tensor]:
        """Return latents [b, C, h, w] and conditions [b, ...] of some of ``count`` pictures on the base's device."""
        keys = [self.dataset.pixel_key(item.example, item.view) for item in items]
        if self._latents is not None:
            posterior = self._latents.get(keys)
            mean, std = posterior["mean"], posterior.get("std")
        else:
            shown = [pixels(item.example, item.view) for item in items]
            mean, std = self.base.encode_images(torch.stack(shown))
        device = self.base.device
        clean = mean.to(device)
        if std is not None:
            draw = torch.randn((count, *mean.shape[1:]), generator=generator)[part]
            clean = clean + std.to(device) * draw.to(device)
        captions = [item.caption for item in items]
        if self._states is not None:
            states = self._states.get([self._state_keys[caption] for caption in captions])["states"].to(device)
        else:
            states = self.base.encode_text(captions)
        return clean, states


def _build(
    cache: TensorCache,
    groups: Mapping[tuple[int, int, int], list[str]],
    compute: Callable[[Sequence[str]], dict[str, Tensor]],
    told: Callable[[int, int], None],
) -> None:
    """Fill a cache, group after group: those of one data set (its number, height, width) are of one shape."""
    total, done = sum(map(len, groups.values())), 0
    for (_, height, width), keys in groups.items():
        cache.build(keys, compute, coded_together((height, width)), lambda now, _, done=done: told(done + now, total))
        done += len(keys)


def _mask_key(dataset: Dataset, example: Example, view: View) -> str:
    """Return a key that names the weights of a picture's mask."""
    assert example.mask is not None
    return f"{example.mask.sha256}:{dataset.pixel_key(example, view)}"
