import io
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from transformers import TrainingArguments

from slam_hf.command_line import parse_arguments, run


@dataclass
class Arguments:
    name: str = field(default="a", metadata={"help": "A name."})
    cache_dir: str = field(default=str(Path.home() / "units"), metadata={"help": "A folder."})
    size: int | None = field(default=None, metadata={"help": "A size, in 100 %% of cases."})


DOC = """Do something.

python do.py --name b
"""


def test_arguments_are_parsed():
    assert parse_arguments(DOC, [Arguments], args=["--name", "b"]) == (Arguments(name="b"),)


def test_a_recipe_gives_values_that_the_command_line_overrides(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: c\nsize: 3\nmax_steps: 7\n")
    command = ["--config", str(tmp_path / "recipe.yaml"), "--size", "4", "--output_dir", str(tmp_path)]
    args, training_args = parse_arguments(DOC, [Arguments], [TrainingArguments], command)
    assert args == Arguments(name="c", size=4)
    assert training_args.max_steps == 7


@pytest.mark.parametrize("libraries", [[], [TrainingArguments]])
def test_help_shows_the_docstring_and_the_scripts_own_arguments(libraries, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(DOC, [Arguments], libraries, ["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "Do something.\n\npython do.py --name b\n" in shown
    assert "--name NAME" in shown and "A name. (default: a)" in shown
    assert "(default: ~/units)" in shown and str(Path.home()) not in shown
    assert "in 100 % of cases.\n" in shown
    assert (
        ("--config CONFIG" in shown) == ("transformers.TrainingArguments are accepted too" in shown) == bool(libraries)
    )
    assert "--learning_rate" not in shown


def test_all_arguments_are_listed_on_demand(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(DOC, [Arguments], [TrainingArguments], ["--help_all"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("--name NAME", "--config CONFIG", "--learning_rate LEARNING_RATE"))


def stop(error: BaseException, hint: str = "") -> str:
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(main, hint)
    return stopped.value.code


def test_a_users_mistake_ends_with_one_line():
    assert stop(ValueError("the size is wrong")) == "Error: the size is wrong"
    assert stop(FileNotFoundError("'x' is missing")) == "Error: 'x' is missing"
    assert stop(KeyboardInterrupt(), "Start it again.") == "Interrupted. Start it again."


def test_mistakes_of_ours_keep_their_traceback(monkeypatch):
    with pytest.raises(KeyError):
        run(lambda: {}["x"])
    monkeypatch.setenv("SLAM_HF_TRACEBACK", "1")
    with pytest.raises(ValueError, match="wrong"):
        run(lambda: int("wrong"))


def test_a_console_that_lacks_a_character_gets_another(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="cp1252"))
    run(lambda: print("sBLIMP ↑", flush=True))
    assert shown.getvalue().split() == [b"sBLIMP", b"?"]
