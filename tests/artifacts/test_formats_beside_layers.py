"""The table's entries for hypernetworks, embeddings and BitFit: each file is of one format, and goes to others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inlay.artifacts.embeddings import Embeddings
from inlay.artifacts.formats import FORMATS, recognise
from inlay.artifacts.unpickle import read_pickle
from inlay.files import read_tensors, write_tensors
from inlay.methods import BitFit, Hypernetwork, Method
from inlay.methods.textual_inversion import TextualInversion
from inlay.run.exchange import export, native_format, open_file
from tests.artifacts.specimens import tiny_blueprint
from tests.contracts.bases import perturb, tiny

TINY = tiny_blueprint()
VECTORS = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))


def own_file(path: Path, method: Method) -> Path:
    attachment = method.attach(tiny())
    perturb(attachment)
    header = {**attachment.metadata(), "inlay.method": method.model_dump_json(), "inlay.steps": "4"}
    return write_tensors(path, attachment.state(), header)


def specimen(folder: Path, name: str) -> Path:
    """Write a file of a format in the way that its own program does, or through inlay's own file."""
    if name == "inlay-bitfit":
        return own_file(folder / "a.safetensors", BitFit())
    if name == "inlay-hypernetwork":
        return own_file(folder / "a.safetensors", Hypernetwork(widths=(32,)))
    if name == "inlay-embedding":
        return own_file(folder / "a.safetensors", TextualInversion(token="<pip>", vectors=2))
    if name == "a1111-hypernetwork":
        networks = FORMATS["inlay-hypernetwork"].read(specimen(folder, "inlay-hypernetwork"), [])
        return FORMATS[name].write(folder / "a.pt", networks, [])
    vectors = {"text_encoder": VECTORS}
    if name == "sdxl-embedding":
        vectors["text_encoder_2"] = torch.ones(2, 64)
    return FORMATS[name].write(folder / f"pip{FORMATS[name].suffix}", Embeddings({"<pip>": vectors}), [])


BESIDE_LAYERS = [name for name, one in FORMATS.items() if one.contents != "updates"] + ["inlay-bitfit"]


@pytest.mark.parametrize("name", BESIDE_LAYERS)
def test_every_file_is_of_one_format(tmp_path: Path, name: str):
    path = specimen(tmp_path, name)
    assert [other for other, one in FORMATS.items() if one.recognises(path)] == [name]
    assert recognise(path) == name


@pytest.mark.parametrize("name", BESIDE_LAYERS)
def test_folders_and_junk_are_of_none(tmp_path: Path, name: str):
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    for path in (tmp_path, tmp_path / "junk.pt", tmp_path / "junk.safetensors"):
        assert not FORMATS[name].recognises(path)


def test_a_hypernetwork_goes_to_a1111_and_comes_back_bit_for_bit(tmp_path: Path):
    own = specimen(tmp_path, "inlay-hypernetwork")
    there = export(open_file(own), "a1111-hypernetwork", tmp_path / "there.pt")
    assert read_pickle(there)["step"] == 4
    opened = open_file(there)
    again = export(opened, native_format(opened), tmp_path / "again.safetensors")
    (tensors, header), (others, other_header) = read_tensors(own), read_tensors(again)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert other_header["hypernetwork.layer_structure"] == header["hypernetwork.layer_structure"]
    components = tiny()
    attachment = Hypernetwork.model_validate_json(other_header["inlay.method"]).attach(components)
    attachment.load(others)


@pytest.mark.parametrize("name", ["diffusers-embedding", "a1111-embedding", "webui-embedding"])
def test_a_word_goes_to_every_program_and_comes_back_bit_for_bit(tmp_path: Path, name: str):
    own = specimen(tmp_path, "inlay-embedding")
    there = export(open_file(own), name, tmp_path / f"there{FORMATS[name].suffix}")
    opened = open_file(there)
    assert opened.format == name
    again = export(opened, native_format(opened), tmp_path / "again.safetensors")
    tensors, header = read_tensors(again)
    assert torch.equal(tensors["<pip>"], read_tensors(own)[0]["<pip>"])
    attachment = TextualInversion.model_validate_json(header["inlay.method"]).attach(tiny())
    attachment.load(tensors)
