"""What turns pictures, and prompts, into features: extractors by name, local path or hub id.

`tabletop`, `inception`, `clip`, `dino` and `dinov2` are the names; after a colon comes a local path or a hub id, as in
``clip:openai/clip-vit-large-patch14`` or ``inception:weights/pt_inception-2015-12-05-6726825d.pth``. Resizing is
antialiased throughout (Parmar et al. 2022): without that, figures depend on the library that resized.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inlay.errors import ArtifactError, ConfigError, DataError
from inlay.metrics import features as embedded
from inlay.metrics.feature_cache import FeatureCache, NamedPictures, Pictures
from inlay.metrics.measure import Features

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH = 32
"""Pictures or prompts in a pass."""
INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{INCEPTION_FILE}"
INCEPTION_DIGEST = "6726825d"
"""How the sha256 of the FID weights begins: with others a Frechet distance is not called FID."""
WIDTHS = {"tabletop": 192, "inception": 2048}
"""Features of a picture, where all weights of a kind have as many."""
DINO_SIDE = 224
"""Height and width at which DINO and DINOv2 are used in publications, in pixels."""
CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that OpenAI's CLIP was trained on, by channel, in [0, 1] (Radford et al. 2021, published code)."""
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, by channel, in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """A loaded extractor."""

    name: str
    """What figures are called after."""
    weights: str
    """The sha256 of the weights."""
    recipe: str
    """How a picture becomes the network's input."""
    pictures: Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]
    """From at most `BATCH` pictures [H, W, 3] to features [N, D], not normalised."""
    texts: Callable[[Sequence[str]], NDArray[np.float32]] | None = None
    """From at most `BATCH` prompts to features [N, D] in the same space; None where there is no text tower."""

    @property
    def fingerprint(self) -> str:
        """A hash of the weights and the recipe."""
        return hashlib.sha256(f"{self.weights} {self.recipe}".encode()).hexdigest()


