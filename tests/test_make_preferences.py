import json
import sys

import make_preferences
import pytest
import soundfile
from tiny_judges import save_recogniser, save_text_lm


@pytest.fixture
def arguments(checkpoint, recordings):
    """The command line of a small job."""
    (checkpoint / "recordings").mkdir()
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    for number in range(3):
        soundfile.write(checkpoint / "recordings" / f"{number}.flac", waveform[number * rate :][: 2 * rate], rate)
    save_recogniser(checkpoint / "recogniser")
    save_text_lm(checkpoint / "text_lm")
    options = {
        "model": "model",
        "codec": "codec",
        "source": "recordings",
        "asr_model": "recogniser",
        "judge_model": "text_lm",
        "output_dir": "pairs",
    }
    arguments = [text for name, path in options.items() for text in (f"--{name}", str(checkpoint / path))]
    return [*arguments, "--num_samples", "3", "--max_new_tokens", "12", "--max_auto_bleu", "1"]


def run(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["make_preferences.py", *arguments])
    make_preferences.main()


def test_pairs_are_made_and_what_came_out_is_printed(arguments, checkpoint, monkeypatch, capsys):
    run(monkeypatch, [*arguments, "--prompt_seconds", "1", "--num_prompts", "2", "--seed", "3"])
    printed = capsys.readouterr().out
    assert f"2 pairs in '{checkpoint}/pairs'." in printed
    assert "6 continuations: judged." in printed and "Of the scores, 10 % are below -" in printed
    assert f"align_dpo.py --dataset_name {checkpoint}/pairs --model_name_or_path {checkpoint}/model" in printed
    made = json.loads((checkpoint / "pairs" / ".preferences" / "train" / "summary.json").read_text())["made"]
    assert (made["seed"], made["num_samples"], made["prompt_seconds"]) == (3, 3, 1.0)
    assert made["generation"]["max_new_tokens"] == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_samples", "1"], "A pair is of two continuations: `num_samples` is 1"),
        (["--batch_size", "0"], "`batch_size` must be positive, got 0"),
        (["--num_prompts", "0"], "`num_prompts` must be positive, got 0"),
        (["--prompt_seconds", "-1"], "`prompt_seconds` must be positive, got -1"),
        (["--judge_url", "http://localhost:1/v1", "--judge", "perplexity"], "`judge_url` needs `judge rating`"),
        (["--layout", "preference_pairs"], "preference_pairs"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, monkeypatch, options, message, capsys):
    with pytest.raises((ValueError, SystemExit)) as error:
        run(monkeypatch, [*arguments, *options])
    assert message in f"{error.value}{capsys.readouterr().err}"
