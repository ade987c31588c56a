import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inlay.artifacts.formats import FORMATS
from inlay.artifacts.layers import Updates
from inlay.base.locate import BUILT_IN
from inlay.base.settings import BaseSettings
from inlay.errors import ArtifactError, ConfigError
from inlay.files import read_tensors, write_tensors
from inlay.methods import METHODS, Lora
from inlay.run.blueprints import base_blueprint, candidates, family
from inlay.run.config import RunConfig
from inlay.run.exchange import adopt, as_lora, default_output, export, open_file
from inlay.run.job import execute
from tests.artifacts.specimens import (
    LAYERS,
    TEXT_LAYERS,
    changed_copy,
    difference,
    hadamard,
    kronecker,
    low_rank,
    make_tiny_xl,
    random_tensor,
    same,
    tiny_blueprint,
    xl_inputs,
)
from tests.tiny import make_tiny_components

LORA = "pytorch_lora_weights.safetensors"
TINY = tiny_blueprint()


@pytest.fixture(scope="module")
def run(tiny_base, photos, tmp_path_factory) -> Path:
    """A finished run."""
    directory = tmp_path_factory.mktemp("runs") / "rex"
    settings = {
        "base": str(tiny_base),
        "data": {"source": str(photos), "prompt": "a photo of sks dog"},
        "method": {"name": "lora", "rank": 2, "alpha": 3},
        "objective": {"weighting": {"name": "min_snr", "gamma": 4}},
        "train": {"steps": 1, "batch_size": 2, "learning_rate": 1e-2},
        "preview": {"pictures": 1, "steps": 1},
    }
    execute(RunConfig.model_validate(settings), directory)
    return directory


def tuned(method, components):
    """Attach a method with random parameters; return the attachment."""
    attachment = method.attach(components)
    for number, parameter in enumerate(attachment.parameters().values()):
        parameter.data += random_tensor(parameter.shape, number)
    return attachment


def saved(attachment, path: Path) -> Path:
    header = {**attachment.metadata(), "inlay.method": attachment.method.model_dump_json()}
    return write_tensors(path, attachment.state(), header)


def answers(unet, text_encoder=None):
    random = torch.Generator().manual_seed(5)
    noisy, states = torch.randn(1, 4, 8, 8, generator=random), torch.randn(1, 7, 32, generator=random)
    with torch.no_grad():
        found = [unet(noisy, torch.tensor([3]), states).sample]
        if text_encoder is not None:
            found.append(text_encoder(torch.arange(9)[None])[0])
    return found


def load_in_diffusers(tiny_base, path: Path):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base)
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    pipeline.unet.eval()
    pipeline.text_encoder.eval()
    return pipeline


READ_BY_DIFFUSERS = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@READ_BY_DIFFUSERS
@pytest.mark.parametrize("format_name", ["kohya", "diffusers"])
@pytest.mark.parametrize(
    "settings",
    [{"rank": 2, "alpha": 3}, {"rank": 3, "alpha": 6, "rslora": True, "text_encoder": True, "targets": "everything"}],
    ids=["plain", "everything"],
)
def test_diffusers_computes_the_same_with_exported_files(tiny_base, tmp_path, format_name, settings):
    components = make_tiny_components()
    attachment = tuned(Lora(**settings), components)
    expected = answers(components["unet"], components["text_encoder"])
    opened = open_file(saved(attachment, tmp_path / "lora.safetensors"), str(tiny_base))
    path = export(opened, format_name, tmp_path / "out.safetensors")
    pipeline = load_in_diffusers(tiny_base, path)
    attachment.detach()
    untouched = answers(components["unet"], components["text_encoder"])
    assert not torch.allclose(untouched[0], expected[0], atol=1e-2)
    # Held against what the file changes: how far rounding grows inside so strong a change differs by processor.
    for found, one, without in zip(answers(pipeline.unet, pipeline.text_encoder), expected, untouched, strict=True):
        assert (found - one).norm() <= 1e-3 * (one - without).norm() + 1e-5


