"""``inlay plan``: what a run would train, need and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inlay.cli.console import chart, console, emit_json, human_bytes, human_count, human_seconds, print_table
from inlay.errors import ConfigError

if TYPE_CHECKING:
    from inlay.run.config import JobConfig
    from inlay.run.places import Group
    from inlay.run.plan import Plan
    from inlay.run.probe import Probe


def command(
    run_file: Annotated[Path, typer.Argument(help="The run file (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings that replace the file's: method.rank=8 train.steps=500.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Load the weights and take two real steps: measured memory and time.")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Plan for a GPU with this much memory instead of this machine: 8GiB.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Also draw the effective weight over the timesteps into this file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show what a run would train, need and cost, before anything is loaded.

    Without --probe no weights are read: the model is put together on torch's meta device, and everything is counted
    there. Works for `sd-v1.4`, `sd-v2.1` and `sdxl` too, architectures without weights, and without the pictures.
    """
    from inlay.cli.quiet import quiet_libraries

    quiet_libraries()
    from inlay.run.human import parse_size
    from inlay.run.load_job import load_job
    from inlay.run.machine import gpu as gpu_with

    if probe and gpu is not None:
        raise ConfigError("--probe measures this machine, --gpu plans for another; give one of them")
    machine = None if gpu is None else gpu_with(round(parse_size(gpu, "--gpu")))
    config = load_job(run_file, overrides or [])
    if probe:
        from inlay.base.locate import locate

        locate(config.base)  # refuses an architecture without weights
    from inlay.run.plan import make_plan

    plan = make_plan(config, machine)
    if png is not None:
        from inlay.run.weight_picture import draw_weights

        draw_weights(plan.objective, config.objective.weighting.name, png)
    measured = None
    if probe:
        from inlay.run.probe import probe as take_steps

        measured = take_steps(config, plan)
    if json:
        results = {} if measured is None else {"probe": measured.to_json()}
        emit_json({"config": config.model_dump(mode="json"), **plan.to_json(), **results})
        return
    _print_settings(config, plan)
    _print_objective(plan, png)
    _print_parameters(plan)
    _print_memory(config, plan)
    _print_work(plan)
    _print_disk(plan)
    if measured is not None:
        _print_probe(plan, measured)
    for warning in plan.warnings:
        console.print(f"note: {warning}", style="yellow", soft_wrap=True)
    console.print(verdict(plan, measured), style="green" if plan.fits else "red", soft_wrap=True)


def verdict(plan: Plan, measured: Probe | None = None) -> str:
    """Return the plan in one line: what trains, its share, the file, the memory and whether it fits here."""
    what = " + ".join(method.name for method in plan.methods)
    place = f"this machine ({plan.machine.device})" if plan.machine.here else plan.machine.name
    here = f"of {human_bytes(plan.machine.available_bytes)} available on {place}"
    need = human_bytes(plan.memory.peak_bytes if measured is None else measured.peak_bytes)
    how = "needs about" if measured is None else "measured while training:"
    end = "fits" if plan.fits else "does not fit"
    if measured is not None and measured.finish_seconds is not None:
        end += f", done in about {human_seconds(measured.finish_seconds)}"
    return (
        f"{what} trains {human_count(plan.trainable_parameters)} parameters ({_percent(plan.trainable_percent)}), "
        f"result {human_bytes(plan.disk.result_bytes)}, {how} {need} {here}: {end}"
    )