def extract(
    extractor: Extractor,
    pictures: Pictures,
    cache: Path | None = None,
    clusters: Sequence[Hashable] | None = None,
    pairing: str = "",
) -> Features:
    """Return the features of pictures.

    Args:
        extractor: from `load`.
        pictures: uint8 [H, W, 3] of any sizes, one or more; of `NamedPictures` only those that are not kept are read.
        cache: folder in which features are kept by content; none are kept without.
        clusters: see `Features.clusters`.
        pairing: see `Features.pairing`.

    Raises:
        DataError: there is no picture, or one is not uint8 [H, W, 3].
        ArtifactError: the cache cannot be written.
    """
    if not isinstance(pictures, NamedPictures):  # those are read as they are needed, and by us
        for place, picture in enumerate(pictures):
            if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
                raise DataError(f"Pictures must be uint8 [H, W, 3]; number {place} is {picture.dtype} {picture.shape}.")
    if not len(pictures):
        raise DataError("There are no pictures to extract features from.")

    def compute(some: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.concatenate([extractor.pictures(some[at : at + BATCH]) for at in range(0, len(some), BATCH)])

    if cache is None:
        rows = compute(list(pictures))
    else:
        rows = FeatureCache(cache, extractor.fingerprint).features(pictures, compute)
    return Features(rows, extractor.name, extractor.fingerprint, None if clusters is None else tuple(clusters), pairing)


def extract_texts(extractor: Extractor, prompts: Sequence[str]) -> Features:
    """Return the features of prompts, one row each. What exceeds the text tower's length is cut off.

    Raises:
        DataError: the extractor has no text tower, or there is no prompt.
    """
    if extractor.texts is None:
        raise DataError(f"{extractor.name} has no text tower; CLIP-T needs `tabletop` or `clip`.")
    if not prompts:
        raise DataError("There are no prompts to extract features from.")
    distinct = list(dict.fromkeys(prompts))
    rows = np.concatenate([extractor.texts(distinct[at : at + BATCH]) for at in range(0, len(distinct), BATCH)])
    places = {prompt: place for place, prompt in enumerate(distinct)}
    return Features(rows[[places[prompt] for prompt in prompts]], extractor.name, extractor.fingerprint)


def load(which: str, weights: Path, device: str = "cpu") -> Extractor:
    """Load an extractor.

    Args:
        which: a name of `EXTRACTORS`, alone or followed by a colon and a local path or hub id.
        weights: folder in which weights that are no hub's are looked for.
        device: of the computation.

    Raises:
        ConfigError: there is no extractor of that name.
        ArtifactError: its weights are missing; the message says what to fetch and where to put it.
    """
    kind, _, place = which.partition(":")
    if kind not in EXTRACTORS:
        raise ConfigError(
            f"There is no feature extractor {which!r}. Allowed: {', '.join(EXTRACTORS)}; after a colon a local path or "
            "a hub id, as in clip:openai/clip-vit-large-patch14."
        )
    return EXTRACTORS[kind](place, weights, device)


def _tabletop(place: str, weights: Path, device: str) -> Extractor:
    """The two towers that ship with inlay, for pictures of its own world only."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, CLIPTextModel

    if place:
        raise ConfigError(f"The extractor tabletop ships with inlay and takes no path; given: tabletop:{place}.")
    folder = embedded.embedded_tower()
    tower: Any = CLIPTextModel.from_pretrained(folder.parent / "text_encoder").eval().float()
    tower.to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder.parent / "tokenizer")
    projection = load_file(folder / "text_projection.safetensors")["text_projection.weight"].float().to(device)

    def pictures(some: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        if len({picture.shape for picture in some}) == 1:
            return embedded.image_features(np.stack(some))
        return np.concatenate([embedded.image_features(picture[None]) for picture in some])

    def texts(prompts: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            tokens = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt").to(device)
            return (tower(tokens.input_ids).pooler_output @ projection.T).cpu().numpy()

    recipe = f"squashed to {embedded.SIDE} by antialiased bicubic"
    return Extractor(embedded.NAME, embedded.fingerprint(), recipe, pictures, texts)


def _inception(place: str, weights: Path, device: str) -> Extractor:
    """Inception-v3 with the FID weights, resized as clean-fid does (Parmar et al. 2022)."""
    import torch

    from inlay.metrics import inception

    path = Path(place).expanduser() if place else weights / INCEPTION_FILE
    if not path.is_file():
        raise ArtifactError(
            f"The extractor inception needs its weights: fetch {INCEPTION_URL} (95 MB) and put it at {path}, or name "
            f"the place where you have it: inception:path/to/{INCEPTION_FILE}."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = inception.Inception()
        missing, unknown = network.load_state_dict(
            {key: value for key, value in state.items() if not key.startswith("fc.")}, strict=False
        )
    except Exception as error:  # pickles break in many ways
        raise ArtifactError(f"{path}: not the weights of Inception-v3: {str(error).splitlines()[0]}") from None
    lacking = [key for key in missing if not key.endswith("num_batches_tracked")] + list(unknown)
    if lacking:
        raise ArtifactError(f"{path}: not the weights of Inception-v3 in the layout of {INCEPTION_FILE}: {lacking[0]}.")
    network.eval().to(device)

    def pictures(some: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        pixels = torch.cat([squashed(picture, inception.SIDE) for picture in some])
        with torch.inference_mode():
            return network(((pixels * 255 - 128) / 128).to(device)).cpu().numpy()

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = "inception" if digest.startswith(INCEPTION_DIGEST) else f"inception:{path.stem}"
    return Extractor(name, digest, f"squashed to {inception.SIDE} by antialiased bicubic, (x - 128) / 128", pictures)


def _clip(place: str, weights: Path, device: str) -> Extractor:
    """A CLIP of any size in the layout of transformers."""
    import torch
    from transformers import AutoTokenizer, CLIPModel

    folder = _folder("clip", place or "openai/clip-vit-large-patch14")
    model = _loaded("clip", folder, CLIPModel).to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    side = int(model.config.vision_config.image_size)

    def pictures(some: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        pixels = torch.cat([_normalised(cropped(picture, side), CLIP_MEAN, CLIP_DEVIATION) for picture in some])
        with torch.inference_mode():
            pooled = model.vision_model(pixel_values=pixels.to(device)).pooler_output
            return model.visual_projection(pooled).cpu().numpy()

    def texts(prompts: Sequence[str]) -> NDArray[np.float32]:
        length = int(model.config.text_config.max_position_embeddings)
        tokens = tokenizer(list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            pooled = model.text_model(**tokens.to(device)).pooler_output
            return model.text_projection(pooled).cpu().numpy()

    recipe = f"shorter side to {side} by antialiased bicubic, cropped at the centre, CLIP's mean and deviation"
    return Extractor(
        _called("clip", place or "openai/clip-vit-large-patch14"), _digest(folder), recipe, pictures, texts
    )


def _dino(kind: str, default: str) -> Callable[[str, Path, str], Extractor]:
    """A DINO or DINOv2: the class token after the last normalisation (Stein et al. 2023, for FD-DINOv2)."""

    def build(place: str, weights: Path, device: str) -> Extractor:
        import torch
        from transformers import AutoModel

        folder = _folder(kind, place or default)
        model = _loaded(kind, folder, AutoModel).to(device)

        def pictures(some: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            pixels = [_normalised(cropped(picture, DINO_SIDE), IMAGENET_MEAN, IMAGENET_DEVIATION) for picture in some]
            with torch.inference_mode():
                return model(pixel_values=torch.cat(pixels).to(device)).last_hidden_state[:, 0].cpu().numpy()

        recipe = (
            f"shorter side to {DINO_SIDE} by antialiased bicubic, cropped at the centre, ImageNet's mean and deviation"
        )
        return Extractor(_called(kind, place or default), _digest(folder), recipe, pictures)

    return build


EXTRACTORS: dict[str, Callable[[str, Path, str], Extractor]] = {
    "tabletop": _tabletop,
    "inception": _inception,
    "clip": _clip,
    "dino": _dino("dino", "facebook/dino-vits16"),
    "dinov2": _dino("dinov2", "facebook/dinov2-large"),
}
"""Builders by name, from (path or hub id or nothing, folder of weights, device)."""


def _called(kind: str, place: str) -> str:
    """Name a model alike whether it came from the hub or from a folder."""
    return f"{kind}:{place.rstrip('/').rpartition('/')[2]}"


def _folder(kind: str, place: str) -> Path:
    """Return the folder of a model, fetching a hub id where the hub can be reached."""
    from huggingface_hub import snapshot_download

    path = Path(place).expanduser()
    if path.is_dir():
        return path
    said = "no such folder"
    if place.count("/") == 1 and not place.startswith((".", "/", "~")):
        try:
            return Path(snapshot_download(place, allow_patterns=["*.json", "*.txt", *WEIGHT_FILES]))
        except Exception as error:  # the hub client raises many kinds, network errors among them
            said = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
    raise ArtifactError(
        f"The extractor {kind}:{place} is not here, and the hub did not give it ({said}). Where there is a network, "
        f"run `hf download {place} --local-dir {place.rpartition('/')[2]}`, bring the folder here and give its path: "
        f"{kind}:path/to/{place.rpartition('/')[2]}."
    )


WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of a model's weights, the better first."""


def _weights(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ArtifactError(f"{folder}: no weights; looked for {' and '.join(WEIGHT_FILES)}.")


def _digest(folder: Path) -> str:
    with _weights(folder).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _loaded(kind: str, folder: Path, cls: Any) -> Any:
    """Return the model of a folder, all of whose weights were found, in float32."""
    import torch

    _weights(folder)
    try:
        model, about = cls.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{folder}: not a model for the extractor {kind}: {str(error).splitlines()[0]}") from None
    missing = sorted(key for key in about["missing_keys"] if "pooler" not in key)
    if missing:
        raise ArtifactError(f"{folder}: not a model for the extractor {kind}: {missing[0]} is missing.")
    network: nn.Module = model.eval()
    return network.requires_grad_(False)


def _scaled(picture: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """Return a picture as [1, 3, height, width] in [0, 1], by PIL's antialiased bicubic in floating point."""
    import torch

    pixels = torch.tensor(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
    if pixels.shape[-2:] != (height, width):
        pixels = torch.nn.functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    return pixels.clamp(0, 1)


def squashed(picture: NDArray[np.uint8], side: int) -> Tensor:
    """Return a picture [H, W, 3] as [1, 3, side, side] in [0, 1], whatever its shape."""
    return _scaled(picture, side, side)


def cropped(picture: NDArray[np.uint8], side: int) -> Tensor:
    """Return a picture's middle as [1, 3, side, side] in [0, 1], its shorter side scaled to `side`."""
    height, width = picture.shape[:2]
    short = min(height, width)
    pixels = _scaled(picture, max(side, height * side // short), max(side, width * side // short))
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    return pixels[..., top : top + side, left : left + side]


def _normalised(pixels: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    import torch

    return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(deviation).view(1, 3, 1, 1)
