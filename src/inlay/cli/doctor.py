"""``inlay doctor``: what this machine and this installation offer, what is missing, and how to get it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from packaging.requirements import Requirement

import inlay
from inlay.cli.console import console, emit_json, human_bytes, print_table

# Below this, caches and a tuned pipeline of Stable Diffusion's size (about 4 GB in half precision) may not fit.
LITTLE_DISK_BYTES = 10 * 2**30

BASE_DIRECTORY = Path(inlay.__file__).parent / "base" / "tabletop"


def command(json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False) -> None:
    """Check this machine and this installation; say what is missing and how to get it.

    Nothing is changed or downloaded. The exit code is 0 even when something is missing: see `ok` in --json.
    """
    report = examine()
    if json:
        emit_json(report)
    else:
        _print(report)


def examine() -> dict[str, Any]:
    """Return everything the doctor knows, as JSON-ready data; ``problems`` lists what to mend, and how."""
    problems: list[dict[str, str]] = []
    report: dict[str, Any] = {
        "inlay": inlay.__version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "packages": _packages(problems),
        "torchvision": _torchvision(problems),
        "cpu": _cpu(),
        "accelerators": _accelerators(problems),
        "disk": _disk(problems),
        "base": _base(problems),
    }
    report["problems"] = problems
    report["ok"] = not any(problem["level"] == "error" for problem in problems)
    return report


def _problem(problems: list[dict[str, str]], level: str, what: str, remedy: str) -> None:
    problems.append({"level": level, "what": what, "remedy": remedy})


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages(problems: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return what inlay's own metadata asks for, beside what is installed."""
    try:
        lines = metadata.requires("inlay") or []
    except metadata.PackageNotFoundError:
        _problem(problems, "error", "inlay itself is not installed in this Python", "pip install -e .")
        return []
    packages = []
    for requirement in map(Requirement, lines):
        extra = _extra(requirement)
        version = _version(requirement.name)
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        asked = f"{requirement.name}{requirement.specifier}"
        if not fits and extra is None:
            what = f"{requirement.name} is missing" if version is None else f"{asked} is needed, {version} is installed"
            _problem(problems, "error", what, f'pip install "{asked}"')
        packages.append(
            {
                "name": requirement.name,
                "needs": str(requirement.specifier) or "any",
                "version": version,
                "fits": fits,
                "extra": extra,
                "install": f'pip install "inlay[{extra}]"' if extra else f'pip install "{asked}"',
            }
        )
    return packages


def _extra(requirement: Requirement) -> str | None:
    """Return the extra that a requirement belongs to, or None when everybody needs it."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return None
    extras = metadata.metadata("inlay").get_all("Provides-Extra") or []
    return next((extra for extra in extras if requirement.marker.evaluate({"extra": extra})), None)


def _import(name: str) -> tuple[Any, str | None]:
    """Return (module, None) or (None, why not). A broken package may raise anything while it is imported."""
    try:
        return importlib.import_module(name), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0]


def _torchvision(problems: list[dict[str, str]]) -> dict[str, Any]:
    """Recognise a torchvision that does not belong to the installed torch.

    inlay needs no torchvision. But transformers, diffusers and PEFT use one when they find it, and a build for
    another torch (typically a CUDA build beside a CPU torch) makes their imports fail with
    "operator torchvision::nms does not exist".
    """
    version = _version("torchvision")
    if version is None:
        return {"version": None, "works": None, "error": None}
    _, error = _import("torchvision")
    if error is not None:
        _problem(
            problems,
            "error",
            f"torchvision {version} does not fit torch {_version('torch')} ({error}); "
            "transformers, diffusers and PEFT will fail to import",
            "pip uninstall torchvision (inlay does not need it)",
        )
    return {"version": version, "works": error is None, "error": error}


def _cpu() -> dict[str, Any]:
    flags = _cpu_flags()
    memory = psutil.virtual_memory()
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "amx": "amx_bf16" in flags,
        # What makes bf16 matrix products faster than float32 ones on a CPU; elsewhere they are emulated.
        "fast_bf16": bool(flags & {"amx_bf16", "avx512_bf16", "bf16"}),
    }


def _cpu_flags() -> set[str]:
    """Return the processor's feature names, on Linux; elsewhere none are known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    features = (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features")))
    return set(next(features, []))


