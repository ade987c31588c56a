import enum
import json
import os
import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BeforeValidator, Field, model_validator

from inlay.errors import ConfigError
from inlay.run.config import PretrainConfig, RunConfig
from inlay.run.explain import nearest
from inlay.run.load import SHORTHANDS, apply_overrides, config_hash, read_run_file, to_yaml, validate
from inlay.settings import Settings


class Lora(Settings):
    name: Literal["lora"] = "lora"
    rank: int = Field(default=4, gt=0)
    targets: tuple[str, ...] = ("to_q", "to_v")


class Full(Settings):
    name: Literal["full"] = "full"
    parts: tuple[Literal["unet", "text_encoder"], ...] = ("unet",)


AnyMethod = Annotated[Lora | Full, Field(discriminator="name")]


class Fill(enum.Enum):
    white = "white"
    black = "black"


class Data(Settings):
    source: str
    fill: Fill = Fill.white
    size: tuple[int, int] = (64, 64)


class Train(Settings):
    rate: float | Literal["auto"] = 1e-4
    steps: int | None = None
    seconds: float | None = None
    mixed: bool = False
    weights: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_budget(self) -> "Train":
        if self.steps and self.seconds:
            raise ValueError("give steps or seconds, not both")
        return self


def _one_or_several(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


class Places(Settings):
    targets: str | tuple[str, ...] = "attention"
    scale: Annotated[float, Field(gt=0)] | None = None
    side: Literal["auto"] | Literal["left", "right"] = "auto"


class Config(Settings):
    data: Data
    places: Places = Places()
    method: AnyMethod = Lora()
    stack: Annotated[tuple[AnyMethod, ...], BeforeValidator(_one_or_several)] = ()
    train: Train = Train()


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode(encoding))
    return path


def mistakes(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(Config, {"data": {"source": "dog"}, **data}, source="run.yaml")
    return str(caught.value)


# reading


def test_reads_a_mapping(tmp_path):
    path = write(tmp_path, "data:\n  source: a/b\n  caption: 'größe'\nmethod: {name: lora, rank: 8}\n")
    assert read_run_file(path) == {
        "data": {"source": "a/b", "caption": "größe"},
        "method": {"name": "lora", "rank": 8},
    }


def test_a_syntax_error_names_file_line_and_column(tmp_path):
    path = write(tmp_path, "data:\n  source: x\n  a: b: c\n")
    with pytest.raises(ConfigError, match=r"run\.yaml:3:7: mapping values are not allowed here"):
        read_run_file(path)


def test_a_tab_is_explained(tmp_path):
    with pytest.raises(ConfigError, match=r"run\.yaml:2:1: .*spaces, never tabs"):
        read_run_file(write(tmp_path, "data:\n\tsource: x\n"))


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path):
    path = write(tmp_path, "data:\n  source: x\nmethod:\n  name: lora\n  rank: 4\n  name: full\n")
    with pytest.raises(ConfigError, match=r"run\.yaml:6:3: the key 'name' already stands in line 4"):
        read_run_file(path)


@pytest.mark.parametrize("key", ["7", "on", "~", "[a, b]"])
def test_a_key_that_is_not_text_is_refused(tmp_path, key):
    with pytest.raises(ConfigError, match=r"run\.yaml:2:3: a key must be text"):
        read_run_file(write(tmp_path, f"data:\n  {key}: 1\n"))


