"""The handwritten digits that come with scikit-learn: 1,797 pictures of 8 x 8 pixels, each with its class.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from PIL import Image

from inlay.data.settings import DataSettings
from inlay.data.sources import Example
from inlay.errors import DataError


def digit_examples(settings: DataSettings) -> list[Example]:
    """Return the pictures in scikit-learn's order.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("data.source='digits' needs scikit-learn: pip install 'inlay[digits]'") from None
    digits: Any = load_digits()
    examples = []
    for index, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        grey = (values * (255 / 16)).round().astype("uint8")  # they are counts from 0 to 16
        caption = str(label) if settings.classes else settings.prompt
        examples.append(
            Example(
                id=f"digits/{index}",
                caption=f"the digit {label}" if caption is None else caption,
                sha256=hashlib.sha256(f"{index}:".encode() + grey.tobytes()).hexdigest(),
                width=grey.shape[1],
                height=grey.shape[0],
                reader=partial(_picture, grey),
            )
        )
    return examples


def _picture(grey: Any) -> Image.Image:
    return Image.fromarray(grey).convert("RGB")
