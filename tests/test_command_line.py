import inspect
import io
import os
import sys
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import TrainingArguments

from slam_hf import command_line
from slam_hf.command_line import parse_arguments, run
from slam_hf.option_parser import with_help


@dataclass
class Arguments:
    name: str = field(default="a", metadata={"help": "A name."})
    cache_dir: str = field(default=str(Path.home() / "units"), metadata={"help": "A folder."})
    size: int | None = field(default=None, metadata={"help": "A size, in 100 %% of cases."})


DOC = """Do something.

```
python do.py --name b
```
"""


@dataclass
class MoreArguments:
    _argument_group_name = "more"

    folder: str = field(metadata={"help": "A folder."})
    way: Literal["near", "far"] = field(default="near", metadata={"help": "A way."})
    dry_run: bool = field(default=False, metadata={"help": "Show it."})
    parts: list[str] = field(default_factory=lambda: [str(Path.home())], metadata={"help": "Parts."})


def test_arguments_are_parsed():
    assert parse_arguments(DOC, [Arguments], args=["--name", "b"]) == (Arguments(name="b"),)


def test_a_recipe_gives_values_that_the_command_line_overrides(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: c\nsize: 3\nmax_steps: 7\n")
    command = ["--config", str(tmp_path / "recipe.yaml"), "--size", "4", "--output_dir", str(tmp_path)]
    args, training_args = parse_arguments(DOC, [Arguments], [TrainingArguments], command)
    assert args == Arguments(name="c", size=4)
    assert training_args.max_steps == 7


@pytest.mark.parametrize("is_installed", [False, True])
def test_runs_report_to_trackio_where_it_is_installed(tmp_path, monkeypatch, is_installed):
    monkeypatch.setattr(command_line, "is_trackio_available", lambda: is_installed)
    recipe = tmp_path / "recipe.yaml"

    def report_to(*args: str) -> list[str]:
        (arguments,) = parse_arguments("A script.", (), (TrainingArguments,), ["--config", str(recipe), *args])
        assert (arguments.project, arguments.trackio_static_space_id) == ("slam-hf", False)
        return arguments.report_to

    recipe.write_text("seed: 1")
    assert report_to() == (["trackio"] if is_installed else [])
    assert report_to("--report_to", "none") == []
    assert report_to("--report_to", "trackio") == ["trackio"]
    recipe.write_text("report_to: [tensorboard, wandb]")
    assert report_to() == ["tensorboard", "wandb"]


@pytest.mark.parametrize("libraries", [[], [TrainingArguments]])
def test_help_shows_the_docstring_and_the_scripts_own_arguments(libraries, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(DOC, [Arguments], libraries, ["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Do something.\n\npython do.py --name b\n")
    assert "--name NAME" in shown and "A name. (default: a)" in shown
    assert "(default: ~/units)" in shown and str(Path.home()) not in shown
    assert "in 100 % of cases.\n" in shown
    assert (
        ("--config CONFIG" in shown) == ("transformers.TrainingArguments are accepted too" in shown) == bool(libraries)
    )
    assert "--learning_rate" not in shown and "SUPPRESS" not in shown


def test_all_arguments_are_listed_on_demand(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(DOC, [Arguments], [TrainingArguments], ["--help_all"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("--name NAME", "--config CONFIG", "--learning_rate LEARNING_RATE"))


@with_help
@dataclass
class Described:
    r"""
    Args:
        size (`int`, *optional*, defaults to 3):
            Size of [`~corpora.Thing`] or [`Other`], `2` or more:
            at most 98 %.
        other (`str`, *optional*):
            Another.
    """

    size: int = 3
    other: str | None = None


def test_help_has_the_descriptions_of_the_docstring(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(DOC, [Described], args=["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "--size SIZE Size of Thing or Other, 2 or more: at most 98 %. (default: 3) --other OTHER Another." in printed
    )


def test_descriptions_are_read_as_any_python_keeps_a_docstring():
    for doc in (Described.__doc__, f"\n{inspect.cleandoc(Described.__doc__)}\n"):  # as Python 3.13 keeps it
        described = make_dataclass("Described", [("other", str)])
        described.__doc__ = doc
        assert fields(with_help(described))[0].metadata == {"help": "Another."}
    described = make_dataclass("Described", [("other", str)])
    described.__doc__ = None  # with `python -OO`
    assert not fields(with_help(described))[0].metadata


def test_help_shows_groups_choices_flags_and_what_is_required(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(DOC, [Arguments, MoreArguments], args=["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("Do something.\n\npython do.py --name b\n\noptions:\n")
    lines = [" ".join(line.split()) for line in shown.partition("\nmore:\n")[2].splitlines()]
    assert lines == [
        "--folder FOLDER A folder. (required)",
        "--way {near,far} A way. (default: near)",
        "--dry_run Show it.",
        "--parts PARTS [PARTS ...]",
        "Parts.",
    ]


def test_a_recipe_is_given_with_an_equals_sign_too(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: c\n")
    command = [f"--config={tmp_path / 'recipe.yaml'}", "--output_dir", str(tmp_path)]
    assert parse_arguments(DOC, [Arguments], [TrainingArguments], command)[0] == Arguments(name="c")


@pytest.mark.parametrize("content", [b"name: [", b"\xff\xfe\xe8"])
def test_a_recipe_that_is_not_yaml_is_named(content, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"^The recipe '.*recipe.yaml' is not YAML: .*$"):
        parse_arguments(DOC, [Arguments], [TrainingArguments], ["--config", str(tmp_path / "recipe.yaml")])


def test_a_recipe_without_a_name_is_missing(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(DOC, [Arguments], [TrainingArguments], ["--config"])
    assert "argument --config: expected one argument" in capsys.readouterr().err


def test_output_that_nobody_reads_is_no_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as stopped:
            run(lambda: print("x"))
        output.flush()  # as the interpreter does at its end
    assert stopped.value.code == 1


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


def test_an_object_store_without_credentials_ends_with_one_line():
    exceptions = pytest.importorskip("botocore.exceptions")

    assert stop(exceptions.NoCredentialsError()) == "Error: Unable to locate credentials"


GLOO = "[/pytorch/gloo/transport/tcp/pair.cc:545] "


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError(f"{GLOO}Read error [10.0.0.2]:39082: Connection reset by peer. Check the logs."), True),
        (RuntimeError(f"{GLOO}Timed out waiting 15000ms for recv operation to complete"), True),
        (torch.distributed.DistNetworkError("The client socket has timed out."), True),
        (RuntimeError(f"{GLOO}op.preamble.length <= op.nbytes. 16 vs 8"), False),
        (RuntimeError("The size of tensor a must match the size of tensor b"), False),
    ],
)
def test_a_lost_process_of_the_job_is_an_error_in_a_sentence(error, is_lost, monkeypatch):
    def fail():
        raise error

    with pytest.raises(RuntimeError):
        run(fail, hint="Start it again.")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(SystemExit if is_lost else RuntimeError) as stopped:
        run(fail, hint="Start it again.")
    message = (
        f"Error: another process of this job has ended, or its machine does not answer ({error}). Start it again."
    )
    assert not is_lost or str(stopped.value) == message


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
