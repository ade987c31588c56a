"""Turn pydantic's validation errors into sentences that name keys as the run file writes them.

Pydantic's locations name more than keys: the tag of a discriminated union, or the type of each member of a plain
one. The settings' annotations are walked along each location to tell the two apart, which also yields the settings
class at that place and with it the keys and choices that exist there.
"""

from __future__ import annotations

import difflib
import enum
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

# What pydantic says about a wrong type, in the words of someone who writes YAML.
_EXPECTED = {
    "model_type": "a section of `key: value` lines",
    "model_attributes_type": "a section of `key: value` lines",
    "dict_type": "a section of `key: value` lines",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "path_type": "a path",
}


def explain(model_class: type[BaseModel], data: Any, error: ValidationError) -> list[str]:
    """Return one line a mistake, in the order in which the settings are declared.

    The members of a plain union each report the same value: those become one line, "a number or 'auto'". Where
    one member went further and found fault with an entry, only that is told: it is the member that was meant.
    """
    located = [(item, *_locate(model_class, data, item["loc"])) for item in error.errors(include_url=False)]
    found: dict[tuple[str, str], list[str]] = {}
    for item, key, annotation, at_member in located:
        if at_member and any(other.startswith(f"{key}.") for _, other, _, _ in located):
            continue
        head, wanted = _sentence(key, annotation, item)
        alternatives = found.setdefault((key, head), [])
        if wanted not in alternatives:
            alternatives.append(wanted)
    return [head + " or ".join(wanted) for (_, head), wanted in found.items()]


def _sentence(key: str, annotation: Any, item: Any) -> tuple[str, str]:
    """Return the mistake in two parts, head and what is allowed; parts with equal heads are joined by "or"."""
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        section, _, name = key.rpartition(".")
        keys = _keys(annotation)
        return f"{key}: no such key; ", nearest(name, keys) or f"{section or 'the file'} knows {_list(keys)}"
    if kind == "missing":
        return f"{key}: must be set", ""
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name = str(context["discriminator"]).strip("'")
        tags = _tags(annotation, name)
        if kind == "union_tag_not_found":
            return f"{key}.{name}: must be set to ", f"one of {_list(tags)}"
        return f"{key}.{name}: {context['tag']!r} does not exist; ", _choices(str(context["tag"]), tags)
    head = f"{key}: {_short(value)} is wrong; must be "
    if kind in ("literal_error", "enum"):
        options = _options(annotation)
        return head, _choices(value, options) if options else str(context.get("expected"))
    if kind in _EXPECTED:
        return head, _EXPECTED[kind]
    message = str(item["msg"])
    if kind in ("value_error", "assertion_error"):  # raised by a validator of ours, which says all there is to say
        return f"{key or 'settings'}: {message.partition(', ')[2]}", ""
    prefix = "Input should be "
    return (head, message.removeprefix(prefix)) if message.startswith(prefix) else (f"{key}: {message}", "")


def _locate(model_class: type[BaseModel], data: Any, location: Sequence[int | str]) -> tuple[str, Any, bool]:
    """Return the dotted key of a location, the annotation there, and whether it ends at a member of a union.

    For an unknown key the annotation is that of its section.
    """
    annotation: Any = model_class
    value = data
    parts: list[str] = []
    at_member = False
    for component in location:
        members = _members(annotation)
        at_member = len(members) > 1
        if at_member:
            annotation = _member(members, component)
            continue
        if isinstance(component, int) and not isinstance(value, (list, tuple)):
            # A validator wrapped a single entry into a list of one; the run file shows no index.
            annotation = _entry(members[0], component)
            continue
        parts.append(str(component))
        value = _get(value, component)
        annotation = _entry(members[0], component)
    return ".".join(parts), annotation, at_member


def _get(value: Any, component: int | str) -> Any:
    if isinstance(value, Mapping):
        return value.get(component)
    if isinstance(value, (list, tuple)) and isinstance(component, int) and component < len(value):
        return value[component]
    return None


def _entry(annotation: Any, component: int | str) -> Any:
    """Return the annotation of one field or entry; an unknown field yields the section itself."""
    if _is_model(annotation):
        field = annotation.model_fields.get(component)
        return annotation if field is None else field.annotation
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and isinstance(component, int) and arguments[-1:] != (Ellipsis,):
        return arguments[component] if component < len(arguments) else Any
    if get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if arguments else Any


def _members(annotation: Any) -> list[Any]:
    """Return what an annotation may stand for, without None: several members for a union, else one."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return [annotation]
    members = [member for part in get_args(annotation) for member in _members(part)]
    return [member for member in members if member is not type(None)]


def _member(members: Sequence[Any], label: int | str) -> Any:
    """Return the member of a union that a location's label (a tag or a type's name) means."""
    for member in members:
        if _is_model(member) and (member.__name__ == label or label in _tags(member)):
            return member
    if str(label).startswith("literal["):  # several lists of choices are one to the reader
        return Literal[tuple(option for member in members for option in _options(member))]
    for member in members:
        name = getattr(get_origin(member) or member, "__name__", "").lower()
        if name and str(label).lower().startswith(name):
            return member
    return Any


def _tags(annotation: Any, field_name: str | None = None) -> list[str]:
    """Return the literals by which the models in a union are chosen, of one field or of all."""
    tags: list[str] = []
    for model in filter(_is_model, _members(annotation)):
        for name, field in model.model_fields.items():
            if field_name in (None, name) and get_origin(field.annotation) is Literal:
                tags += [str(tag) for tag in get_args(field.annotation)]
    return tags


def _keys(annotation: Any) -> list[str]:
    return [name for model in filter(_is_model, _members(annotation)) for name in model.model_fields]


def _options(annotation: Any) -> list[Any]:
    """Return the values that a Literal or an enumeration allows."""
    options: list[Any] = []
    for member in _members(annotation):
        if get_origin(member) is Literal:
            options += get_args(member)
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            options += [choice.value for choice in member]
    return options


def _choices(value: Any, options: Sequence[Any]) -> str:
    question = nearest(value, [str(option) for option in options])
    several = "one of " if len(options) > 1 else ""
    return several + _list(options) + (f" ({question})" if question else "")


def nearest(value: Any, options: Iterable[str]) -> str:
    """Return "did you mean ...?" with the nearest option, or nothing when none is near."""
    options = list(options)
    folded = {option.lower(): option for option in options}
    given = str(value).lower()
    near = difflib.get_close_matches(given, folded, n=5, cutoff=0.55)
    near.sort(key=lambda option: sorted(option) != sorted(given))  # letters in another order are a slip of the fingers
    return f"did you mean {folded[near[0]]!r}?" if near else ""


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _list(options: Iterable[Any]) -> str:
    return ", ".join(repr(option) for option in options)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