def test_a_merge_key_may_be_overridden(tmp_path):
    path = write(tmp_path, "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert read_run_file(path)["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("text", "found"), [("", "nothing"), ("# only a comment\n", "nothing"), ("- a\n", "a list"), ("lora", "a str")]
)
def test_only_a_mapping_is_a_run_file(tmp_path, text, found):
    with pytest.raises(ConfigError, match=rf"run\.yaml: a run file is a mapping .* holds {found}"):
        read_run_file(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such run file"):
        read_run_file(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="directory"):
        read_run_file(tmp_path)
    with pytest.raises(ConfigError, match="UTF-8"):
        read_run_file(write(tmp_path, "data: größe", encoding="latin-1"))
    with pytest.raises(ConfigError, match=r"run\.yaml:.*special characters are not allowed"):
        read_run_file(write(tmp_path, "data: \x00"))


def test_nothing_in_a_run_file_is_executed(tmp_path):
    with pytest.raises(ConfigError, match=r"run\.yaml:1:7: could not determine a constructor"):
        read_run_file(write(tmp_path, "data: !!python/object/apply:os.getcwd []\n"))


# overrides


def test_overrides_set_values_in_order_and_leave_the_original_alone():
    data = {"method": {"rank": 4}, "stack": [{"rank": 1}, {"rank": 2}], "train": None}
    result = apply_overrides(
        data,
        [
            "method.rank=8",
            "stack.1.rank=16",
            "train.rate=auto",
            "preview.prompts=[a dog, a cat]",
            "data.query=a=b",
            "method.rank=32",
            "data.caption=",
        ],
    )
    assert result == {
        "method": {"rank": 32},
        "stack": [{"rank": 1}, {"rank": 16}],
        "train": {"rate": "auto"},
        "preview": {"prompts": ["a dog", "a cat"]},
        "data": {"query": "a=b", "caption": None},
    }
    assert data == {"method": {"rank": 4}, "stack": [{"rank": 1}, {"rank": 2}], "train": None}


def test_an_override_writes_out_a_section_given_by_one_setting():
    data = {"base": "tabletop", "data": "photos", "method": "lora"}
    assert apply_overrides(data, ["method.rank=8", "data.prompt=a dog", "base=other"]) == {
        "base": "other",
        "data": {"source": "photos", "prompt": "a dog"},
        "method": {"name": "lora", "rank": 8},
    }


def test_every_shorthand_is_one_that_run_files_know():
    tuning = {"base": "tabletop", "data": "photos", "method": "lora", "train": {"steps": 1}}
    vit = {"name": "vit", "sample_size": 8, "size": "S"}
    scratch = {"data": "photos", "conditioning": "class", "path": "flow", "denoiser": vit, "train": {"steps": 1}}
    known = set()
    for kind, data in ((RunConfig, tuning), (PretrainConfig, scratch)):
        short = validate(kind, data)
        long = {section: {key: data[section]} for section, key in SHORTHANDS.items() if section in data}
        assert validate(kind, {**data, **long}) == short
        known |= set(long)
    assert known == set(SHORTHANDS)


@pytest.mark.parametrize("override", ["method.rank", "=8", "method.=8", ".rank=8", "method. rank=8", ""])
def test_a_malformed_override_says_what_one_looks_like(override):
    with pytest.raises(ConfigError, match=r"must look like key=value, for example method\.rank=8"):
        apply_overrides({}, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.rank=[1", "value is not YAML"),
        ("stack.1.rank=2", "stack is a list of 1 entries, numbered from 0; it has no entry '1'"),
        ("stack.last.rank=2", "it has no entry 'last'"),
        ("stack.-1=2", "it has no entry '-1'"),
        ("seed.value=2", "seed is 5, which has no keys"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(override, message):
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"stack": [{"rank": 1}], "seed": 5}, [override])
    assert message in str(caught.value)
    assert repr(override) in str(caught.value)


# validation


def test_valid_data_becomes_an_instance_and_yaml_floats_are_numbers(tmp_path):
    path = write(tmp_path, "data: {source: dog}\ntrain: {rate: 1e-4}\nstack: {name: full}\n")
    config = validate(Config, apply_overrides(read_run_file(path), ["train.seconds=5e1"]))
    assert config == Config(data=Data(source="dog"), train=Train(rate=1e-4, seconds=50.0), stack=(Full(),))


def test_every_mistake_is_reported_at_once():
    message = mistakes(
        {
            "data": {"sourec": "dog", "size": [64]},
            "method": {"name": "lora", "rank": 0, "target": 1},
            "train": {"steps": "many", "mixed": 7},
            "trian": {},
        }
    )
    assert message.splitlines() == [
        "run.yaml: 8 mistakes",
        "  data.source: must be set",
        "  data.size.1: must be set",
        "  data.sourec: no such key; did you mean 'source'?",
        "  method.rank: 0 is wrong; must be greater than 0",
        "  method.target: no such key; did you mean 'targets'?",
        "  train.steps: 'many' is wrong; must be a whole number",
        "  train.mixed: 7 is wrong; must be true or false",
        "  trian: no such key; did you mean 'train'?",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"method": {"name": "lroa"}},
            "method.name: 'lroa' does not exist; one of 'lora', 'full' (did you mean 'lora'?)",
        ),
        ({"method": {"rank": 4}}, "method.name: must be set to one of 'lora', 'full'"),
        ({"method": {"name": "full", "xyz": 4}}, "method.xyz: no such key; method knows 'name', 'parts'"),
        ({"xyz": 4}, "xyz: no such key; the file knows 'data', 'places', 'method', 'stack', 'train'"),
        ({"method": "lora"}, "method: 'lora' is wrong; must be a section of `key: value` lines"),
        (
            {"data": {"source": "d", "fill": "Whit"}},
            "data.fill: 'Whit' is wrong; must be one of 'white', 'black' (did you mean 'white'?)",
        ),
        ({"data": {"source": 5}}, "data.source: 5 is wrong; must be a text"),
        ({"data": None}, "data: None is wrong; must be a section of `key: value` lines"),
        ({"data": {"source": "d", "size": 3}}, "data.size: 3 is wrong; must be a list"),
        (
            {"train": {"rate": "aut"}},
            "train.rate: 'aut' is wrong; must be a number or 'auto' (did you mean 'auto'?)",
        ),
        ({"train": {"seconds": "nan"}}, "train.seconds: 'nan' is wrong; must be a finite number"),
        ({"train": {"steps": 1, "seconds": 1}}, "train: give steps or seconds, not both"),
        ({"train": {"weights": {"a": "b"}}}, "train.weights.a: 'b' is wrong; must be a number"),
        ({"stack": {"name": "lora", "rnk": 1}}, "stack.rnk: no such key; did you mean 'rank'?"),
        (
            {"stack": [{"name": "full"}, {"name": "lora", "rank": "x"}]},
            "stack.1.rank: 'x' is wrong; must be a whole number",
        ),
        (
            {"stack": [{"name": "full", "parts": ["unit"]}]},
            "stack.0.parts.0: 'unit' is wrong; must be one of 'unet', 'text_encoder' (did you mean 'unet'?)",
        ),
        (
            {"stack": [{"name": "ful"}]},
            "stack.0.name: 'ful' does not exist; one of 'lora', 'full' (did you mean 'full'?)",
        ),
        ({"places": {"targets": 5}}, "places.targets: 5 is wrong; must be a text or a list"),
        ({"places": {"targets": ["a", 5]}}, "places.targets.1: 5 is wrong; must be a text"),
        ({"places": {"scale": -1.0}}, "places.scale: -1.0 is wrong; must be greater than 0"),
        (
            {"places": {"side": "rigth"}},
            "places.side: 'rigth' is wrong; must be one of 'auto', 'left', 'right' (did you mean 'right'?)",
        ),
        # a key named like the tag of its own union is a key all the same
        ({"method": {"name": "lora", "lora": 3}}, "method.lora: no such key; method knows 'name', 'rank', 'targets'"),
    ],
)
def test_a_mistake_in_words(data, message):
    assert mistakes(data) == f"run.yaml: {message}"


