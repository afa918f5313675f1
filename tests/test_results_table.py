"""The published numbers are those of the paper's table, and ours stand below them with their intervals."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from slam_hf.evaluation.results_table import (
    Row,
    Score,
    conditional_to_markdown,
    format_count,
    model_summaries,
    parse_count,
    read_summaries,
    save_plot,
    summary_files,
    to_markdown,
)
from slam_hf.evaluation.slamming_results import PUBLISHED


SCRIPT = Path(__file__).parents[1] / "hub_scripts" / "results_table.py"


@pytest.fixture
def write_summary(tmp_path):
    def write(
        task: str,
        results: dict,
        name: str = "my-model",
        num_skipped: int = 0,
        data: str = "twist/sSC",
        training_tokens: float | None = 1.4e9,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True, parents=True)
        model = {"name": name, "weights": f"hash of {name}", "num_parameters": 358_347_904}
        summary = {"task": task, "results": results, "num_items": 1871, "num_skipped": num_skipped}
        summary |= {"model": model | {"training_tokens": training_tokens}, "data": {"name": data}}
        (folder / f"{task}.json").write_text(json.dumps(summary))
        return folder

    return write


def table_lines(rows) -> dict[str, list[str]]:
    """Cells by the first of each line."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in to_markdown(rows).splitlines()]
    return {cells[0]: cells[1:] for cells in lines}


def test_published_rows_of_the_slam_models():
    lines = table_lines(PUBLISHED)
    assert lines["Model"] == [
        "Compute",
        "Parameters",
        "Tokens",
        "sBLIMP ↑",
        "sStoryCloze ↑",
        "tStoryCloze ↑",
        "GenPPL ↓",
        "Auto-BLEU ↓",
    ]
    assert lines["Slam"] == ["1×A5000", "358M", "1.4B + 5M", "58.86", "58.04", "82.04", "62.8", "3.88"]
    assert lines["Slam (scaled)"] == ["2×A100", "358M", "16.7B + 9M", "61.11", "61.3", "84.18", "46.6", "3.75"]
    assert lines["Slam (-DPO)"] == ["2×A100", "358M", "16.7B", "58.53", "58.15", "80.71", "67.3", "3.25"]
    assert lines["TWIST-350M"] == ["8×V100", "305M", "10.8B", "56.2", "—", "—", "137.3", "3.46"]
    assert len(lines) == 2 + 17


def test_summaries_of_one_model_make_one_row(write_summary):
    write_summary("sblimp", {"accuracy": 0.6012, "accuracy_interval": [0.59, 0.6123]})
    write_summary("genppl", {"genppl": 72.04, "genppl_interval": [69.5, 75.0]}, num_skipped=3)
    folder = write_summary("auto_bleu", {"auto_bleu": 0.0352, "auto_bleu_interval": [0.031, 0.04]})
    other = write_summary("sblimp", {"accuracy": 0.5, "accuracy_interval": [0.49, 0.51]}, name="another")
    lines = table_lines([*PUBLISHED, *read_summaries([folder, other / "sblimp.json"])])
    assert lines["**my-model**"] == [
        "?",
        "358M",
        "1.4B",
        "60.12 [59, 61.2]",
        "—",
        "—",
        "72.04 [69.5, 75] (1868 of 1871)",
        "3.52 [3.1, 4]",
    ]
    assert lines["**another**"][3:] == ["50 [49, 51]", "—", "—", "—", "—"]


def test_columns_appear_with_their_scores(write_summary):
    folder = write_summary("swuggy", {"in_vocabulary_accuracy": 0.7, "in_vocabulary_accuracy_interval": [0.69, 0.71]})
    assert table_lines(read_summaries([folder]))["Model"] == [
        "Compute",
        "Parameters",
        "Tokens",
        "sWUGGY in vocabulary ↑",
    ]


def test_a_second_summary_of_a_task_is_refused_and_named_with_the_first(write_summary):
    folder = write_summary("sblimp", {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]})
    message = r"sblimp.json' is the second summary of sblimp for my-model, after '.*sblimp.json': pass one"
    with pytest.raises(ValueError, match=message):
        read_summaries([folder, folder / "sblimp.json"])
    (folder / "copy").mkdir()
    shutil.copy(folder / "sblimp.json", folder / "copy" / "sblimp.json")
    with pytest.raises(ValueError, match=message):
        read_summaries([folder])


