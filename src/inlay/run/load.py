"""Run files: read YAML, apply overrides, report every mistake at once.

    data = read_run_file("run.yaml")
    data = apply_overrides(data, ["method.rank=8"])
    config = validate(RunConfig, data, source="run.yaml")

Relative paths inside a run file are relative to the current directory, as on the command line, and not to the
directory of the run file.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError

from inlay.errors import ConfigError
from inlay.run.explain import explain

Model = TypeVar("Model", bound=BaseModel)


SHORTHANDS = {"base": "model", "data": "source", "method": "name", "conditioning": "name", "path": "name"}
"""Sections that may be given by one setting alone, and which: `method: lora` is `method: {name: lora}`."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses keys that stand twice in one mapping or are not text."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Checked here rather than where values are built: merge keys (<<) have not been expanded yet, so a key
        # that overrides a merged one is not taken for a duplicate.
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            text = str(key.value)
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                problem = f"a key must be text; quote {text!r}, which YAML reads as another type"
                raise ComposerError(problem=problem, problem_mark=key.start_mark)
            if text in lines:
                problem = f"the key {text!r} already stands in line {lines[text]}"
                raise ComposerError(problem=problem, problem_mark=key.start_mark)
            lines[text] = key.start_mark.line + 1
        return node


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper; texts with Unicode's line breaks, which readers fold into spaces, are quoted and escaped."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _describe(error: yaml.YAMLError) -> str:
    """Return ``line:column: problem`` where the parser knows the place, else its own words in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    hint = " (YAML indents with spaces, never tabs)" if "'\\t'" in (error.problem or "") else ""
    return f"{error.problem_mark.line + 1}:{error.problem_mark.column + 1}: {error.problem or error.context}{hint}"


def read_run_file(path: str | Path) -> dict[str, Any]:
    """Return the mapping that a YAML run file holds.

    Raises:
        ConfigError: the file cannot be read, is not YAML (with line and column), repeats a key, or holds
            something other than a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such run file (looked in {Path.cwd()})") from None
    except OSError as error:
        raise ConfigError(f"{path}: the run file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: a run file is UTF-8 text; byte {error.start} is not") from None
    try:
        data = _parse(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}:{_describe(error)}") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{path}: a run file is a mapping of sections (`method: ...`), but this one holds {found}")
    return data


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``data`` with each ``dotted.key=value`` set, later ones winning.

    A value is YAML: ``train.rate=1e-4``, ``data.captions=null``, ``preview.prompts=[a dog, a cat]``. Sections
    that are not there yet are made, and one given by a single setting (:data:`SHORTHANDS`) is written out. A number
    addresses an entry of a list: ``stack.0.rank=8``.

    Raises:
        ConfigError: an override is not of this form, its value is not YAML, or its key leads through a value
            that has no keys.
    """
    data = copy.deepcopy(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.split(".")
        if not equals or not all(part.strip() == part != "" for part in parts):
            raise ConfigError(f"override {override!r}: must look like key=value, for example method.rank=8")
        try:
            value = _parse(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: the value is not YAML ({_describe(error)}); quote it?") from None
        _set(data, parts, value, override)
    return data


def with_settings(data: dict[str, Any], settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a copy of ``data`` with each dotted key of ``settings`` set to its value, as overrides are.

    Args:
        data: what a run file holds.
        settings: values by dotted key, in order.
        source: what to call the origin of ``settings`` in a message.

    Raises:
        ConfigError: a key leads through a value that has no keys.
    """
    data = copy.deepcopy(data)
    for key, value in settings.items():
        _set(data, key.split("."), copy.deepcopy(value), f"{source}: {key}")
    return data


def _set(data: dict[str, Any], parts: list[str], value: Any, override: str) -> None:
    section = parts[0]
    if len(parts) > 1 and section in SHORTHANDS and isinstance(data.get(section), str):
        data[section] = {SHORTHANDS[section]: data[section]}
    place: Any = data
    for depth, part in enumerate(parts):
        here = ".".join(parts[:depth]) or "the run file"
        if isinstance(place, dict):
            slot: Any = part
        elif isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                raise ConfigError(
                    f"override {override!r}: {here} is a list of {len(place)} entries, numbered from 0; "
                    f"it has no entry {part!r}"
                )
            slot = int(part)
        else:
            raise ConfigError(f"override {override!r}: {here} is {place!r}, which has no keys")
        if depth == len(parts) - 1:
            place[slot] = value
            return
        if isinstance(place, dict) and place.get(part) is None:
            place[slot] = {}  # a section that is absent, or empty as in `data:`
        place = place[slot]


def validate(model_class: type[Model], data: dict[str, Any], source: str | Path = "configuration") -> Model:
    """Return ``model_class`` built from ``data``.

    Args:
        model_class: the settings to build.
        data: what a run file and its overrides hold.
        source: what to call the origin of ``data`` in a message, usually the run file's path.

    Raises:
        ConfigError: with every mistake at once: its dotted key, the value, what is allowed, and for a key or a
            choice that does not exist the nearest one that does.
    """
    try:
        return model_class.model_validate(data)
    except ValidationError as error:
        mistakes = explain(model_class, data, error)
    if len(mistakes) == 1:
        raise ConfigError(f"{source}: {mistakes[0]}", mistakes)
    raise ConfigError("\n  ".join([f"{source}: {len(mistakes)} mistakes", *mistakes]), mistakes)


def config_hash(config: BaseModel) -> str:
    """Return the sha256 (hex) of the configuration's canonical JSON: keys sorted, no spaces, ASCII.

    Settings that are off by default, and off, are left out. So one that a later version adds changes no hash, and runs
    begun with an earlier one go on.
    """
    switched = _switched(config, config.model_dump(mode="json"))
    text = json.dumps(switched, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _switched(value: Any, written: Any) -> Any:
    """Return a value as it is written in JSON, without the settings that are null, false, zero or empty by default."""
    if isinstance(value, BaseModel):
        kept = {}
        for name, field in type(value).model_fields.items():
            own = getattr(value, name)
            if own or own != field.get_default(call_default_factory=True):
                kept[name] = _switched(own, written[name])
        return kept
    if isinstance(value, list | tuple):
        return [_switched(one, part) for one, part in zip(value, written, strict=True)]
    return written


def to_yaml(config: BaseModel) -> str:
    """Return the resolved run file: every setting with its value, in the order in which they are declared."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
