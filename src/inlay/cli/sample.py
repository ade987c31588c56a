"""``inlay sample``: draw pictures with a tuned run or a base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from inlay.cli.console import console, emit_json
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from inlay.objective.settings import Sampler


def command(
    target: Annotated[str, typer.Argument(help="A run directory, or a base: tabletop, a directory, a hub id.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to draw; may be given several times.")
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", "-c", help="Of a model of classes: a name or number; by default the first ten."),
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option("--adapter", "-a", help="An adapter file of any format to draw with; may be given several times."),
    ] = None,
    strength: Annotated[
        list[float] | None, typer.Option("--strength", help="Of each adapter, in their order; 1 by default.")
    ] = None,
    pictures: Annotated[int, typer.Option("--pictures", "-n", min=1, help="Pictures of each prompt.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Of the first picture; the next have the next seeds.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the sampler.")] = 25,
    sampler: Annotated[str, typer.Option("--sampler", help="dpm (DPM-Solver++) or heun (EDM).")] = "dpm",
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", help="Classifier-free guidance; 1 for none. By default 7, of classes 1.5."),
    ] = None,
    negative_prompt: Annotated[str, typer.Option("--negative-prompt", help="What to lead away from.")] = "",
    size: Annotated[str | None, typer.Option("--size", help="Pixels: SIDE or WIDTHxHEIGHT; the base's own.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to; by default TARGET/samples, or samples/.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the files as JSON; progress goes to stderr.")] = False,
) -> None:
    """Draw pictures with a tuned run or a base."""
    dimensions = _dimensions(size)
    from inlay.cli.progress import TerminalReporter
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.adapters import load_adapted
    from inlay.run.directory import RUN_FILE
    from inlay.run.draw import draw, load_target, save_drawn, wanted

    with TerminalReporter(to_stderr=json) as reporter:
        if strength and not adapter:
            raise ConfigError("--strength: there is no --adapter that it could be of")
        base = load_adapted(target, adapter, strength or ()) if adapter else load_target(target)
        prompts = wanted(base, prompt or [], class_ or [])
        for text in base.overlong(prompts):
            reporter.note(f"the text encoder sees only the beginning of the prompt {text!r}")
        drawn = draw(
            base,
            prompts,
            pictures,
            seed,
            steps,
            guidance,
            negative_prompt,
            dimensions,
            progress=lambda done, total: reporter.progress("drawing", done, total),
            sampler=cast("Sampler", sampler),
        )
    is_run = (Path(target) / RUN_FILE).is_file()
    paths = save_drawn(drawn, out or (Path(target) / "samples" if is_run else Path("samples")))
    if json:
        pictures_json = [
            {"file": str(path), "prompt": one.prompt, "seed": one.seed}
            for path, one in zip(paths[1:], drawn, strict=True)
        ]
        emit_json({"grid": str(paths[0]), "pictures": pictures_json})
        return
    console.print(f"look at      {paths[0]}", soft_wrap=True)
    console.print(
        f"one by one   {paths[1]} and {len(paths) - 2} more" if len(paths) > 2 else f"picture      {paths[1]}"
    )


def _dimensions(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not width.isdecimal() or not (height or width).isdecimal():
        raise ConfigError(f"--size {size}: must be SIDE or WIDTHxHEIGHT in pixels, such as 512 or 768x512")
    return int(height or width), int(width)