def test_a_plain_union_of_sections():
    class Either(Settings):
        one: Lora | Full

    with pytest.raises(ConfigError) as caught:
        validate(Either, {"one": {"name": "lora", "rank": -1}})
    assert "one.rank: -1 is wrong; must be greater than 0" in str(caught.value)


def test_long_values_are_shortened():
    assert len(mistakes({"train": {"steps": "x" * 1000}})) < 200


# identity


def test_the_hash_depends_on_every_value_and_on_nothing_else():
    config = Config(data=Data(source="dog"))
    assert config_hash(config) == config_hash(Config(data=Data(source="dog"), train=Train(rate=1e-4)))
    assert config_hash(config) != config_hash(Config(data=Data(source="cat")))
    assert config_hash(config) != config_hash(Config(data=Data(source="dog"), method=Lora(targets=("to_v", "to_q"))))
    assert len(config_hash(config)) == 64


def test_a_setting_that_a_later_version_adds_changes_the_hash_only_when_it_is_switched_on():
    class LaterLora(Lora):
        dropout: float = 0.0
        blocks: tuple[str, ...] = ()

    class LaterConfig(Config):
        method: LaterLora = LaterLora()
        stack: tuple[LaterLora, ...] = ()
        masked: bool = False

    class Defaults(Settings):
        bias: bool = True
        limit: float | None = 1.0

    before = config_hash(Config(data=Data(source="dog"), method=Lora(rank=8)))
    later = {"data": Data(source="dog"), "method": LaterLora(rank=8)}
    assert config_hash(LaterConfig(**later)) == before
    changed = [
        LaterConfig(**{**later, "method": LaterLora(rank=8, dropout=0.1)}),
        LaterConfig(**{**later, "masked": True}),
        LaterConfig(**{**later, "stack": (LaterLora(),)}),
        LaterConfig(**{**later, "stack": (LaterLora(blocks=("mid",)),)}),
    ]
    assert len({before, *map(config_hash, changed)}) == 5
    # Off is a value of its own where it is not the default.
    states = [Defaults(), Defaults(bias=False), Defaults(limit=None), Defaults(limit=0)]
    assert len(set(map(config_hash, states))) == 4