@READ_BY_DIFFUSERS
def test_diffusers_draws_the_same_picture(tiny_base, run, tmp_path):
    from diffusers import StableDiffusionPipeline

    def draw(pipeline):
        seed = torch.Generator().manual_seed(0)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline("a red dog", num_inference_steps=2, generator=seed, output_type="np").images[0]

    pictures = []
    for format_name in ("inlay", "diffusers", "kohya"):
        path = export(open_file(run), format_name, tmp_path / f"{format_name}.safetensors")
        pictures.append(draw(load_in_diffusers(tiny_base, path)))
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] == pictures[2]).all()
    assert not (pictures[0] == draw(StableDiffusionPipeline.from_pretrained(tiny_base))).all()


@READ_BY_DIFFUSERS
@pytest.mark.parametrize("format_name", ["kohya", "diffusers"])
def test_diffusers_computes_the_same_with_exported_files_of_xl(tmp_path, monkeypatch, format_name):
    from diffusers import StableDiffusionXLPipeline

    parts = make_tiny_xl()
    xl = tiny_blueprint(parts)
    names = [
        "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q",
        "unet.down_blocks.2.attentions.1.transformer_blocks.2.attn2.to_out.0",
        "unet.up_blocks.0.attentions.2.transformer_blocks.0.ff.net.2",
        "unet.mid_block.attentions.0.proj_in",
        "unet.up_blocks.1.resnets.2.conv_shortcut",
        "unet.down_blocks.1.resnets.0.time_emb_proj",
        "unet.down_blocks.0.downsamplers.0.conv",
        "unet.up_blocks.1.upsamplers.0.conv",
        "text_encoder.text_model.encoder.layers.0.self_attn.k_proj",
        "text_encoder.text_model.encoder.layers.0.self_attn.out_proj",  # by which diffusers knows kohya's names
        "text_encoder_2.text_model.encoder.layers.1.self_attn.out_proj",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
    ]
    layers = {name: low_rank(xl.shapes[name], seed=number, alpha=1.5) for number, name in enumerate(names)}
    path = FORMATS[format_name].write(tmp_path / "xl.safetensors", Updates(layers), [xl])
    monkeypatch.setattr("inlay.run.exchange.candidates", lambda base, said: [TINY, xl])
    same(open_file(path).contents.layers, layers)
    expected = changed_copy(parts, layers)
    pipeline = StableDiffusionXLPipeline(
        vae=None, tokenizer=None, tokenizer_2=None, scheduler=None, force_zeros_for_empty_prompt=True, **parts
    )
    pipeline.load_lora_weights(tmp_path, weight_name="xl.safetensors")
    noisy, step, states, added = xl_inputs()
    with torch.no_grad():
        found = pipeline.unet.eval()(noisy, step, states, added_cond_kwargs=added).sample
        wanted = expected["unet"](noisy, step, states, added_cond_kwargs=added).sample
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        for part in ("text_encoder", "text_encoder_2"):
            tokens = torch.arange(9)[None]
            torch.testing.assert_close(getattr(pipeline, part).eval()(tokens)[0], expected[part](tokens)[0])


@pytest.mark.parametrize("name", ["loha", "lokr"])
def test_loha_and_lokr_are_exported_as_lycoris_and_peft_read_them(tiny_base, tmp_path, name):
    if name not in METHODS:
        pytest.skip(f"there is no method {name} yet")
    from peft import PeftModel

    components = make_tiny_components()
    attachment = tuned(METHODS[name](rank=2, alpha=3), components)
    expected = answers(components["unet"])[0]
    path = saved(attachment, tmp_path / "file.safetensors")
    attachment.detach()
    opened = open_file(path, str(tiny_base))
    changed = changed_copy(components, opened.contents.layers)
    torch.testing.assert_close(answers(changed["unet"])[0], expected, rtol=1e-4, atol=1e-5)
    lycoris = export(opened, "lycoris", tmp_path / "lycoris.safetensors")
    same(open_file(lycoris, str(tiny_base)).contents.layers, opened.contents.layers)
    peft = export(opened, "peft", tmp_path / "peft")
    unet = PeftModel.from_pretrained(components["unet"], peft / "unet")
    torch.testing.assert_close(answers(unet)[0], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArtifactError, match="cannot hold this"):
        export(opened, "kohya", tmp_path / "kohya.safetensors")


