"""``inlay evaluate``: measure what a run, a base with adapters, or a folder of pictures shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from inlay.cli.console import console, emit_json, print_table
from inlay.errors import ConfigError

MARKS = {"none": (" ", "green"), "slight": ("~", "yellow"), "marked": ("!", "bold red")}
"""How each degree of a symptom is shown: its mark and its style."""


def command(
    target: Annotated[str, typer.Argument(help="A run directory, a base, or a folder of pictures.")],
    against: Annotated[
        str | None, typer.Argument(help="Another one, drawn with the same prompts and noise, to compare with.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            "-r",
            help="A folder, tabletop:PART, or saved features; a run's training pictures by default.",
        ),
    ] = None,
    references: Annotated[
        int | None, typer.Option("--references", min=2, help="Reference pictures at most; 1000 by default.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to draw; may be given several times.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="A file with a prompt a line, or `dreambooth` for its 25 prompts.")
    ] = None,
    class_prompt: Annotated[
        list[str] | None, typer.Option("--class-prompt", help="The class without the subject; several times.")
    ] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", help="By name, with commas: kid,clip_t,frechet.")] = None,
    features: Annotated[
        list[str] | None,
        typer.Option("--features", "-f", help="tabletop, inception, clip:PATH, dino:PATH, dinov2:PATH; several times."),
    ] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option("--adapter", "-a", help="An adapter file for TARGET; several times.")
    ] = None,
    strength: Annotated[
        list[float] | None, typer.Option("--strength", help="Of each adapter, in their order; 1 by default.")
    ] = None,
    pictures: Annotated[
        int | None, typer.Option("--pictures", "-n", min=1, help="Of each prompt; 4 by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="DPM-Solver++ steps; 25 by default.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Classifier-free guidance; 7 by default.")
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option("--negative-prompt", help="What to lead away from.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the noise.")] = None,
    symptoms: Annotated[
        bool, typer.Option("--symptoms/--no-symptoms", help="Look for what goes wrong in tuning.")
    ] = True,
    copies: Annotated[
        int | None, typer.Option("--copies", min=0, help="Pictures of the training prompt to look for copies in; 40.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="Where to write; by default the run, or evaluations/NAME.")
    ] = None,
    save_reference: Annotated[
        Path | None, typer.Option("--save-reference", help="Keep the reference's features in this .safetensors file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON; progress goes to stderr.")] = False,
) -> None:
    """Measure what a run, a base with adapters, or a folder of pictures shows.

    Every figure comes with its interval and the number of pictures. With a second target both are drawn from the same
    prompts and noise, and the differences are judged.
    """
    if strength and not adapter:
        raise ConfigError("--strength: there is no --adapter that it could be of")
    if prompt and prompts:
        raise ConfigError("--prompt and --prompts: give one of the two")
    if save_reference is not None and save_reference.suffix != ".safetensors":
        raise ConfigError(f"--save-reference {save_reference}: the name must end in .safetensors")
    from inlay.cli.progress import TerminalReporter
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.evaluation.evaluate import evaluate
    from inlay.run.evaluation.prompts import read_prompts
    from inlay.run.evaluation.target import Target

    chosen: Any = prompt
    if prompts is not None:
        chosen = prompts if prompts == "dreambooth" else list(read_prompts(Path(prompts)))
    stated = {
        "reference": reference,
        "references": references,
        "prompts": chosen,
        "class_prompts": class_prompt,
        "metrics": metrics.split(",") if metrics else None,
        "features": features,
        "pictures": pictures,
        "steps": steps,
        "guidance": guidance,
        "negative_prompt": negative_prompt,
        "seed": seed,
        "symptoms": None if symptoms else False,
        "copies": copies,
    }
    first = Target.of(target, adapter or (), strength or ())
    second = Target.of(against) if against is not None else None
    with TerminalReporter(to_stderr=json) as reporter:
        given = {key: value for key, value in stated.items() if value is not None}
        result, directory = evaluate(first, second, given, reporter, into, save_reference)
    if json:
        emit_json({"directory": str(directory), **result})
        return
    _show(result, directory)


def _show(result: dict[str, Any], directory: Path) -> None:
    rows = _rows(result)
    several = len({row[-1] for row in rows if not row[0].startswith("accuracy")}) > 1
    headers = ("figure", ">value", "95 %", ">n", "better", *(("by",) if several else ()))
    print_table(headers, [row[: len(headers)] for row in rows], f"figures of {result['target']['name']}")
    if "comparison" in result:
        names = [result["target"]["name"], result["against"]["target"]["name"]]
        print_table(("figure", ">difference", "95 %", "pairs", "verdict"), _differences(result), " - ".join(names))
    _show_symptoms(result, f"{result['target']['name']}: " if "against" in result else "")
    if "against" in result:
        _show_symptoms(result["against"], f"{result['against']['target']['name']}: ")
    for name, why in result["missing"].items():
        if name not in {symptom["figure"] for symptom in result["symptoms"]}:
            console.print(f"not measured: {name}: {why}")
    for note in result["notes"]:
        console.print(f"note: {note}", style="yellow")
    console.print(f"figures      {directory / 'evaluation.json'}", soft_wrap=True)
    console.print(f"look at      {directory / 'evaluation.png'}", soft_wrap=True)


def _show_symptoms(result: dict[str, Any], of: str) -> None:
    for symptom in result["symptoms"]:
        if symptom["present"] is None:
            console.print(f"  {of}{symptom['name']} was not asked: {symptom['reason']}")
        else:
            mark, style = MARKS[symptom["degree"]]
            console.print(f"{mark} {of}{symptom['sentence']}", style=style)


def _rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, about in result["metric_details"].items():
        n = f"{about['n']}" + (f" : {about['references']}" if about["references"] else "")
        value = _number(about["value"])
        rows.append((name, value, _span(about["interval"]), n, about["better"] or "", about["extractor"]))
    return rows


def _differences(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, change in result["comparison"].items():
        better = result["metric_details"][name]["better"]
        verdict = change.get("reason", "none to be seen")
        if change["clear"]:
            verdict = "better" if (change["value"] > 0) == (better == "higher") else "worse"
        pairs = "paired" if change["paired"] else "apart"
        rows.append((name, _number(change["value"], "+"), _span(change["interval"], "+"), pairs, verdict))
    return rows


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3g}"


def _span(interval: list[float] | None, sign: str = "") -> str:
    return "none" if interval is None else f"{_number(interval[0], sign)} .. {_number(interval[1], sign)}"
