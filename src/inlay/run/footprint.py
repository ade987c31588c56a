"""Memory and arithmetic of a run's phases: encoding the pictures, training, drawing previews."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inlay.base.autoencoder import coded_together
from inlay.base.contract import Base
from inlay.base.sampling import sample
from inlay.data.dataset import Dataset
from inlay.methods import Attachment
from inlay.run.class_images import DRAWN_TOGETHER, ClassImagesPlan
from inlay.run.config import JobConfig
from inlay.run.cost import Arithmetic, forward_cost, step_cost
from inlay.run.machine import Machine
from inlay.run.solver import make_solver
from inlay.train.precision import LOWERED
from inlay.train.settings import TrainSettings

DRAWN_AT_A_TIME = int(inspect.signature(sample).parameters["batch_size"].default)
CAPTIONS_AT_A_TIME = 64
ALLOCATOR_SHARE = 0.6
"""On a CPU the C library's allocator keeps part of what activations free, because the pieces do not fit what comes
next. Measured with glibc and this loop: 30 to 70 % of the activations without gradient checkpointing, about as many
bytes with it. Accelerators need little."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device that trains; on a CPU the originals and the libraries lie there too."""

    frozen_weights_bytes: int
    trained_weights_bytes: int
    optimizer_bytes: int
    """What the optimizer keeps, such as AdamW's two running means; at most."""
    average_bytes: int
    """Averaged weights (`train.ema`)."""
    originals_bytes: int
    """Full tuning's copy of the weights that it changes, in the host's memory."""
    libraries_bytes: int
    """Python and the libraries, on a CPU; 0 elsewhere."""
    gradients_bytes: int
    activations_bytes: int
    """Most at one moment of a micro-batch, gradients of the weights apart."""
    allocator_bytes: int
    """Freed but not given back, on a CPU; see ``ALLOCATOR_SHARE``."""
    kept_for_backward_bytes: int
    """What of the activations the backward pass needs, and gradient checkpointing therefore saves."""
    overlap_bytes: int
    """By how much gradients and activations together are less than their sum: some go while others come."""
    encoding_bytes: int
    """Peak of encoding pictures and captions."""
    training_bytes: int
    """Peak of a training step."""
    previews_bytes: int
    """Peak of drawing previews."""
    peak_bytes: int
    """The greatest of the three."""
    training_bytes_other: int
    """Peak of a training step if `train.gradient_checkpointing` were the other way round."""


@dataclass(frozen=True)
class Work:
    """FLOPs, multiplications and additions each counted."""

    forward_image_flops: int
    """The denoiser (and what else trains) on one picture."""
    backward_image_flops: int
    """Only what the trained parameters need; with gradient checkpointing, also what is computed again."""
    encode_picture_flops: int
    encode_caption_flops: int
    forward_step_flops: int
    """Over the whole batch; with what is encoded at every visit."""
    backward_step_flops: int
    training_flops: int | None
    """All steps; null when their number is not known."""
    preview_flops: int
    """One round of previews."""
    class_images_flops: int | None
    """Drawing the class pictures (`data.prior`) that are still missing; null when their number is not known."""


