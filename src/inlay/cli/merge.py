"""``inlay merge``: several adapter files into a base, or into one LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import console, emit_json, print_table
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inlay.artifacts.lowrank import Product

ROUNDING = 1e-4
"""Relative errors below this come from float32 and tell nothing of single layers."""
WORST = 5
"""Layers shown of those with the largest errors."""


def command(
    files: Annotated[list[Path], typer.Argument(help="Adapter files of any format, and run directories.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A new .safetensors file for one LoRA, or a new directory for a model."),
    ],
    weights: Annotated[
        str | None, typer.Option("--weights", "-w", help="Strength of each file, 0.7,0.3 for two; 1 by default.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The model that the files belong to, as in a run file.")
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", min=1, help="Of the LoRA; by default the sum of the files', which is exact.")
    ] = None,
    format: Annotated[str, typer.Option("--format", help="Of the LoRA: diffusers, kohya, inlay, ...")] = "diffusers",
    json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Merge adapter files, each at its strength, into a base or into one LoRA.

    A directory as --output receives the whole model in diffusers' layout, with all changes in its weights; --base says
    which model. A .safetensors file receives one LoRA: without --rank it does exactly what the files do together;
    with it, the best of that rank, and its error is told.
    """
    strengths = _strengths(weights, len(files))
    whole = output.suffix != ".safetensors"
    if whole and base is None:
        raise ConfigError(f"--output {output}: a model needs --base; for one LoRA, name a .safetensors file")
    if whole and (rank is not None or format != "diffusers"):
        raise ConfigError(f"--output {output}: --rank and --format are for one LoRA, a .safetensors file")
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.merge import merge_to_lora, merge_to_model

    if whole:
        assert base is not None
        sources, folded = merge_to_model(files, strengths, base, output)
        done = {"layers": folded.layers, "norm": folded.change, "relative": folded.relative_change}
    else:
        sources, merged = merge_to_lora(files, strengths, output, rank, base, format)
        done = {"format": format, **errors_json(merged.products)}
    if json:
        emit_json({"output": str(output), "files": [{"file": s.name, "weight": s.strength} for s in sources], **done})
        return
    said = "one file" if len(sources) == 1 else f"{len(sources)} files"
    if whole:
        console.print(f"merged {said} into {folded.layers} layers of {base}: {output}", soft_wrap=True)
        console.print(f"the changed weights moved by {100 * folded.relative_change:.3g} % of their norm")
    else:
        console.print(f"merged {said} into one LoRA of {len(merged.products)} layers: {output}", soft_wrap=True)
        print_errors(merged.products)


def print_errors(products: Mapping[str, Product]) -> None:
    """Show ranks, the relative error of all layers together, and the layers that lost most."""
    from inlay.artifacts.lowrank import total_error

    ranks = sorted({product.rank for product in products.values()})
    span = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    error = total_error(list(products.values()))
    if error == 0:
        console.print(f"rank {span}, exact: the ranks of the files stand side by side")
        return
    console.print(f"rank {span}, relative error {100 * error:.3g} % (Frobenius norm, all layers together)")
    if error < ROUNDING:
        return
    worst = sorted(products.items(), key=lambda item: item[1].relative_error, reverse=True)[:WORST]
    rows = [(name, product.rank, f"{100 * product.relative_error:.3g} %") for name, product in worst]
    print_table(["layers that lost most", ">rank", ">error"], rows)


def errors_json(products: Mapping[str, Product]) -> dict[str, object]:
    """Return the same as JSON-ready data, of every layer."""
    from inlay.artifacts.lowrank import total_error

    return {
        "relative_error": total_error(list(products.values())),
        "layers": [
            {"name": name, "rank": one.rank, "norm": one.norm, "relative_error": one.relative_error}
            for name, one in products.items()
        ],
    }


def _strengths(text: str | None, count: int) -> list[float]:
    if text is None:
        return [1.0] * count
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--weights {text}: give one number for each file, with commas between: 0.7,0.3") from None