def _accelerators(problems: list[dict[str, str]]) -> list[dict[str, Any]]:
    torch, error = _import("torch")
    if torch is None:
        _problem(problems, "error", f"torch cannot be imported ({error})", 'pip install "torch==2.13.0"')
        return []
    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found.append(
                {
                    "device": f"cuda:{index}",
                    "name": torch.cuda.get_device_name(index),
                    "memory_bytes": total,
                    "memory_available_bytes": free,
                    "fast_bf16": torch.cuda.get_device_capability(index) >= (8, 0),
                }
            )
    if torch.backends.mps.is_available():
        memory = psutil.virtual_memory()  # the graphics processor shares the machine's memory
        found.append(
            {
                "device": "mps",
                "name": "Apple Metal",
                "memory_bytes": memory.total,
                "memory_available_bytes": memory.available,
                "fast_bf16": False,
            }
        )
    if not found and shutil.which("nvidia-smi") and torch.version.cuda is None:
        _problem(
            problems,
            "warning",
            f"there seems to be an NVIDIA GPU, but torch {torch.__version__} is a build without CUDA",
            "install torch as https://pytorch.org/get-started describes for your CUDA",
        )
    return found


def _disk(problems: list[dict[str, str]]) -> dict[str, Any]:
    """Return where caches and results go, and the room there."""
    places: dict[str, Path] = {"runs": Path.cwd()}
    cache, _ = _import("inlay.data.cache")
    if cache is not None:
        places["cache"] = cache.cache_directory()
    hub, _ = _import("huggingface_hub.constants")
    if hub is not None:
        places["models"] = Path(hub.HF_HUB_CACHE)
    disk: dict[str, Any] = {}
    for name, path in places.items():
        # The folder itself may not exist yet; its nearest existing parent is on the disk where it will be made.
        existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        writable = os.access(existing, os.W_OK)
        disk[name] = {"path": str(path), "free_bytes": free, "writable": writable}
        remedy = {"cache": "set INLAY_CACHE to", "models": "set HF_HOME to", "runs": "work in"}[
            name
        ] + " another folder"
        if not writable:
            _problem(problems, "warning", f"{path} ({name}) cannot be written", remedy)
        elif free < LITTLE_DISK_BYTES:
            _problem(problems, "warning", f"only {human_bytes(free)} are free for {name} at {path}", remedy)
    return disk


def _base(problems: list[dict[str, str]]) -> dict[str, Any]:
    present = any((BASE_DIRECTORY / "unet").glob("*.safetensors"))
    if not present:
        _problem(
            problems,
            "error",
            f"the embedded base model is missing from {BASE_DIRECTORY}",
            "reinstall inlay, or build it again: make base",
        )
    return {"path": str(BASE_DIRECTORY), "present": present}


def _print(report: dict[str, Any]) -> None:
    python = report["python"]
    console.print(f"inlay {report['inlay']}, Python {python['version']} ({python['executable']})")
    console.print(f"{report['platform']}\n")
    packages = report["packages"]
    print_table(
        ["package", "installed", "needed"],
        [(p["name"], p["version"] or "missing", p["needs"]) for p in packages if p["extra"] is None],
    )
    extras = {package["extra"]: package["install"] for package in packages if package["extra"]}
    members = {extra: [p for p in packages if p["extra"] == extra] for extra in extras}
    print_table(
        ["extra", "packages", "installed or how to get it"],
        [
            (extra, " ".join(p["name"] for p in parts), "yes" if all(p["fits"] for p in parts) else extras[extra])
            for extra, parts in members.items()
        ],
    )
    cpu = report["cpu"]
    processor = f"{cpu['cores']} cores" + (", AMX" if cpu["amx"] else "")
    rows = [("cpu", processor, cpu)] + [(device["device"], device["name"], device) for device in report["accelerators"]]
    print_table(
        ["device", "name", ">memory", ">available", "bf16"],
        [
            (
                name,
                description,
                human_bytes(device["memory_bytes"]),
                human_bytes(device["memory_available_bytes"]),
                "fast" if device["fast_bf16"] else "slow",
            )
            for name, description, device in rows
        ],
    )
    print_table(
        ["folder", "path", ">free"],
        [(name, place["path"], human_bytes(place["free_bytes"])) for name, place in report["disk"].items()],
    )
    state = "present" if report["base"]["present"] else "missing"
    console.print(f"embedded base: {state} ({report['base']['path']})", soft_wrap=True)
    torchvision = report["torchvision"]
    if torchvision["version"] is not None:
        state = "works" if torchvision["works"] else "broken"
        console.print(f"torchvision {torchvision['version']}: {state}, not needed by inlay")
    console.print()
    if not report["problems"]:
        console.print("Nothing is missing.", style="green")
    for problem in report["problems"]:
        style = "red" if problem["level"] == "error" else "yellow"
        console.print(f"{problem['level']}: {problem['what']}", style=style, soft_wrap=True)
        console.print(f"  to mend it: {problem['remedy']}", soft_wrap=True)
