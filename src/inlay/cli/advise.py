"""``inlay advise``: the method and settings to use within a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inlay.cli.console import console, emit_json
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from inlay.study.advice import Advice, Estimate

MEASURED = "tabletop"
"""The base of the records that ship with inlay."""
NEW_WORD = "<new>"
RARE = "sks"


def command(
    task: Annotated[
        str | None, typer.Option("--task", help="`subject` or `style`; with --study one of its tasks.")
    ] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="Most memory while training: 600MiB, 8GB.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="Longest training, in seconds.")] = None,
    file_size: Annotated[str | None, typer.Option("--file-size", help="Largest file: 200kB, 1MB.")] = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="A study directory of yours to advise by; by default inlay's records."),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="With --study: what to judge by.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Your base, whose memory and file sizes are then planned.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Your pictures, for the run file: a folder.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Their caption: 'a photo of a sks dog'.")] = None,
    write: Annotated[Path | None, typer.Option("--write", help="Write a run file with the advised settings.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Advise a method and its settings, by what was measured, within a budget.

    Says what quality to expect, how sure that is, the runner-up and why, and what the records do not cover. Without
    --base and --study, times and memory are those of inlay's own base on the machine that was measured.
    """
    from inlay.run.human import parse_size
    from inlay.study import advice as advising
    from inlay.study.advice_records import for_base, of_study, planned_on, shipped

    if write is not None and write.exists():
        raise ConfigError(f"{write} is there already; give another --write")
    if study is None and metric is not None:
        raise ConfigError("--metric chooses among the metrics of a --study")
    if study is not None and base is not None:
        raise ConfigError("--base is for inlay's own records; a --study has a base of its own")
    budget = {
        "memory": None if memory is None else parse_size(memory, "--memory"),
        "seconds": seconds,
        "file_size": None if file_size is None else parse_size(file_size, "--file-size"),
    }
    limits = {name: limit for name, limit in budget.items() if limit is not None}
    records = shipped(task or "subject") if study is None else of_study(study, task, metric)
    planned = None
    if base not in (None, MEASURED):
        if seconds is not None:
            raise ConfigError(
                f"--seconds: nobody has measured {base} here; leave it out, and measure with `inlay plan --probe`"
            )
        from inlay.cli.quiet import quiet_libraries

        quiet_libraries()
        records = for_base(records, str(base))
        planned = planned_on(
            limits.get("memory"), lambda setting: typer.echo(f"planning {setting} on {base}", err=True)
        )
    advice = advising.choose(records, limits, planned)
    lines = advising.explain(advice)
    sections = run_file(advice, data, prompt)
    if write is not None:
        _write(write, sections, lines)
    if json:
        emit_json({**_json(advice), "says": lines, "run": sections, "file": None if write is None else str(write)})
        return
    for line in lines:
        console.print(line)
    if write is not None:
        console.print(
            f"run file     {write}: look with `inlay plan {write}`, start with `inlay tune {write}`", soft_wrap=True
        )


def run_file(advice: Advice, data: str | None, prompt: str | None) -> dict[str, Any]:
    """Return the sections of a run file with the advised settings and the user's pictures."""
    sections = dict(advice.best.candidate.settings)
    if data is not None:
        sections["data"] = {"source": data} | ({"prompt": prompt} if prompt is not None else {})
    elif prompt is not None:
        sections["data"] = {**sections["data"], "prompt": prompt}
    method = sections["method"]
    caption = sections["data"].get("prompt")
    if isinstance(method, dict) and method.get("name") == "textual_inversion" and caption:
        token = method.get("token", NEW_WORD)
        if token not in caption:
            caption = caption.replace(RARE, token) if RARE in caption else f"{caption} {token}"
            sections["data"] = {**sections["data"], "prompt": caption}
    return sections


def _write(path: Path, sections: dict[str, Any], lines: list[str]) -> None:
    import textwrap

    import yaml

    from inlay.files import write_text

    head = ["Advised by `inlay advise`.", *lines]
    comments = [f"# {row}" for line in head for row in textwrap.wrap(line, 116)]
    body = yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=100)
    write_text(path, "\n".join(comments) + "\n" + body)


def _json(advice: Advice) -> dict[str, Any]:
    def one(estimate: Estimate | None) -> dict[str, Any] | None:
        if estimate is None:
            return None
        return {
            "name": estimate.candidate.name,
            "expected": estimate.expected,
            "interval": None if estimate.low is None else [estimate.low, estimate.high],
            "measured": estimate.candidate.quality,
            "runs": estimate.candidate.runs,
            "costs": dict(estimate.candidate.costs),
        }

    return {
        "task": advice.records.task,
        "metric": advice.records.metric,
        "best": one(advice.best),
        "runner_up": one(advice.runner_up),
        "tied": list(advice.tied),
        "excluded": [{"name": name, "reason": reason} for name, reason in advice.excluded],
    }