def test_the_hash_is_the_same_in_another_process():
    code = (
        "from inlay.run.load import config_hash; from tests.run.test_load import Config, Data;"
        "print(config_hash(Config(data=Data(source='dög'))))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.getcwd()},
    )
    assert other.stdout.strip() == config_hash(Config(data=Data(source="dög")))


@example(rate=1e-5, source="a\x85b\u2028c\u2029d", targets=["1e-4", "null", "größe"], weights={"on": -0.0})
@given(
    rate=st.floats(allow_nan=False, allow_infinity=False),
    source=st.text(st.characters(codec="utf-8")),
    targets=st.lists(st.text(st.characters(codec="utf-8"))),
    weights=st.dictionaries(st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_a_resolved_run_file_reads_back_as_the_same_configuration(rate, source, targets, weights):
    config = Config(
        data=Data(source=source), method=Lora(targets=tuple(targets)), train=Train(rate=rate, weights=weights)
    )
    again = validate(Config, yaml.safe_load(to_yaml(config)))
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_a_resolved_run_file_keeps_the_declared_order_and_shows_defaults():
    text = to_yaml(Config(data=Data(source="dog")))
    assert list(yaml.safe_load(text)) == ["data", "places", "method", "stack", "train"]
    assert json.loads(json.dumps(yaml.safe_load(text)))["data"] == {"source": "dog", "fill": "white", "size": [64, 64]}


def test_a_slip_of_the_fingers_is_nearer_than_a_word_that_shares_as_many_letters():
    assert nearest("lroa", ["full", "lora", "road"]) == "did you mean 'lora'?"
    assert nearest("raod", ["full", "lora", "road"]) == "did you mean 'road'?"
    assert nearest("roads", ["full", "lora", "road"]) == "did you mean 'road'?"
    assert nearest("xyz", ["full", "lora", "road"]) == ""
