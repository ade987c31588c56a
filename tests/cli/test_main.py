import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Annotated

import pytest
import typer

import inlay
from inlay.cli.main import VERBS, main
from inlay.errors import DataError


@pytest.fixture
def verb(monkeypatch):
    """Return a function that makes the verb "try" run the given body."""

    def install(body):
        def command(
            count: Annotated[int, typer.Option(help="How many.")] = 1,
            json: Annotated[bool, typer.Option("--json")] = False,
        ) -> None:
            """Try something."""
            body()

        code = types.ModuleType("inlay.cli.try_")
        vars(code)["command"] = command
        monkeypatch.setitem(sys.modules, "inlay.cli.try_", code)
        monkeypatch.setitem(VERBS, "try", ("inlay.cli.try_", "Try."))

    return install


def fail(error: BaseException):
    def body():
        raise error

    return body


def test_no_arguments_and_help_show_every_verb(capsys):
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == bare
    assert all(name in bare for name in VERBS)


def test_the_help_of_the_installed_command_answers_quickly():
    command = Path(sys.executable).with_name("inlay")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([command, "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5  # the quickest of five: the others may have waited for a busy machine


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"inlay {inlay.__version__}\n"


GROUPS = {"study": ("plan", "run", "status")}


@pytest.mark.parametrize(
    "name", [f"{v} {sub}" for v, subs in GROUPS.items() for sub in subs] + sorted(VERBS.keys() - GROUPS)
)
def test_every_verb_has_help_and_json(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"inlay {name}" in shown
    assert "--json" in shown


def test_only_the_verb_that_was_asked_for_is_imported():
    code = (
        "import sys; from inlay.cli.main import main; main(['doctor', '--help'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('inlay.cli.')))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "['inlay.cli.console', 'inlay.cli.doctor', 'inlay.cli.main']"


def test_success(verb, capsys):
    verb(lambda: print("done"))
    assert main(["try"]) == 0
    assert capsys.readouterr().out == "done\n"


def test_a_users_mistake_is_one_message_and_exit_code_2(verb, capsys):
    verb(fail(DataError("photos/a.jpg: cannot be decoded [truncated]")))
    assert main(["try"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: photos/a.jpg: cannot be decoded [truncated]\n"
    assert captured.out == ""


def test_a_fault_of_ours_shows_its_traceback_and_exits_with_1(verb, capsys):
    verb(fail(ZeroDivisionError("a ratio")))
    assert main(["try"]) == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert captured.err.splitlines()[-1].startswith("error: this is a fault of inlay, please report")
    assert "ZeroDivisionError('a ratio')" in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["metods"], "'metods'. Did you mean 'methods'? See `inlay --help`."),
        (["try", "--cout", "3"], "Possible options: --count"),
        (["try", "--count", "many"], "See `inlay try --help`."),
        (["try", "extra"], "See `inlay try --help`."),
        (["--nonsense"], "See `inlay --help`."),
    ],
)
def test_wrong_usage_exits_with_2_and_points_to_the_help(verb, capsys, arguments, message):
    verb(lambda: None)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [(DataError("no pictures"), 2, "DataError"), (ValueError("no pictures"), 1, "ValueError")],
)
def test_with_json_an_error_is_an_object(verb, capsys, error, code, kind):
    verb(fail(error))
    assert main(["try", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["error"]["type"] == kind
    assert "no pictures" in report["error"]["message"]


def test_with_json_wrong_usage_is_an_object(verb, capsys):
    verb(lambda: None)
    assert main(["try", "--json", "--cout"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "UsageError"


def test_a_missing_package_is_named(verb, capsys):
    def body():
        import a_package_that_nobody_has.part  # noqa: F401 # pyright: ignore[reportMissingImports]

    verb(body)
    assert main(["try"]) == 2
    assert "'a_package_that_nobody_has' is not installed; `inlay doctor`" in capsys.readouterr().err


def test_a_missing_module_of_inlay_is_a_fault_of_ours(verb):
    def body():
        import inlay.no_such_part  # noqa: F401 # pyright: ignore[reportMissingImports]

    verb(body)
    assert main(["try"]) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interruption_exits_with_130(verb, error):
    verb(fail(error))
    assert main(["try"]) == 130


def test_a_verb_may_choose_its_exit_code(verb):
    verb(fail(typer.Exit(2)))
    assert main(["try"]) == 2


@pytest.mark.parametrize(
    ("argument", "body"), [("try", "print('x')"), ("try", "print('x' * 1_000_000)"), ("--help", "pass")]
)
def test_a_closed_pipe_is_no_fault(argument, body):
    code = (
        "import sys, types; from inlay.cli import main as module; from inlay.cli.main import main\n"
        f"def command() -> None: {body}\n"
        "sys.modules['try_'] = types.SimpleNamespace(command=command); module.VERBS['try'] = ('try_', '')\n"
        f"sys.exit(main([{argument!r}]))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, "")