def test_lycoris_computes_the_same(tiny_base, tmp_path):
    import lycoris  # slow to import, and needed by no other test

    shape = TINY.shapes
    linear, other, third, fourth, point, conv, down, *_ = LAYERS
    layers = {
        linear: hadamard(shape[linear], alpha=1.5),
        other: kronecker(shape[other], (4, 4), alpha=1.5),
        third: kronecker(shape[third], (4, 4), second=True, alpha=1.5),
        fourth: low_rank(shape[fourth], alpha=6.0, dora="out"),
        point: difference(shape[point], bias=True),
        conv: low_rank(shape[conv], core=True),
        down: hadamard(shape[down], core=True, alpha=2.0),
    }
    path = FORMATS["lycoris"].write(tmp_path / "file.safetensors", Updates(layers), [TINY])
    tensors = {name.replace("lora_unet_", "lycoris_"): value for name, value in load_file(path).items()}
    unet = make_tiny_components()["unet"]
    expected = answers(changed_copy({"unet": unet}, layers)["unet"])[0]
    with torch.no_grad():
        network, _ = lycoris.create_lycoris_from_weights(1.0, "", unet, tensors)
        network.apply_to()
    assert len(network.loras) == len(layers)
    torch.testing.assert_close(answers(unet)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text_encoder", [True, "transformer"])
def test_what_is_imported_can_be_attached(tiny_base, tmp_path, text_encoder):
    components = make_tiny_components()
    attachment = tuned(Lora(rank=2, alpha=3, text_encoder=text_encoder, dora=True), components)
    expected, state = answers(components["unet"], components["text_encoder"]), attachment.state()
    opened = open_file(saved(attachment, tmp_path / "lora.safetensors"), str(tiny_base))
    for format_name in ("kohya", "diffusers", "peft", "lycoris"):
        target = tmp_path / f"{format_name}{FORMATS[format_name].suffix}"
        foreign = open_file(export(opened, format_name, target), str(tiny_base))
        path = export(adopt(foreign, str(tiny_base)), "inlay", tmp_path / f"{format_name}-inlay.safetensors")
        tensors, header = read_tensors(path)
        assert tensors.keys() == state.keys()
        assert all(torch.equal(tensors[name], state[name]) for name in state)
        assert header["inlay.base"] == str(tiny_base)
        method = Lora.model_validate_json(header["inlay.method"])
        other = make_tiny_components()
        method.attach(other).load(tensors)
        found = answers(other["unet"], other["text_encoder"])
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


@pytest.mark.parametrize("text_encoder", [False, True, "transformer"])
def test_a_lora_of_xl_is_the_method_that_has_its_layers_in_both_text_encoders(tmp_path, text_encoder):
    components = make_tiny_xl()
    model = tiny_blueprint(components)
    path = saved(tuned(Lora(rank=2, text_encoder=text_encoder), components), tmp_path / "lora.safetensors")
    updates = FORMATS["inlay"].read(path, [model])
    method = as_lora(updates, [model])
    assert method is not None
    assert method.text_encoder == text_encoder
    method.attach(make_tiny_xl()).load(read_tensors(path)[0])
    one = {name: update for name, update in updates.layers.items() if not name.startswith("text_encoder_2.")}
    assert (as_lora(Updates(one), [model]) is None) == bool(text_encoder)


def test_what_is_no_lora_of_one_rank_is_imported_as_updates(tiny_base, tmp_path):
    shape = TINY.shapes
    layers = {
        LAYERS[0]: low_rank(shape[LAYERS[0]], rank=2, alpha=0.3),
        LAYERS[1]: low_rank(shape[LAYERS[1]], rank=3, dora="in"),
        LAYERS[3]: hadamard(shape[LAYERS[3]], alpha=0.7),
        LAYERS[5]: kronecker(shape[LAYERS[5]], alpha=0.7),
        LAYERS[6]: kronecker(shape[LAYERS[6]], second=True, alpha=8.0),
        TEXT_LAYERS[2]: difference(shape[TEXT_LAYERS[2]], bias=True),
    }
    path = FORMATS["lycoris"].write(tmp_path / "mixed.safetensors", Updates(layers), [TINY])
    imported = export(adopt(open_file(path, str(tiny_base)), None), "inlay", tmp_path / "inlay.safetensors")
    assert "inlay.method" not in read_tensors(imported)[1]
    opened = open_file(imported, str(tiny_base))
    assert opened.format == "inlay"
    same(opened.contents.layers, layers)
    again = load_file(export(opened, "lycoris", tmp_path / "again.safetensors"))
    first = load_file(path)
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
    with pytest.raises(ArtifactError, match="is a full difference"):
        export(opened, "diffusers", tmp_path / "diffusers.safetensors")


def test_a_run_says_how_it_was_trained(run, tmp_path):
    path = export(open_file(run), "kohya", tmp_path / "rex.safetensors")
    header = read_tensors(path)[1]
    assert header["ss_min_snr_gamma"] == "4.0"
    assert header["ss_steps"] == "1"
    assert header["ss_learning_rate"] == "0.01"
    assert header["ss_resolution"] == "(32, 32)"
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("2", "3")
    assert float(header["ss_training_finished_at"]) >= float(header["ss_training_started_at"])
    # The tiny base is of no published architecture.
    assert not [key for key in header if key.startswith("modelspec.")]
    assert default_output(open_file(run), "kohya") == Path("rex-kohya.safetensors")


def test_nothing_of_the_user_s_is_replaced_unasked(run, tmp_path):
    opened = open_file(run)
    output = tmp_path / "file.safetensors"
    output.write_text("precious")
    with pytest.raises(ConfigError, match=r"exists already; give another --output, or --force"):
        export(opened, "kohya", output)
    assert output.read_text() == "precious"
    export(opened, "kohya", output, force=True)
    assert load_file(output)
    with pytest.raises(ConfigError, match="is the file that is read"):
        export(opened, "kohya", run / LORA, force=True)
    with pytest.raises(ConfigError, match="is a directory; this format is one file"):
        export(opened, "kohya", tmp_path, force=True)


def test_formats_of_other_contents_are_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=r"--format kohja: no such format; allowed: inlay, diffusers"):
        export(open_file(run), "kohja", tmp_path / "file")
    save_file({"<sks>": torch.zeros(1, 32)}, tmp_path / "word.safetensors")
    opened = open_file(tmp_path / "word.safetensors")
    with pytest.raises(ConfigError, match=r"--format kohya: holds updates, and .*word.safetensors holds embeddings"):
        export(opened, "kohya", tmp_path / "file")


