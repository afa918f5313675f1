import sys

import fit_codebook
import pytest
from test_codec_training_codebook_job import ENCODER, write_corpus


@pytest.mark.parametrize("layers", [["1"], ["1", "3"]])
def test_the_script_writes_codecs_and_says_what_came_out(tmp_path, monkeypatch, capsys, layers):
    source = write_corpus(tmp_path)
    arguments = ["--encoder", ENCODER, "--layers", *layers, "--num_units", "8", "--source", source.source]
    arguments += ["--layout", "manifest", "--speaker_column", "who", "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["fit_codebook.py", *arguments, "--num_workers", "0"])
    fit_codebook.main()
    lines = capsys.readouterr().out.splitlines()
    for layer, line in zip(layers, lines[-1 - len(layers) : -1], strict=True):
        folder = tmp_path / "out" if len(layers) == 1 else tmp_path / "out" / f"layer-{layer}-units-8"
        assert line.startswith(f"Layer {layer}, 8 units: ") and line.endswith(f"'{folder}'")
        assert (folder / "model.safetensors").is_file() and (folder / "README.md").is_file()
