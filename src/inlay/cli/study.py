"""``inlay study``: plan a comparison of many runs, run it, see how far it is, and what came out."""

from __future__ import annotations

import typer

from inlay.cli import study_plan, study_report, study_run, study_status

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
app.command("plan")(study_plan.command)
app.command("run")(study_run.command)
app.command("status")(study_status.command)
app.command("report")(study_report.command)
