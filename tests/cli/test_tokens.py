import json

from inlay.cli.main import main


def test_the_embedded_base_has_rare_words(capsys):
    assert main(["tokens", "--json", "-n", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 5
    assert {one["word"] for one in found if one["verdict"] == "good"} == {"sks", "zwx"}
    assert all(one["lateness"] > 0.75 and one["norm"] > 0 and len(one["near"]) == 3 for one in found)
    assert main(["tokens", "-n", "5"]) == 0
    shown = capsys.readouterr().out
    assert all(one["word"] in shown for one in found)
    assert "All of them: one token; stays one between other words; reads back" in " ".join(shown.split())
    assert "data: {prompt: a photo of zwx dog}" in shown


def test_identifiers_are_explained(capsys):
    assert main(["tokens", "--check", "sks", "--check", "dog", "-c", "xxy5syt00"]) == 0
    shown = capsys.readouterr().out
    assert "sks: good\n" in shown
    assert "dog: bad\n" in shown
    assert "early, so common" in shown
    assert "cuts it into 9 tokens: x x y 5 s y t 0 0." in shown
    assert shown.count("method textual_inversion") == 1
    assert main(["tokens", "-c", "dog", "--json"]) == 0
    [judged] = json.loads(capsys.readouterr().out)
    assert judged["verdict"] == "bad"
    assert {"verdict": "good", "text": "one token"} in judged["reasons"]


def test_a_tokenizer_from_elsewhere_does_for_a_base_without_one(tiny_base, capsys):
    assert main(["tokens", "sd-v1.4"]) == 2
    assert "sd-v1.4 has none on this disk; give --tokenizer" in capsys.readouterr().err
    assert main(["tokens", "sd-v1.4", "--tokenizer", "/nowhere"]) == 2
    assert "no directory /nowhere" in capsys.readouterr().err
    assert main(["tokens", "sd-v1.4", "--tokenizer", str(tiny_base / "tokenizer"), "-c", "sks", "--json"]) == 0
    [judged] = json.loads(capsys.readouterr().out)
    assert judged["token"] is not None
    assert judged["norm"] is None


def test_wrong_input_is_one_message(capsys):
    assert main(["tokens", "tabletopp"]) == 2
    assert "did you mean 'tabletop'?" in capsys.readouterr().err
    assert main(["tokens", "--check", " "]) == 2
    assert "--check: give a word" in capsys.readouterr().err