def test_a_folder_of_folders_is_read(write_summary, tmp_path):
    results = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}
    for name in ("outputs/evaluation/org/slam", "outputs/evaluation/me/slam"):
        write_summary("sblimp", results, name=name)
    assert [row.model for row in read_summaries([tmp_path / "outputs"])] == [
        "outputs/evaluation/me/slam",
        "outputs/evaluation/org/slam",
    ]


def test_the_summaries_of_a_model_are_those_beside_it_and_not_those_of_its_checkpoints(write_summary, tmp_path):
    assert model_summaries(tmp_path / "run") == []
    results = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}
    for name in ("run/evaluation", "run/checkpoint-5/evaluation"):
        write_summary("sblimp", results, name=name)
    (tmp_path / "run" / "evaluation" / "notes.json").write_text("{}")
    assert model_summaries(tmp_path / "run") == [tmp_path / "run" / "evaluation" / "sblimp.json"]
    assert len(summary_files(tmp_path / "run")) == 2


def test_scores_on_small_benchmarks_are_marked_and_explained(write_summary):
    results = {"accuracy": 0.722, "accuracy_interval": [0.69, 0.76]}
    folder = write_summary("tstorycloze", results, data="quickstart:benchmarks/tstorycloze")
    write_summary("sblimp", results)
    table = to_markdown([*PUBLISHED, *read_summaries([folder])])
    assert "| 72.2 [69, 76] | — | 72.2 [69, 76] ‡ |" in table
    assert table.endswith("‡ On a small benchmark that comes with slam-hf: not comparable with published scores.")
    assert "‡" not in to_markdown(PUBLISHED)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"task": "sblimp"}', '{"task": "other", "results": {}}'])
def test_a_file_that_is_not_a_summary_is_named(tmp_path, content):
    (tmp_path / "sblimp.json").write_text(content)
    with pytest.raises(ValueError, match=r"sblimp.json' is not the summary of an evaluation \("):
        read_summaries([tmp_path])


def test_scores_in_bfloat16_say_so(write_summary):
    folder = write_summary("salmon", {"accuracy": 0.5, "accuracy_interval": [0.25, 0.75]})
    path = folder / "salmon.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": {"dtype": "bfloat16"}}))
    assert table_lines(read_summaries([folder]))["**my-model**"][-1] == "50 [25, 75] (bfloat16)"


def test_a_folder_without_a_summary_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no summary of an evaluation"):
        read_summaries([tmp_path])


@pytest.mark.parametrize(
    ("text", "count"), [("1.4B + 5M", 1.405e9), ("36B + ~158B", 194e9), ("~1T", 1e12), ("22K", 22e3), ("?", None)]
)
def test_counts_are_read(text, count):
    assert parse_count(text) == (None if count is None else pytest.approx(count))


def test_counts_are_written_as_they_are_read():
    assert [format_count(count) for count in (16.7e9, 999.6e6, 358_347_904, 22_048, 1e12, None)] == [
        "16.7B",
        "1B",
        "358M",
        "22K",
        "1T",
        "?",
    ]


@pytest.fixture
def saved(monkeypatch):
    """The figures that are saved."""
    figure, figures = pytest.importorskip("matplotlib.figure"), []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, dpi: figures.append(self))
    return figures


def test_plot_shows_every_model_with_known_tokens(write_summary, tmp_path, saved):
    folder = write_summary("sblimp", {"accuracy": 0.6, "accuracy_interval": [0.58, 0.63]})
    save_plot([*PUBLISHED, *read_summaries([folder])], tmp_path / "plot.png")
    labels = [{text.get_text() for text in axes.texts} for axes in saved[0].axes]
    assert [axes.get_title() for axes in saved[0].axes] == ["sBLIMP", "sStoryCloze", "tStoryCloze"]
    assert "my-model" in labels[0] and "my-model" not in labels[1]
    assert "Moshi (speech only)" not in labels[0]
    assert {"Slam", "Slam (scaled)", "Slam (-DPO)"} <= labels[2]