def footprint(
    config: JobConfig,
    base: Base,
    attachments: Sequence[Attachment],
    latent_shape: tuple[int, int, int],
    dataset: Dataset | None,
    class_images: ClassImagesPlan | None,
    steps: int | None,
    machine: Machine,
) -> tuple[Memory, Work, int]:
    """Return memory and work of a run, and the bytes of one number of the text states.

    Args:
        config: the job.
        base: on the meta device, methods attached and frozen weights cast.
        attachments: the attached methods.
        latent_shape: [C, h, w] of one picture.
        dataset: the pictures, None when they are not here.
        class_images: the class pictures, None without.
        steps: optimizer steps, None when not known.
        machine: where it would run.
    """
    train = config.train
    arithmetic = Arithmetic(LOWERED[train.precision], machine.device != "cpu")
    full = Arithmetic(None, machine.device != "cpu")  # the autoencoder's, always
    tuned = frozenset().union(*(attachment.components for attachment in attachments))
    owned = {id(p): p for attachment in attachments for p in attachment.parameters().values()}
    # Class pictures double what a step shows: in the same pass through the denoiser, or in another.
    shown = 2 if class_images is not None else 1
    passes = 2 if config.data.prior_apart else 1
    micro_batch = train.batch_size // train.accumulate * shown // passes
    costs = {
        checkpointing: step_cost(base, owned.values(), (micro_batch, *latent_shape), arithmetic, checkpointing)
        for checkpointing in (False, True)
    }
    cost = costs[train.gradient_checkpointing]
    cached = "vae" not in tuned and config.data.crop == "center"

    side = latent_shape[1] * base.architecture.downscale
    # As many as Diffusion.build_caches encodes together.
    pictures = coded_together((side, side)) if cached else micro_batch
    if cached and dataset is not None and (class_images is None or class_images.pictures is not None):
        most = len(dataset) + len(dataset.validation)
        pictures = min(pictures, max(most, class_images.pictures or 0) if class_images is not None else most)
    encoded = forward_cost(base, full, lambda: base.encode_images(torch.empty(pictures, 3, side, side)))
    captions = _captions(dataset)
    texts = min(CAPTIONS_AT_A_TIME, captions + shown)  # the empty one, and the class's, among them
    ids = (texts, base.architecture.prompt_ids)
    read = forward_cost(base, arithmetic, lambda: base.encode_tokens(torch.zeros(ids, dtype=torch.int64)))
    prompts = len(config.preview.prompts) if config.preview.prompts else min(4, max(1, captions))
    drawn = prompts * config.preview.pictures
    to_draw = class_images.to_draw if class_images is not None else 0
    at_a_time = max(min(drawn, DRAWN_AT_A_TIME), DRAWN_TOGETHER if to_draw != 0 else 0)
    sides = 1 if config.preview.guidance == 1 else 2
    shape = base.architecture.text_shape
    with torch.device("meta"):
        rows = sides * at_a_time
        conditions = torch.empty(rows, *shape) if shape else torch.zeros((rows, ids[1]), dtype=torch.int64)
    called = forward_cost(
        base,
        arithmetic,
        lambda: base.predict(
            torch.empty(sides * at_a_time, *latent_shape),
            torch.zeros(sides * at_a_time, dtype=torch.int64),
            conditions,
        ),
    )
    decoded_at_a_time = min(at_a_time, coded_together((side, side)))
    decoded = forward_cost(base, full, lambda: base.decode(torch.empty(decoded_at_a_time, *latent_shape)))
    calls = make_solver(base, config.preview.sampler, config.preview.steps).calls
    picture_flops = calls * called.flops // at_a_time + decoded.flops // decoded_at_a_time

    trained = sum(parameter.nbytes for parameter in owned.values())
    optimizer = 4 * optimizer_numbers(train, attachments)
    average = trained * train.averages
    originals = sum(
        parameter.nbytes
        for attachment in attachments
        if attachment.method.result == "pipeline"
        for parameter in attachment.parameters().values()
    )
    on_cpu = machine.device == "cpu"
    libraries = machine.process_bytes if on_cpu else 0
    frozen = sum(
        tensor.nbytes
        for module in base.components.values()
        for tensor in (*module.parameters(), *module.buffers())
        if id(tensor) not in owned
    )
    weights = frozen + trained + libraries + (originals if on_cpu else 0)
    standing = weights + optimizer + average
    spare = ALLOCATOR_SHARE if on_cpu else 0.0
    encoding = (weights if cached else standing) + round((1 + spare) * max(encoded.peak_bytes, read.peak_bytes))
    # While averaged weights are in place, the others are kept aside.
    aside = trained if train.ema or train.optimizer.averages else 0
    previews = standing + aside + round((1 + spare) * max(called.peak_bytes, decoded.peak_bytes))
    fragments = round(spare * costs[False].activations_bytes)
    training = {checkpointing: standing + each.peak_bytes + fragments for checkpointing, each in costs.items()}
    memory = Memory(
        frozen_weights_bytes=frozen,
        trained_weights_bytes=trained,
        optimizer_bytes=optimizer,
        average_bytes=average,
        originals_bytes=originals,
        libraries_bytes=libraries,
        gradients_bytes=trained,
        activations_bytes=cost.activations_bytes,
        allocator_bytes=fragments,
        kept_for_backward_bytes=cost.kept_bytes,
        overlap_bytes=trained + cost.activations_bytes - cost.peak_bytes,
        encoding_bytes=encoding,
        training_bytes=training[train.gradient_checkpointing],
        previews_bytes=previews,
        peak_bytes=max(encoding, training[train.gradient_checkpointing], previews),
        training_bytes_other=training[not train.gradient_checkpointing],
    )
    encode_picture = encoded.flops // pictures
    encoded_flops = 0 if cached else encode_picture * train.batch_size * shown
    forward = cost.forward_flops * train.accumulate * passes + encoded_flops
    backward = cost.backward_flops * train.accumulate * passes
    drawing = 0
    if config.data.prior is not None and to_draw is not None:
        prior = config.data.prior
        call = called.flops // (sides * at_a_time) * (1 if prior.guidance == 1 else 2)
        whole_groups = -(-to_draw // DRAWN_TOGETHER) * DRAWN_TOGETHER
        drawing = whole_groups * (prior.steps * call + decoded.flops // decoded_at_a_time)
    work = Work(
        forward_image_flops=cost.forward_flops // micro_batch,
        backward_image_flops=cost.backward_flops // micro_batch,
        encode_picture_flops=encode_picture,
        encode_caption_flops=read.flops // texts,
        forward_step_flops=forward,
        backward_step_flops=backward,
        training_flops=None if steps is None else steps * (forward + backward),
        preview_flops=drawn * picture_flops,
        class_images_flops=None if to_draw is None else drawing,
    )
    return memory, work, read.result.element_size()


def optimizer_numbers(train: TrainSettings, attachments: Sequence[Attachment]) -> int:
    """Return how many numbers the optimizer keeps of all trained parameters, at most."""
    return sum(
        train.optimizer.kept(name, parameter.shape)
        for attachment in attachments
        for name, parameter in attachment.parameters().items()
    )


def _captions(dataset: Dataset | None) -> int:
    if dataset is None:
        return 0
    return len({example.caption for example in (*dataset.examples, *dataset.validation)})
