"""``inlay compare``: runs side by side, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import console, emit_json, human_bytes, human_count, human_seconds, print_table
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from inlay.run.compare.comparison import Comparison


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; what is none is left out with a note.")],
    into: Annotated[Path, typer.Option("--into", help="The page; an earlier one is replaced.")] = Path("compare.html"),
    draw: Annotated[
        bool, typer.Option("--draw", help="Draw with every run's model instead of showing the runs' own previews.")
    ] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="What to draw; may be given several times. Implies --draw."),
    ] = None,
    pictures: Annotated[int, typer.Option("--pictures", "-n", min=1, help="With --draw: pictures of each prompt.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="With --draw: of the first picture.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="With --draw: DPM-Solver++ steps.")] = 25,
    guidance: Annotated[
        float | None, typer.Option("--guidance", min=0, help="With --draw; by default that of the previews.")
    ] = None,
    quality: Annotated[
        str | None, typer.Option("--quality", help="The metric to draw against costs; by default the first that fits.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON; progress goes to stderr.")
    ] = False,
) -> None:
    """Compare runs: pictures from the same noise, metrics with intervals, curves, costs, settings that differ.

    Writes one HTML page that needs no network and no other file. Runs that stopped or failed are shown as far as they
    came. Pictures that --draw makes are kept in the cache.
    """
    from inlay.run.compare.comparison import compare, to_json
    from inlay.run.compare.page import refuse_other, write_page
    from inlay.run.compare.samples import Samples, Wanted, draw_anew, own_previews

    refuse_other(into)
    comparison = compare(runs, quality)
    samples: Samples
    if draw or prompt:
        if any(not text.strip() for text in prompt or ()):
            raise ConfigError("--prompt: is empty; say what to draw")
        from inlay.cli.progress import TerminalReporter
        from inlay.cli.quiet import quiet_libraries

        quiet_libraries()
        wanted = Wanted(tuple(prompt or ()), pictures, seed, steps, guidance)
        with TerminalReporter(to_stderr=json) as reporter:
            samples = draw_anew(comparison.runs, wanted, reporter)
    else:
        samples = own_previews(comparison.runs)
    page = write_page(comparison, samples, into)
    size = page.stat().st_size
    if json:
        emit_json({"page": str(page), "page_bytes": size, **to_json(comparison)})
        return
    _summary(comparison)
    for note in comparison.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True)
    console.print(f"look at      {page}   ({human_bytes(size)}, opens in any browser)", soft_wrap=True)


def _summary(comparison: Comparison) -> None:
    quality = comparison.quality
    headers = ["run", ">trained", ">file", ">a step", ">memory"]
    headers += [f">{quality.title}"] if quality else []
    rows = []
    for index, run in enumerate(comparison.runs):
        costs = comparison.costs(index)
        row = [run.name]
        for key, write in (
            ("trainable_parameters", human_count),
            ("result_bytes", human_bytes),
            ("seconds_per_step", human_seconds),
            ("peak_bytes", human_bytes),
        ):
            row.append("-" if costs[key] is None else write(costs[key]))
        if quality:
            figure = quality.figures[index]
            interval = f" [{figure.interval[0]:.3g}, {figure.interval[1]:.3g}]" if figure.interval else ""
            row.append("-" if figure.value is None else f"{figure.value:.4g}{interval}")
        rows.append(row)
    print_table(headers, rows)