def test_a_line_joins_the_checkpoints_of_a_run(tmp_path, saved):
    names = {"run/checkpoint-20": ("2M", 60.0), "run/checkpoint-10": ("1M", 55.0), "other": ("3M", 58.0)}
    rows = [Row(name, "?", "1M", tokens, {"sblimp": Score(value)}, True) for name, (tokens, value) in names.items()]
    save_plot(rows, tmp_path / "plot.png")
    lines = [line.get_xydata().tolist() for line in saved[0].axes[0].lines if len(line.get_xydata()) > 1]
    assert lines == [[[1e6, 55.0], [2e6, 60.0]]]


@pytest.fixture
def run_script(monkeypatch):
    def run(*arguments) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def test_models_that_are_not_in_the_plot_are_named(write_summary, tmp_path, run_script, capsys):
    pytest.importorskip("matplotlib")
    folder = write_summary("sblimp", {"accuracy": 0.6, "accuracy_interval": [0.58, 0.63]}, training_tokens=None)
    run_script(folder, "--plot", tmp_path / "plot.png")
    said = capsys.readouterr().err
    assert "Not in the plot: Moshi (speech only), my-model. Their number of training tokens is not known." in said
    assert "`--training_tokens`" in said
    with pytest.raises(ValueError, match="no model has both an accuracy and a number of training tokens"):
        save_plot(read_summaries([folder]), tmp_path / "plot.png")


def test_script_prints_the_table_and_draws_it(write_summary, tmp_path, run_script, capsys):
    pytest.importorskip("matplotlib")
    folder = write_summary("tstorycloze", {"accuracy": 0.8, "accuracy_interval": [0.78, 0.82]})
    run_script(folder, "--plot", tmp_path / "plot.png")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + 17 + 1
    assert printed[-1] == "| **my-model** | ? | 358M | 1.4B | — | — | 80 [78, 82] | — | — |"
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


CROSS_MODAL_RESULTS = {
    "accuracy": 0.7,
    "accuracy_interval": [0.65, 0.75],
    "conditional": {"accuracy": 0.8, "accuracy_interval": [0.75, 0.85]},
    "pmi": {"accuracy": 0.9, "accuracy_interval": [0.85, 0.95]},
}


def test_models_of_speech_and_text_are_in_a_table_with_those_of_their_paper(write_summary, run_script, capsys):
    folder = write_summary("tstorycloze_s2t", CROSS_MODAL_RESULTS)
    write_summary("tstorycloze", {"accuracy": 0.6, "accuracy_interval": [0.5, 0.7]})
    run_script(folder)
    main, cross_modal, conditional = re.split(r"\n\n[^|]*:\n\n", capsys.readouterr().out.strip())
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in cross_modal.splitlines()]
    assert header[4:] == [
        f"{kind}StoryCloze{direction} ↑" for kind in "st" for direction in ("", " S→T", " T→S", " T→T")
    ]
    assert lines[0][0] == "SpiritLM (multi-speaker)" and lines[0][4:6] == ["62.8", "68.49"]
    assert lines[5][1:3] == ["6.86e20 FLOP", "7.6B"] and lines[5][8:] == ["88.27", "93.29", "75.34", "95.67"]
    assert lines[6][0] == "**my-model**" and lines[6][8:] == ["60 [50, 70]", "70 [65, 75]", "—", "—"]
    assert "S→T" not in main and "80" not in main.splitlines()[-1]
    assert conditional.splitlines()[0] == (
        "| Model | Benchmark | log p(prompt and ending), as published | log p(ending given prompt) | "
        "log p(ending given prompt) - log p(ending) |"
    )
    row = "| **my-model** | tStoryCloze S→T | 70 [65, 75] | 80 [75, 85] | 90 [85, 95] |"
    assert conditional.splitlines()[2:] == [row]


def test_every_score_on_a_small_benchmark_is_marked(write_summary):
    folder = write_summary("tstorycloze_t2t", CROSS_MODAL_RESULTS, data="quickstart:benchmarks/tstorycloze")
    rows = read_summaries([folder])
    assert "| 70 [65, 75] ‡ | 80 [75, 85] ‡ | 90 [85, 95] ‡ |" in conditional_to_markdown(rows)
    assert conditional_to_markdown(PUBLISHED) is None
