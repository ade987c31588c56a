"""The entry point ``inlay``: find the verb, run it, turn errors into messages and exit codes.

Exit codes: 0 done, 1 a fault of inlay, 2 the user's input is wrong, 130 interrupted.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from inlay import __version__
from inlay.errors import InlayError

# Verb: the module that defines its function `command`, or `app` where it has verbs of its own, and its line in
# `inlay --help`. Only the module of the verb that was asked for is imported: the help answers at once, and no verb
# waits for another's libraries.
VERBS = {
    "plan": ("inlay.cli.plan", "Show what a run would train, need and cost, before anything is loaded."),
    "tune": ("inlay.cli.tune", "Tune a model on your pictures."),
    "sample": ("inlay.cli.sample", "Draw pictures with a tuned model."),
    "evaluate": ("inlay.cli.evaluate", "Measure what a tuned model draws, and what went wrong in tuning."),
    "pretrain": ("inlay.cli.pretrain", "Train a model from scratch."),
    "average": ("inlay.cli.average", "Average a run's weights over another length, after the run."),
    "compare": ("inlay.cli.compare", "Put runs side by side on one page."),
    "advise": ("inlay.cli.advise", "Advise a method and settings for a budget, by what was measured."),
    "export": ("inlay.cli.export", "Write an adapter in the format of another program."),
    "import": ("inlay.cli.import_", "Take over an adapter file of another program."),
    "analyze": (
        "inlay.cli.analyze",
        "Draw conflicts between timesteps, optimal weightings, and where an identifier acts.",
    ),
    "merge": ("inlay.cli.merge", "Merge adapter files into a model, or into one LoRA."),
    "extract": ("inlay.cli.extract", "Make a LoRA of the difference between two models."),
    "inspect": ("inlay.cli.inspect", "Show what is in a file, and how strong it is layer by layer."),
    "study": ("inlay.cli.study", "Compare methods, positions, settings by many runs: plan, run, report."),
    "tokens": ("inlay.cli.tokens", "Find rare words of a model's vocabulary, to name a subject by."),
    "methods": ("inlay.cli.methods", "List the tuning methods, or the settings of one."),
    "shard": ("inlay.cli.shard", "Pack a folder of pictures into tar files, for data sets of many."),
    "doctor": ("inlay.cli.doctor", "Check this machine and this installation; say what is missing."),
}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"inlay {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, tune and compare diffusion models efficiently.

    Start with `inlay doctor`, then `inlay tune recipes/quickstart.yaml`.
    """


def _unloaded() -> None:
    """Stand in the list of verbs for one whose module is not needed now."""


def build_app(asked: str | None) -> typer.Typer:
    """Return the application, in which only the verb ``asked`` is loaded."""
    app = typer.Typer(
        add_completion=False,  # completing a verb's options would import its module at every press of Tab
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for verb, (module, line) in VERBS.items():
        loaded = importlib.import_module(module) if verb == asked else None
        group = getattr(loaded, "app", None)
        if group is not None:
            app.add_typer(group, name=verb, short_help=line, help=line)
        else:
            app.command(verb, short_help=line)(loaded.command if loaded else _unloaded)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    With ``--json`` an error is a JSON object on standard output, ``{"error": {"type": ..., "message": ...}}``.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    as_json = "--json" in arguments
    try:
        # Not standalone: typer then raises its usage errors instead of printing them, and returns exit codes.
        code = build_app(asked)(arguments or ["--help"], prog_name="inlay", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except InlayError as error:
        _report(type(error).__name__, str(error), as_json)
        return 2
    except typer.TyperException as error:
        command = f"inlay {asked}" if asked in VERBS else "inlay"
        message = error.format_message()
        stop = "" if message.endswith((".", "?")) else "."
        _report("UsageError", f"{message}{stop} See `{command} --help`.", as_json)
        return error.exit_code
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "inlay"):
            return _fault(error, as_json)
        message = f"the package {package!r} is not installed; `inlay doctor` says what is missing and how to get it"
        _report("MissingPackage", message, as_json)
        return 2
    except (BrokenPipeError, SystemExit):  # into the second typer turns the first, where it sees it
        # The reader left, as in `inlay methods | head -1`. What is still buffered goes nowhere, without complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13  # as the shell reports SIGPIPE
    except (KeyboardInterrupt, typer.Abort):
        _report("Interrupted", "interrupted", as_json)
        return 130
    except Exception as error:
        return _fault(error, as_json)


def _fault(error: Exception, as_json: bool) -> int:
    traceback.print_exception(error)
    _report(
        type(error).__name__, f"this is a fault of inlay, please report it with the lines above: {error!r}", as_json
    )
    return 1


def _report(kind: str, message: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": {"type": kind, "message": message}}))
    else:
        print(f"error: {message}", file=sys.stderr)