def _print_settings(config: JobConfig, plan: Plan) -> None:
    effective, data, train = plan.effective, plan.data, config.train
    pictures = "not examined"
    if data.pictures is not None:
        pictures = f"{data.pictures:,} to train on" + (f", {data.held_out:,} held out" if data.held_out else "")
        pictures += f", {len(data.skipped):,} skipped" if data.skipped else ""
    budget = "unknown" if effective.steps is None else f"{effective.steps:,} steps"
    if effective.images is not None:
        budget += f", {effective.images:,} pictures seen"
    if effective.epochs is not None:
        budget += f", {effective.epochs:.4g} epochs"
    if train.minutes is not None:
        budget = f"{train.minutes:g} minutes" + ("" if effective.steps is None else f" or {budget}")
    classes = []
    if data.prior is not None:
        prior = data.prior
        count = "not examined"
        if prior.pictures is not None:
            parts = {"given": prior.given, "kept from earlier runs": prior.kept, "to be drawn": prior.to_draw}
            count = f"{prior.pictures:,}: " + ", ".join(
                f"{number:,} {what}" for what, number in parts.items() if number
            )
        classes = [("class pictures", f"{prior.prompt!r}: {count}"), ("prior weight", f"{prior.weight:g}")]
    mask = config.data.mask
    masks = [("masks", f"the loss counts {mask.outside:g} outside, 1 inside")] if mask is not None else []
    channels, height, width = effective.latent_shape
    batch = f"{train.batch_size}" + (f" and {train.batch_size} class pictures" if data.prior is not None else "")
    batch += ", one kind after the other" if config.data.prior_apart else ""
    batch += f" in {train.accumulate} micro-batches of {effective.micro_batch_images}" if train.accumulate > 1 else ""
    terminal = ", zero terminal SNR" if effective.zero_terminal_snr else ""
    low, high = effective.weight_range
    each = [f"{method.learning_rate:g}" for method in plan.methods]
    rates = " + ".join(each if len(set(each)) > 1 else each[:1])
    rows = [
        ("base", plan.base),
        ("method", " + ".join(method.name for method in plan.methods)),
        ("pictures", f"{data.source}: {pictures}"),
        *masks,
        *classes,
        ("resolution", f"{effective.resolution_pixels} pixels, latents {channels} x {height} x {width}"),
        ("prediction", f"{effective.prediction}, {effective.timesteps} timesteps{terminal}"),
        ("loss weight", f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"),
        ("budget", budget),
        ("batch", batch),
        ("learning rate", f"{rates}, {train.schedule.name}"),
        ("precision", train.precision + (", gradient checkpointing" if train.gradient_checkpointing else "")),
    ]
    print_table(["setting", "as it acts"], rows)


def _print_objective(plan: Plan, png: Path | None) -> None:
    weights, last = plan.objective.weights, plan.effective.timesteps - 1
    console.print("effective weight of the loss over the timesteps", style="bold")
    rows = chart(weights)
    for number, row in enumerate(rows):
        label = f"{max(weights):.3g}" if number == 0 else "0" if number == len(rows) - 1 else ""
        console.print(f"{label:>8} {row}", soft_wrap=True)
    console.print(f"{'':8} t = 0, clean{f't = {last}, noise':>{len(rows[0]) - 12}}", soft_wrap=True)
    console.print(plan.objective.sentence(), soft_wrap=True)
    if png is not None:
        console.print(f"drawn into {png}", soft_wrap=True)
    console.print()


def _print_parameters(plan: Plan) -> None:
    def rows(groups: tuple[Group, ...]) -> list[tuple[str, str, str, str]]:
        shown = [group for group in groups if group.trainable_parameters or group.base_parameters >= 1e6]
        total = type(shown[0])("total", plan.base_parameters, plan.trainable_parameters)
        return [
            (
                group.name,
                f"{group.trainable_parameters:,}",
                f"{group.base_parameters:,}",
                _percent(100 * group.trainable_parameters / group.base_parameters) if group.base_parameters else "",
            )
            for group in (*shown, total)
        ]

    print_table(["parameters by place", ">trainable", ">base", ">share"], rows(plan.blocks))
    print_table(["parameters by kind", ">trainable", ">base", ">share"], rows(plan.kinds))


def _print_memory(config: JobConfig, plan: Plan) -> None:
    memory = plan.memory
    on_cpu = plan.machine.device == "cpu"
    originals = "originals of the tuned weights" + ("" if on_cpu else " (host memory, not in the sum)")
    rows = [
        ("frozen weights", memory.frozen_weights_bytes),
        ("trained weights", memory.trained_weights_bytes),
        ("optimizer", memory.optimizer_bytes),
        ("averaged weights", memory.average_bytes),
        (originals, memory.originals_bytes),
        ("Python and libraries", memory.libraries_bytes),
        ("gradients", memory.gradients_bytes),
        ("activations", memory.activations_bytes),
        ("not at the same time", -memory.overlap_bytes),
        ("freed, held by the allocator", memory.allocator_bytes),
        ("a training step", memory.training_bytes),
    ]
    print_table(["memory", ">estimate"], [(name, human_bytes(size)) for name, size in rows if size])
    other = "without" if config.train.gradient_checkpointing else "with"
    phases = [
        ("encoding", memory.encoding_bytes),
        ("training", memory.training_bytes),
        ("drawing previews", memory.previews_bytes),
        (f"(training {other} gradient checkpointing)", memory.training_bytes_other),
    ]
    print_table(["peak while", ">estimate"], [(name, human_bytes(size)) for name, size in phases])


def _print_work(plan: Plan) -> None:
    work = plan.work
    rows = [
        ("denoiser forward", work.forward_image_flops, "a picture"),
        ("backward", work.backward_image_flops, "a picture"),
        ("autoencoder", work.encode_picture_flops, "a picture, once" if plan.disk.latents_bytes != 0 else "a picture"),
        ("text encoder", work.encode_caption_flops, "a caption, once" if plan.disk.text_bytes != 0 else "a caption"),
        ("forward", work.forward_step_flops, "a step"),
        ("backward", work.backward_step_flops, "a step"),
        ("training", work.training_flops, "in all"),
        ("previews", work.preview_flops, "a round"),
        ("class pictures", work.class_images_flops or None, "in all, once"),
    ]
    print_table(
        ["arithmetic", ">FLOPs", "for"],
        [(name, human_count(flops), unit) for name, flops, unit in rows if flops is not None],
    )


def _print_disk(plan: Plan) -> None:
    disk = plan.disk
    rows = [
        ("result", disk.result_bytes),
        ("cache of latents", disk.latents_bytes),
        ("cache of text states", disk.text_bytes),
        ("checkpoints", disk.checkpoints_bytes),
    ]
    if disk.averages_bytes:
        rows.append(("stored averages", disk.averages_bytes))
    if plan.data.prior is not None:
        rows.append(("class pictures", disk.class_images_bytes))
    print_table(["disk", ">size"], [(name, "unknown" if size is None else human_bytes(size)) for name, size in rows])


def _print_probe(plan: Plan, measured: Probe) -> None:
    rows = [
        ("seconds a step", human_seconds(measured.seconds_per_step)),
        ("speed", f"{human_count(measured.step_flops_per_second)}FLOP/s"),
        ("peak memory", f"{human_bytes(measured.peak_bytes)} (estimated {human_bytes(plan.memory.training_bytes)})"),
        ("encoding", human_seconds(measured.encoding_seconds)),
        ("training", _seconds(measured.training_seconds)),
        ("previews", human_seconds(measured.previews_seconds)),
        *([("class pictures", _seconds(measured.class_images_seconds))] if plan.data.prior is not None else []),
        ("in all", _seconds(measured.finish_seconds)),
    ]
    print_table(["two steps, measured", ">"], rows)


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else human_seconds(value)


def _percent(value: float) -> str:
    return f"{value:.3g} %"
