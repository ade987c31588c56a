"""``inlay inspect``: what is in a file, and how strong it is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import console, emit_json, human_bytes, human_count, print_table

if TYPE_CHECKING:
    from inlay.artifacts.inspection import Inspection, Strength

BAR = 20
"""Characters of the longest bar."""
FEW = 24
"""So many layers are listed one by one; more are gathered by block."""
SAID = {
    "trigger": ("inlay.trigger", "modelspec.trigger_phrase"),
    "name": ("name", "modelspec.title", "ss_output_name"),
    "steps": ("inlay.steps", "ss_steps", "step"),
    "learning rate": ("ss_learning_rate", "ss_unet_lr"),
    "resolution": ("ss_resolution", "modelspec.resolution"),
    "inlay's version": ("inlay.version",),
    "network": ("ss_network_module",),
    "merged from": ("inlay.merged_from",),
    "extracted from": ("inlay.extracted_from",),
    "structure": ("layer_structure",),
    "activation": ("activation_func",),
    "license": ("modelspec.license",),
}
"""What is shown of a header, and the fields that say it; all fields with --json."""


def command(
    target: Annotated[Path, typer.Argument(help="A file of any format, a run directory, or a model.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Hold it against a model, as in a run file: relative strengths.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer instead of blocks.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what is in a file: its kind, the base it belongs to, its size, and how strong it is layer by layer.

    The strength of a layer is the Frobenius norm of the change of its weight, at strength 1; with --base also as a
    share of the norm of the base's weight.
    """
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.inspect import inspect

    found = inspect(target, base)
    if json:
        emit_json({"files": [one.to_json() for one in found]})
        return
    for one in found:
        _print(one, layers)


def _print(one: Inspection, layers: bool) -> None:
    from inlay.artifacts.inspection import span

    precisions = " and ".join(
        precision if len(one.precisions) == 1 else f"{precision} ({human_count(count)})"
        for precision, count in one.precisions.items()
    )
    known = [f"says {one.stated_base}"] if one.stated_base else []
    known += [f"fits {' or '.join(one.fits)}"] if one.fits else []
    rows = [
        ("file", str(one.path)),
        ("what", f"{one.method} ({one.format})"),
        ("base", ", ".join(known) or "unknown"),
        ("size", f"{human_bytes(one.bytes)}, {human_count(one.parameters)} parameters, {precisions}"),
    ]
    numbers = {"rank": span(s.rank for s in one.strengths), "alpha": span(s.alpha for s in one.strengths)}
    for what, values in numbers.items():
        if values and one.method != "textual inversion":
            rows.append((what, f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"))
    for what, keys in SAID.items():
        said = next((one.facts[key] for key in keys if one.facts.get(key)), None)
        if said is not None:
            rows.append((what, said))
    print_table(["property", "value"], rows)
    for note in one.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True)
    strengths, counts = one.strengths, [1] * len(one.strengths)
    if all(strength.norm is None for strength in strengths):
        print_table(["part", ">parameters"], [(strength.name, f"{strength.parameters:,}") for strength in strengths])
        return
    if len(strengths) > FEW and not layers:
        strengths, counts = gather(strengths)
    _print_bars(one, strengths, counts)


def _print_bars(one: Inspection, strengths: Sequence[Strength], counts: Sequence[int]) -> None:
    """Print a row for each layer or block; columns in which all rows agree are left out, as the head says them."""
    relative = any(strength.relative is not None for strength in strengths)
    values = [(strength.relative if relative else strength.norm) or 0.0 for strength in strengths]
    longest = max(values, default=0.0)
    columns: dict[str, list[str]] = {one.measure: [strength.name for strength in strengths]}
    if max(counts, default=1) > 1:
        columns[">layers"] = [str(count) for count in counts]
    if len({strength.form for strength in strengths}) > 1:
        columns["kind"] = [strength.form for strength in strengths]
    if len({strength.rank for strength in strengths}) > 1:
        columns[">rank"] = ["" if strength.rank is None else str(strength.rank) for strength in strengths]
    columns[">norm"] = [f"{strength.norm or 0.0:.3g}" for strength in strengths]
    if relative:
        columns[">of base"] = ["" if s.relative is None else f"{100 * s.relative:.3g} %" for s in strengths]
    columns[""] = [bar(value / longest if longest else 0.0) for value in values]
    print_table(list(columns), list(zip(*columns.values(), strict=True)))
    console.print(f"norm of all together: {one.norm or 0.0:.4g}")
    console.print()


def gather(strengths: Sequence[Strength]) -> tuple[list[Strength], list[int]]:
    """Return layers gathered by the block that they are in, norms taken together, and how many each block has."""
    from inlay.artifacts.inspection import Strength

    blocks: dict[str, list[Strength]] = {}
    for strength in strengths:
        blocks.setdefault(_block(strength.name), []).append(strength)
    found = []
    for block, members in blocks.items():
        norm = math.hypot(*(member.norm or 0.0 for member in members))
        before = [member.norm / member.relative for member in members if member.norm and member.relative]
        ranks = {member.rank for member in members}
        found.append(
            Strength(
                block,
                " and ".join(dict.fromkeys(member.form for member in members)),
                sum(member.parameters for member in members),
                norm,
                rank=ranks.pop() if len(ranks) == 1 else None,
                relative=norm / math.hypot(*before) if before else None,
            )
        )
    return found, [len(members) for members in blocks.values()]


def bar(share: float) -> str:
    """Return a bar for a share in [0, 1], to an eighth of a character."""
    eighths = round(share * BAR * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def _block(name: str) -> str:
    """Return what a layer's name begins with: the part, and of the denoiser the level and its kind of block."""
    match = re.match(r"unet\.(down_blocks|up_blocks)\.\d+\.(attentions|resnets|\w+)|unet\.mid_block\.\w+", name)
    if match is not None:
        return match[0]
    return ".".join(name.split(".")[:2]) if name.startswith("unet.") else name.partition(".")[0]