def test_an_unfinished_run_and_a_missing_file(run, tmp_path):
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    record = json.loads((broken / "record.json").read_text())
    (broken / "record.json").write_text(json.dumps({**record, "status": "stopped"}))
    with pytest.raises(ConfigError, match="the run has not finished"):
        open_file(broken)
    with pytest.raises(ArtifactError, match="no such file"):
        open_file(tmp_path / "gone.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(ArtifactError, match=r"text.safetensors: not a safetensors file"):
        open_file(tmp_path / "text.safetensors")
    save_file({"a.weight": torch.zeros(2, 2), "b.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"of no format that inlay reads; it reads: inlay, diffusers"):
        open_file(tmp_path / "model.safetensors")


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_pickled_files_are_read_by_restricted_means(tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = {name: low_rank(TINY.shapes[name]) for name in LAYERS}
    tensors = load_file(FORMATS["kohya"].write(tmp_path / "file.safetensors", Updates(layers), [TINY]))
    torch.save(tensors, "file.pt")
    opened = open_file(Path("file.pt"), str(tiny_base))
    assert opened.format == "kohya"
    same(opened.contents.layers, layers)
    torch.save({**tensors, "lora_unet_conv_in.alpha": Harmful()}, "file.pt")
    with pytest.raises(ArtifactError, match=r"file.pt: refused: it asks for getattr, and only tensors"):
        open_file(Path("file.pt"), str(tiny_base))
    assert not Path("harm").exists()


def test_a_base_is_named_as_the_ecosystem_names_it(tmp_path, tiny_base):
    for name, expected in [
        ("sd-v1.4", ("stable-diffusion-v1", "sd_v1")),
        ("sd-v2.1", ("stable-diffusion-v2-768-v", "sd_v2_v")),
    ]:
        directory = tmp_path / name
        shutil.copytree(BUILT_IN[name], directory)
        found = base_blueprint(BaseSettings(model=str(directory)))
        assert (found.architecture, found.kohya_version) == expected
        assert found.shapes == family(name).shapes
    assert base_blueprint(BaseSettings(model=str(tiny_base))).architecture is None
    assert base_blueprint(BaseSettings(model="tabletop")).kohya_version is None
    assert base_blueprint(BaseSettings(model="sdxl")).architecture == "stable-diffusion-xl-v1-base"


def test_models_that_a_file_may_belong_to(tiny_base):
    assert [one.name for one in candidates(None, {})] == [
        "Stable Diffusion 1",
        "Stable Diffusion 2",
        "Stable Diffusion XL",
    ]
    assert [one.name for one in candidates(None, {"inlay.base": "tabletop"})] == ["tabletop"]
    assert [one.name for one in candidates(None, {"inlay.base": str(tiny_base)})] == [str(tiny_base)]
    assert len(candidates(None, {"inlay.base": "/gone"})) == 3
    with pytest.raises(ConfigError, match=r"--base tabeltop: no such directory or file; allowed: tabletop, sd-v1.4"):
        candidates("tabeltop", {})


def test_a_file_of_a_published_family_is_recognised_by_its_layers(tmp_path):
    first = family("sd-v1.4")
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    clear = {f"{block}.attn2.to_k": low_rank(first.shapes[f"{block}.attn2.to_k"])}
    path = FORMATS["diffusers"].write(tmp_path / "one.safetensors", Updates(clear), [first])
    opened = open_file(path)
    assert [one.name for one in opened.blueprints] == ["Stable Diffusion 1"]
    header = read_tensors(export(opened, "kohya", tmp_path / "kohya.safetensors"))[1]
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    # Queries are the same in 1 and 2: no architecture is claimed, but the names are clear.
    either = {f"{block}.attn2.to_q": low_rank(first.shapes[f"{block}.attn2.to_q"])}
    path = FORMATS["diffusers"].write(tmp_path / "two.safetensors", Updates(either), [first])
    opened = open_file(path)
    assert len(opened.blueprints) == 2
    header = read_tensors(export(opened, "kohya", tmp_path / "two-kohya.safetensors"))[1]
    assert "modelspec.architecture" not in header


def test_results_that_no_other_program_has_are_told_apart(tmp_path):
    tensors = {f"unet.mid_block.{name}": torch.zeros(2, 3) for name in ("key", "value")}
    path = write_tensors(tmp_path / "prefix.safetensors", tensors, {"inlay.method": '{"name": "prefix"}'})
    with pytest.raises(ArtifactError, match=r"a method that no other program has .*prefix.*`inlay sample --adapter`"):
        open_file(path)
