"""Numbers that a person can read."""

from __future__ import annotations

import math

from inlay.errors import ConfigError


def human_bytes(count: float) -> str:
    """Return a size in binary units with three digits: 1536 is "1.50 KiB"."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if abs(count) < 1023.5 or unit == "TiB":
            break
    return f"{_three_digits(count)} {unit}"


def human_count(count: float) -> str:
    """Return a count in thousands, millions, billions or trillions: 859520964 is "860 M"."""
    if abs(count) < 1000:
        return f"{count:.0f}" if count == int(count) else _three_digits(count)
    for unit in ("k", "M", "G", "T"):
        count /= 1000
        if abs(count) < 999.5 or unit == "T":
            break
    return f"{_three_digits(count)} {unit}"


def human_seconds(seconds: float) -> str:
    """Return a duration in at most two units: "4.2 ms", "38 s", "3 min 20 s", "2 h 05 min", "3 d 4 h"."""
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1000)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def parse_size(text: str, option: str) -> float:
    """Return bytes of a size such as `600MiB`, `1.5GB` or `200kB`; a bare number is bytes.

    Args:
        text: the size.
        option: where it was given, for the message.

    Raises:
        ConfigError: it is no size above 0.
    """
    units = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    body = text.strip()
    digits = body.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = body[len(digits) :].strip().upper()
    try:
        value = float(digits) * units[unit]
    except (ValueError, KeyError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{option}: {text!r} is no size; write for instance 600MiB, 8GB or 200kB")
    return value


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    return f"{value:.2f}" if magnitude < 9.995 else f"{value:.1f}" if magnitude < 99.95 else f"{value:.0f}"
