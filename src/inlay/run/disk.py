"""What a run writes, counted before it begins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inlay.base.contract import BaseArchitecture
from inlay.data.dataset import Dataset
from inlay.data.settings import DataSettings
from inlay.data.views import center_view
from inlay.run.class_images import ClassImagesPlan
from inlay.run.config import JobConfig
from inlay.run.footprint import optimizer_numbers
from inlay.train.settings import PowerEma, TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from inlay.methods import Attachment

PNG_SHARE = 0.6
"""Size of a photograph as PNG over that of its pixels, about."""


@dataclass(frozen=True)
class Disk:
    """What a run writes."""

    result_bytes: int
    """The adapter, or the whole tuned pipeline."""
    latents_bytes: int | None
    """Cache of encoded pictures: null where they are not counted, 0 where they are encoded at every visit."""
    text_bytes: int | None
    """Cache of encoded captions, likewise."""
    class_images_bytes: int | None
    """Class pictures that the base draws, those of earlier runs counted; an estimate."""
    checkpoints_bytes: int
    """Those that are kept at a time."""
    averages_bytes: int
    """Stored averages of the weights (`train.ema: {name: power}`), at most."""


def disk(
    config: JobConfig,
    attachments: Sequence[Attachment],
    base: Sequence[Tensor],
    dataset: Dataset | None,
    class_images: ClassImagesPlan | None,
    architecture: BaseArchitecture,
    trainable: int,
    steps: int | None,
    text_itemsize: int,
) -> Disk:
    """Count what a job would write.

    Args:
        config: the job.
        attachments: its methods, on the meta device.
        base: the base's own tensors, there too.
        dataset: the pictures, where they can be examined.
        class_images: of `data.prior`.
        architecture: of the base.
        trainable: how many parameters are trained.
        steps: optimizer steps, where they are known.
        text_itemsize: bytes of a number of the text states.
    """
    kept = trainable * (1 + config.train.averages) + optimizer_numbers(config.train, attachments)
    tuned = {"unet"}.union(*(attachment.components for attachment in attachments))
    resolution = config.data.resolution or architecture.resolution
    return Disk(
        result_bytes=_result_bytes(config, attachments, base),
        latents_bytes=_latents_bytes(config.data, dataset, class_images, tuned, architecture),
        text_bytes=_text_bytes(dataset, class_images, tuned, architecture, text_itemsize),
        class_images_bytes=_class_images_bytes(class_images, resolution),
        checkpoints_bytes=4 * kept * config.train.keep_checkpoints,
        averages_bytes=_averages_bytes(config.train, trainable, steps),
    )


def _result_bytes(config: JobConfig, attachments: Sequence[Attachment], base: Sequence[Tensor]) -> int:
    if any(method.result == "pipeline" for method in config.methods):
        return sum(tensor.nbytes for tensor in base)
    return sum(safetensors_bytes(attachment.state(), attachment.metadata()) for attachment in attachments)


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """Return the size of the file that :func:`inlay.files.write_tensors` would write of float32 tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + end  # eight bytes of length, the header padded to a multiple of eight


def _averages_bytes(train: TrainSettings, trainable: int, steps: int | None) -> int:
    if not isinstance(train.ema, PowerEma):
        return 0
    moments = train.ema.snapshots if steps is None else min(steps, train.ema.snapshots)
    return 4 * trainable * train.averages * moments


def _class_images_bytes(class_images: ClassImagesPlan | None, resolution: int) -> int | None:
    if class_images is None:
        return 0
    if class_images.kept is None or class_images.to_draw is None:
        return None
    return round((class_images.kept + class_images.to_draw) * 3 * resolution**2 * PNG_SHARE)


def _latents_bytes(
    settings: DataSettings,
    dataset: Dataset | None,
    class_images: ClassImagesPlan | None,
    tuned: set[str],
    architecture: BaseArchitecture,
) -> int | None:
    if "vae" in tuned or settings.crop != "center":
        return 0
    if dataset is None or (class_images is not None and class_images.pictures is None):
        return None
    held_out = [(example, center_view(example, dataset.size(example))) for example in dataset.validation]
    shown = [(example, view) for index, example in enumerate(dataset.examples) for view in dataset.views(index)]
    areas = {dataset.pixel_key(example, view): view.height * view.width for example, view in [*shown, *held_out]}
    area = sum(areas.values())
    if class_images is not None and class_images.pictures is not None:
        area += class_images.pictures * dataset.resolution**2 * (2 if 0 < settings.horizontal_flip < 1 else 1)
    numbers = area // architecture.downscale**2 * architecture.channels
    # In float32: mean and standard deviation, or pixels, which are certain.
    return numbers * 4 * (1 if architecture.downscale == 1 else 2)


def _text_bytes(
    dataset: Dataset | None,
    class_images: ClassImagesPlan | None,
    tuned: set[str],
    architecture: BaseArchitecture,
    itemsize: int,
) -> int | None:
    if not tuned.isdisjoint(architecture.readers) or architecture.text_shape is None:
        return 0
    if dataset is None:
        return None
    captions = {"", *(example.caption for example in (*dataset.examples, *dataset.validation))}
    if class_images is not None:
        captions.add(class_images.prompt)
    tokens, width = architecture.text_shape
    return len(captions) * tokens * width * itemsize
