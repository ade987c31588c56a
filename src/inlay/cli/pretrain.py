"""``inlay pretrain``: train a denoiser from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inlay.cli.tune import run


def command(
    run_file: Annotated[Path, typer.Argument(help="The run file (YAML), with a section `denoiser`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the file's: train.steps=500 seed=1.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON; progress goes to stderr.")] = False,
) -> None:
    """Train a text-to-image denoiser from scratch.

    Autoencoder and text encoder come from `base` and stay frozen. The result is a whole pipeline in diffusers' layout.
    """
    run(run_file, overrides or [], json, pretrain=True)
