"""``inlay extract``: a LoRA from the difference of two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import console, emit_json, print_table
from inlay.cli.merge import errors_json, print_errors
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from inlay.run.extract import Extraction

SHOWN = 5
"""Tensors shown of those that a LoRA has no place for."""


def command(
    tuned: Annotated[
        str, typer.Argument(help="The tuned model: a directory, a checkpoint, a hub id, or a run directory.")
    ],
    original: Annotated[str, typer.Argument(help="The model that it came from.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The LoRA, a new .safetensors file.")],
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Of every layer.")] = None,
    energy: Annotated[
        float | None,
        typer.Option("--energy", help="Instead of --rank: the share of each change to keep, such as 0.95."),
    ] = None,
    format: Annotated[str, typer.Option("--format", help="diffusers, kohya, inlay, ...")] = "diffusers",
    json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON; progress goes to stderr.")] = False,
) -> None:
    """Make a LoRA of the difference between two models of one architecture.

    Each layer's change is cut to a rank by its singular values: --rank for the same in all layers, --energy for the
    smallest that keeps this share of the sum of squares. What a LoRA has no place for, such as biases, is listed.
    """
    if (rank is None) == (energy is None):
        raise ConfigError("give either --rank, such as 16, or --energy, such as 0.95")
    if energy is not None and not 0 < energy <= 1:
        raise ConfigError(f"--energy {energy:g}: a share above 0 and at most 1")
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output}: must end in .safetensors")
    from inlay.cli.progress import TerminalReporter
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.extract import extract_to_file

    with TerminalReporter(to_stderr=json) as reporter:
        found = extract_to_file(
            tuned,
            original,
            output,
            rank,
            energy,
            format,
            progress=lambda done, total: reporter.progress("decomposing", done, total),
        )
    if json:
        emit_json(
            {
                "output": str(output),
                "format": format,
                "unchanged_layers": found.unchanged,
                **errors_json(found.products),
                "left_out_share": found.left_out_share,
                "left_out": dict(found.left_out),
            }
        )
        return
    console.print(
        f"a LoRA of {len(found.products)} layers ({found.unchanged} do not differ): {output}",
        soft_wrap=True,
    )
    print_errors(found.products)
    _print_left_out(found)


def _print_left_out(found: Extraction) -> None:
    if not found.left_out:
        return
    console.print(
        f"note: {len(found.left_out)} tensors differ that a LoRA has no place for, "
        f"{100 * found.left_out_share:.3g} % of the whole difference's norm",
        style="yellow",
        soft_wrap=True,
    )
    largest = sorted(found.left_out.items(), key=lambda item: item[1], reverse=True)[:SHOWN]
    print_table(["left out, the largest", ">norm"], [(name, f"{norm:.3g}") for name, norm in largest])
