"""Picture files that may come from a stranger: size and kind without decoding, and pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from nasgraph.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".pgm", ".ppm", ".gif"})
MAX_PIXELS = 2**25
_GREY_MODES = frozenset({"1", "L"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "P", "LA", "PA", "CMYK", "YCbCr"})


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a picture file says of itself: width and height in pixels, and whether it is grey."""

    width: int
    height: int
    grey: bool


def read_header(path: Path) -> PictureHeader:
    """Read size and kind without decoding the pixels.

    Raises:
        DataError: If it is not a picture, has over 2**25 pixels, or more than 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            width, height, mode = *image.size, image.mode
    except Exception as error:  # Pillow's readers raise nearly anything for damaged files
        raise DataError(f"Cannot read the picture '{path}': {error or type(error).__name__}") from error
    if width * height > MAX_PIXELS:
        raise DataError(f"Expected at most {MAX_PIXELS:,} pixels in '{path}' (got {width}x{height})")
    if mode not in _GREY_MODES | _COLOUR_MODES:
        raise DataError(f"Expected 8 bits per channel in '{path}' (got the Pillow mode '{mode}')")
    return PictureHeader(width, height, mode in _GREY_MODES)


def decode(path: Path, mode: Literal["L", "RGB"]) -> npt.NDArray[np.uint8]:
    """Pixels as `[1, height, width]` for "L" (grey) or `[3, height, width]` for "RGB".

    Raises:
        DataError: If it is not a picture, is truncated, or is refused by `read_header`.
    """
    read_header(path)
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(mode))
    except Exception as error:  # see above
        raise DataError(f"Cannot decode the picture '{path}': {error or type(error).__name__}") from error
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
