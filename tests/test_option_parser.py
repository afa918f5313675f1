import importlib
import re
import sys
from dataclasses import dataclass
from typing import Literal

import pytest
from transformers import TrainingArguments

from slam_hf.command_line import parse_arguments
from slam_hf.option_parser import OptionParser


DOC = """Do something.

```
python do.py --name b
```
"""


@dataclass
class Arguments:
    name: str = "a"


@dataclass
class RequiredArguments:
    folder: str
    way: Literal["near", "far"] = "near"


def test_positional_arguments_are_in_the_same_help(capsys):
    parser = OptionParser(doc=DOC)
    parser.add_argument("folder", help="A folder.")
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert capsys.readouterr().err.splitlines() == [
        f"{parser.prog}: error: the following arguments are required: folder"
    ]
    assert parser.format_help().startswith("Do something.\n\npython do.py --name b\n\npositional arguments:\n  folder")


@pytest.mark.parametrize("libraries", [[], [TrainingArguments]])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--nmae", "b"], "There is no option --nmae. Did you mean --name?"),
        (["--nam=b"], "There is no option --nam. Did you mean --name?"),
        (["--wholly_unlike", "b"], "There is no option --wholly_unlike. See --help."),
        (["--name", "b", "c"], "'c' does not belong to an option."),
    ],
)
def test_an_unknown_option_is_named(args, message, libraries):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_arguments(DOC, [Arguments], libraries, args)


@pytest.mark.parametrize("libraries", [[], [TrainingArguments]])
def test_a_mistyped_option_is_unknown_and_not_missing(libraries, capsys):
    message = r"^There is no option --foldr\. Did you mean --folder\?$"
    with pytest.raises(ValueError, match=message):
        parse_arguments(DOC, [RequiredArguments], libraries, ["--foldr", "b"])
    parser = OptionParser(doc=DOC)
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("-f", "--folder", required=True)
    with pytest.raises(ValueError, match=message):
        parser.parse_args(["a.wav", "--foldr", "b"])
    with pytest.raises(SystemExit):
        parser.parse_args(["--", "--a.wav"])
    assert capsys.readouterr().err.endswith("error: the following arguments are required: -f/--folder\n")
    with pytest.raises(SystemExit):  # what is missing is said after it
        parse_arguments(DOC, [RequiredArguments], libraries, ["--way", "far"])
    assert capsys.readouterr().err.endswith("error: the following arguments are required: --folder\n")


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """What `accelerate launch` is called with. The script is `train.py`."""
    calls = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", calls.append)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "train.py"), raising=False)
    return calls


@pytest.mark.parametrize(
    ("launch_options", "expected"),
    [
        (["--num_processes", "2"], {"num_processes": 2, "multi_gpu": True}),
        (["--num_processes=1"], {"num_processes": 1, "multi_gpu": False}),
        (["--use_fsdp", "--num-processes", "4"], {"num_processes": 4, "multi_gpu": False, "use_fsdp": True}),
        (["--config_file", "ddp.yaml", "--num_processes", "2"], {"config_file": "ddp.yaml", "multi_gpu": False}),
    ],
)
@pytest.mark.parametrize("is_last", [True, False])
def test_options_of_accelerate_launch_the_script(launched, launch_options, expected, is_last, tmp_path):
    own = ["--name", "2", "--max_steps", "7", "--output_dir", str(tmp_path)]
    args = [*own, *launch_options] if is_last else [*launch_options, *own]
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(DOC, [Arguments], [TrainingArguments], args)
    assert stopped.value.code is None
    (options,) = launched
    assert (options.training_script, options.training_script_args) == (str(tmp_path / "train.py"), own)
    assert {name: getattr(options, name) for name in expected} == expected


def test_a_script_for_one_process_is_not_launched(launched):
    with pytest.raises(ValueError, match="There is no option --num_processes"):
        parse_arguments(DOC, [Arguments], args=["--num_processes", "2"])
    with pytest.raises(SystemExit):
        parse_arguments(DOC, [Arguments], args=["--num_processes", "2"], launches=True)
    assert len(launched) == 1


def test_a_mistyped_option_is_not_launched(launched):
    args = ["--num_processes", "2", "--nmae", "b"]
    with pytest.raises(ValueError, match="There is no option --nmae. Did you mean --name"):
        parse_arguments(DOC, [Arguments], [TrainingArguments], args)
    assert not launched


def test_a_script_that_lacks_an_option_is_not_launched(launched, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(DOC, [RequiredArguments], [TrainingArguments], ["--num_processes", "2"])
    assert stopped.value.code == 2 and not launched
    assert "required: --folder" in capsys.readouterr().err


def test_a_recipe_may_have_what_the_launched_script_requires(launched, tmp_path):
    (tmp_path / "recipe.yaml").write_text("folder: b\n")
    own = ["--config", str(tmp_path / "recipe.yaml"), "--way", "far"]
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(DOC, [RequiredArguments], args=[*own, "--num_processes", "2"], recipes=True)
    assert stopped.value.code is None and launched[0].training_script_args == own


@pytest.mark.parametrize(
    "name", ["compare_units", "continue_speech", "model_card", "reproduce_findings", "results_table", "speed"]
)
def test_scripts_with_options_of_their_own_name_an_unknown_one(name, monkeypatch):
    script = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--unheard_of", "1"])
    with pytest.raises(ValueError, match="^There is no option --unheard_of"):
        script.main()
