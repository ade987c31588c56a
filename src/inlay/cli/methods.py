"""``inlay methods``: the tuning methods, and the settings of each."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable
from json import dumps
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from inlay.cli.console import console, emit_json, print_table
from inlay.errors import ConfigError
from inlay.run.explain import nearest


def command(
    name: Annotated[
        str | None, typer.Argument(help="The method whose settings to show; all methods without one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the tuning methods, or the settings of one with their defaults.

    A setting is set in a run file under `method:`, or on the command line: `inlay tune run.yaml method.rank=8`.
    """
    from inlay.methods import METHODS

    if name is None:
        summaries = {method: _summary(model) for method, model in METHODS.items()}
        if json:
            emit_json([{"name": method, "summary": summary} for method, summary in summaries.items()])
        else:
            print_table(["method", "what it does"], summaries.items())
            console.print("The settings of one: inlay methods NAME")
        return
    if name not in METHODS:
        message = f"no method {name!r}; there are {', '.join(METHODS)}"
        raise ConfigError("; ".join(filter(None, [message, nearest(name, METHODS)])))
    described = describe(METHODS[name])
    if json:
        emit_json({"name": name, **described})
    else:
        _print(name, described)


def describe(model: type[BaseModel]) -> dict[str, Any]:
    """Return a method's description and its settings, as JSON-ready data."""
    return {
        "summary": _summary(model),
        "description": inspect.getdoc(model) or "",
        "settings": [
            {
                "key": key,
                "type": _type(field.annotation, field.metadata),
                "required": field.is_required(),
                "default": _default(field),
                "description": " ".join((field.description or "").split()),
            }
            for key, field in model.model_fields.items()
            if key != "name"
        ],
    }


def _summary(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0]


def _type(annotation: Any, limits: Iterable[Any] = ()) -> str:
    """Return a type as someone who writes YAML would say it: "int > 0 or null", "'a' or 'b'", "list of str"."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    # pydantic keeps the bounds of a nested Field inside that field's own metadata.
    flat = [part for limit in limits for part in (limit.metadata if isinstance(limit, FieldInfo) else [limit])]
    bounds = [
        f"{sign} {getattr(limit, bound)}" for limit in flat for bound, sign in signs.items() if hasattr(limit, bound)
    ]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        name = _type(arguments[0], arguments[1:])
    elif origin in (Union, types.UnionType):
        name = " or ".join(_type(argument) for argument in arguments)
    elif origin is Literal:
        name = " or ".join(repr(argument) for argument in arguments)
    elif origin in (tuple, list):
        name = "list of " + ", ".join(_type(argument) for argument in arguments if argument is not Ellipsis)
    elif annotation is type(None):
        name = "null"
    else:
        name = getattr(annotation, "__name__", str(annotation))
    return " ".join([name, *([" and ".join(bounds)] if bounds else [])])


def _default(field: FieldInfo) -> Any:
    """Return a field's default in JSON's terms, or None when it must be set."""
    default = field.get_default(call_default_factory=True)
    return None if default is PydanticUndefined else to_jsonable_python(default)


def _print(name: str, described: dict[str, Any]) -> None:
    console.print(f"{name}: {described['description']}\n")
    if not described["settings"]:
        console.print("It has no settings.")
        return
    print_table(
        ["setting", "type", "default", "meaning"],
        [
            (
                setting["key"],
                setting["type"],
                "must be set" if setting["required"] else dumps(setting["default"]),
                setting["description"],
            )
            for setting in described["settings"]
        ],
    )
    example = next(iter(described["settings"]))["key"]
    console.print(f"In a run file:          method: {{name: {name}, {example}: ...}}")
    console.print(f"On the command line:    inlay tune run.yaml method.{example}=...")
