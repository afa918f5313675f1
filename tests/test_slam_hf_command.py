"""The command `slam-hf`, which starts the scripts."""

import ast
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest
import soundfile

from hub_scripts import __main__ as command
from slam_hf.quickstart import resolve_path


CLONE = Path(__file__).parents[1]

SCRIPT = '''"""Do it. And more.

```
python hub_scripts/{name}.py --size 3
```
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    print(sys.argv[1:], Path(__file__).name, sys.path[0] == str(Path(__file__).parent))
    raise SystemExit(int(sys.argv[-1]) if sys.argv[-1].isdigit() else 0)
'''


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A folder of scripts and recipes in place of that of the package."""
    folder = tmp_path / "scripts"
    for name in ("recipes", "accelerate_configs"):
        (folder / name).mkdir(parents=True)
    (folder / "recipes/small.yaml").write_text("size: 3\n")
    (folder / "recipes/large.yaml").write_text("size: 4\n")
    (folder / "accelerate_configs/ddp.yaml").write_text("num_processes: 2\n")
    for name in ("align_dpo", "do_this", "__main__"):
        (folder / f"{name}.py").write_text(SCRIPT.format(name=name))
    monkeypatch.setattr(command, "SCRIPTS", folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def run(monkeypatch, *args):
    """The exit status of `slam-hf` with arguments."""
    monkeypatch.setattr(sys, "argv", ["slam-hf", *args])
    monkeypatch.setenv("SLAM_HF_PROG", "")
    try:
        command.main()
    except SystemExit as stopped:
        return stopped.code
    return 0


def test_every_script_is_a_command_with_a_summary():
    commands = command.list_commands()
    expected = {"align", "align-text", "continue", "convert", "evaluate", "pretrain", "push", "results-table"}
    assert expected | {"speed", "tokenize"} <= commands.keys()
    assert all(path.parent == CLONE / "hub_scripts" for path in commands.values())
    shown = " ".join(command.describe_commands(commands).split())
    assert "pretrain Train a speech language model on corpora of units" in shown
    assert "recipes for --config: finetune, finetune-lora, gslm, " in shown and " quickstart, " in shown
    for path in commands.values():  # in their help, examples are calls of the command
        assert "hub_scripts/" not in command.adapt_help(ast.get_docstring(ast.parse(path.read_text("utf-8"))))


def test_help_comes_at_once_without_heavy_imports():
    code = "import sys; from hub_scripts.__main__ import main; sys.argv = ['slam-hf', '--help']; main()"
    code += "; assert not {'slam_hf', 'torch', 'transformers', 'accelerate'} & sys.modules.keys()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run([sys.executable, "-c", code], cwd=CLONE, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("usage: slam-hf <command> [options]\n")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_without_a_command_it_lists_them(scripts, monkeypatch, capsys, args):
    assert run(monkeypatch, *args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  align               Do it." in lines and "  do-this             Do it." in lines
    assert "recipes for --config: large, small" in lines


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("algn", "there is no command 'algn': did you mean align? slam-hf --help lists them.\n"),
        ("align_dpo", "there is no command 'align_dpo': did you mean align? slam-hf --help lists them.\n"),
        ("x", "there is no command 'x': slam-hf --help lists them.\n"),
    ],
)
def test_an_unknown_command_is_a_usage_error(scripts, monkeypatch, capsys, name, message):
    assert run(monkeypatch, name) == 2
    assert capsys.readouterr().err == f"slam-hf: {message}"


def test_a_script_runs_as_python_runs_it(scripts, monkeypatch, capsys):
    assert run(monkeypatch, "do-this", "--size", "3") == 3
    assert capsys.readouterr().out == "['--size', '3'] do_this.py True\n"


@pytest.mark.parametrize("args", [["--config", "small"], ["--config=small"]])
def test_a_recipe_is_found_by_its_name(scripts, monkeypatch, capsys, args):
    run(monkeypatch, "align", *args, "--x", "-1.5")
    expected = ["--x", "-1.5", "--config", str(scripts / "recipes/small.yaml")]
    assert capsys.readouterr().out == f"{expected} align_dpo.py True\n"


def test_a_recipe_is_found_by_its_path(scripts, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("small").write_text("size: 5\n")  # a file of the user's is nearer
    run(monkeypatch, "align", "--config", "small")
    assert "'--config', 'small']" in capsys.readouterr().out


def test_an_unknown_recipe_lists_those_there_are(scripts, monkeypatch):
    message = "Error: --config takes a file or one of large, small, and not 'medium'."
    assert run(monkeypatch, "align", "--config", "medium") == message


def test_a_configuration_of_accelerate_is_found_by_its_name(scripts, monkeypatch, capsys):
    run(monkeypatch, "align", "--accelerate_config", "ddp")
    path = scripts / "accelerate_configs/ddp.yaml"
    assert capsys.readouterr().out == f"['--config_file', '{path}'] align_dpo.py True\n"


@pytest.mark.parametrize(
    ("text", "adapted"),
    [
        ("python hub_scripts/align_dpo.py --x 1", "slam-hf align --x 1"),
        ("accelerate launch --multi_gpu hub_scripts/align_dpo.py", "slam-hf align --multi_gpu"),
        (
            "accelerate launch --config_file hub_scripts/accelerate_configs/ddp.yaml \\\n"
            "    hub_scripts/align_dpo.py --config hub_scripts/recipes/small-one.yaml",
            "slam-hf align --accelerate_config ddp --config small-one",
        ),
        ("Summaries of `do_this.py`, and `hub_scripts/other.py`.", "Summaries of `slam-hf do-this`, and "),
    ],
)
def test_examples_in_a_help_are_calls_of_the_command(scripts, text, adapted):
    assert command.adapt_help(text).startswith(adapted)


def test_the_help_of_a_script_has_the_name_of_the_command(monkeypatch, capsys):
    assert run(monkeypatch, "results-table", "--help") == 0
    assert (
        "\nslam-hf results-table outputs/evaluation outputs/my-model --plot results.png\n" in capsys.readouterr().out
    )
    assert run(monkeypatch, "results-table", "--plt", "x") == "Error: There is no option --plt. Did you mean --plot?"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """
    Runs the command as whoever installed the wheel has it: in an environment that has the wheel, and from this one
    only its other packages, in an empty folder, without a network.
    """
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    shutil.copytree(CLONE, folder / "clone", ignore=shutil.ignore_patterns(".*", "tests", "build", "outputs"))
    subprocess.run([*build, folder / "clone"], check=True)
    shutil.rmtree(folder / "clone")
    venv.create(folder / "venv", with_pip=False)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    (wheel,) = folder.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", folder / "venv", "install", "-q", "--no-deps", wheel]
    subprocess.run(install, check=True)
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (folder / "empty").mkdir()
    (folder / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HOME": str(folder / "home"), "HF_HOME": str(folder / "home")}

    def run(*args, **options):
        return subprocess.run(
            [folder / "venv/bin/slam-hf", *args],
            capture_output=True,
            text=True,
            env=environment,
            cwd=folder / "empty",
            **options,
        )

    run.folder = folder / "empty"
    return run


@pytest.mark.slow
def test_the_installed_command_speaks(installed):
    shutil.copy(resolve_path("quickstart:prompt.flac"), installed.folder / "recording.flac")
    finished = installed("continue", "recording.flac", "-o", "continuation.wav", "--seed", "0")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("continuation.wav: ")
    assert soundfile.info(installed.folder / "continuation.wav").duration > 3


@pytest.mark.slow
def test_the_installed_command_trains_by_the_name_of_a_recipe(installed):
    options = ["--max_steps", "20", "--benchmarks", "{}", "--output_dir", "trained"]
    finished = installed("pretrain", "--config", "quickstart", *options)
    assert finished.returncode == 0, finished.stderr
    assert {"model.safetensors", "README.md", "continuation.wav"} <= set(os.listdir(installed.folder / "trained"))
    again = installed("pretrain", "--config", "quickstart", *options)
    assert again.returncode == 1 and again.stderr.splitlines()[-1].startswith("Error: The run in 'trained'")


@pytest.mark.slow
@pytest.mark.parametrize("name", command.list_commands())
def test_every_installed_command_has_a_help(installed, name):
    finished = installed(name, "--help")
    assert finished.returncode == 0, finished.stderr
    assert "-h, --help" in finished.stdout
    assert "hub_scripts/" not in finished.stdout


@pytest.mark.slow
def test_the_installed_command_lists_commands_at_once(installed):
    start = time.perf_counter()
    finished = installed("--help", check=True)
    assert time.perf_counter() - start < 1
    assert installed("--version", check=True).stdout == "slam-hf 0.1.0\n"
    assert [line.split()[0] for line in finished.stdout.splitlines() if line.startswith("  ") and line[2] != " "] == [
        *command.list_commands()
    ]
