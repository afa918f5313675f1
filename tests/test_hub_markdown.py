import re

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import save_file

from slam_hf.hub.markdown import (
    TEMPLATES,
    Markdown,
    code,
    count_parameters,
    escape,
    format_duration,
    format_number,
    format_value,
    link,
    table,
)
from slam_hf.hub.model_card import ModelDescription, make_model_card
from slam_hf.run_record import CorpusRecord, Emissions, Hardware, Reference, RunRecord


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "`</code><b>bold</b>",
    "a | b |\n| --- | --- |\n# Heading",
    "[click](javascript:alert(1))",
    "![](https://tracker.example/x.png)",
    "x\nlicense: mit\n---\n# no",
    "{{ 7 * 191 }}{% include 'codec_card.md' %}",
    "a: [b, {c: d}] # !!python/object/apply:os.system [ls]",
    '"); import os; os.system("ls") #',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_more_than_text(text):
    for line in (escape(text), code(text), format_value({text: [text]}), link(Reference(text, text, url=text))):
        assert "\n" not in line
        assert "<" not in line
    rendered = TEMPLATES.from_string("{{ text }}").render(text=text)
    assert rendered == escape(text)
    assert "[click](" not in rendered
    assert table([(text, text)]).count(" | ") == 2 + 2 * text.replace("\n", " ").count(" \\| ")
    assert escape(escape(text)) == escape(text)
    assert code(text).count("`") == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_a_record_with_markup_makes_a_card_without_it(text):
    record = RunRecord(
        objective=text,
        base_model=Reference(text, text),
        corpora=[CorpusRecord(Reference(text, text), text, text, codec=text, fingerprint=text)],
        recipe={text: text, "list": [text]},
        hardware=Hardware(text, 1, text),
        num_steps=1,
        validation={text: [1.0, 2.0]},
        validation_steps=[0, 1],
        emissions=Emissions(1.0, 1.0, [text], 1.0),
        packages={text: text},
    )
    model = ModelDescription("slam", "user/slam", text, 10, 50, Reference(text, text), Reference(text, text), True)
    model.records, model.about, model.license = [record], text, "mit"
    content = str(make_model_card(model))
    card = ModelCard(content)
    assert card.data.license == "mit"
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert card.data.co2_eq_emissions["hardware_used"] == f"1 × {text}, {text}"
    assert "<" not in card.text.replace("<Un", "").replace("<PAD", "")
    assert "1337" not in card.text
    headings = [line for line in card.text.splitlines() if line.startswith("#")]
    assert not any(line.startswith(("# no", "# Heading")) for line in headings)
    links = re.findall(r"(?<!\\)\]\(([^)]*)", re.sub(r"`[^`\n]*`", "", card.text))
    assert all(link.startswith("https://huggingface.co/") or link == "training_curve.png" for link in links)
    blocks = card.text.split("```python\n")[1:]
    assert blocks
    for block in blocks:
        compile(block.split("```")[0], "snippet", "exec")
        assert "os.system" not in block.split("```")[0]


def test_what_this_project_writes_stays():
    assert escape("Intel(R) Xeon(R) CPU @ 2.20GHz, 2 × A100_80GB*") == "Intel(R) Xeon(R) CPU @ 2.20GHz, 2 × A100_80GB*"
    assert escape(Markdown("**a**\n")) == "**a**\n"
    assert code("a_b") == "`a_b`"
    assert code("a|b\\|c\\\\|d") == r"`a\|b\|c\|d`"


def test_references_are_links_where_others_have_them():
    assert link(Reference("my corpus", is_local=True)) == "`my corpus` (local)"
    assert link(Reference("org/a")) == "[`org/a`](https://huggingface.co/org/a)"
    page = "https://huggingface.co/datasets/org/a/tree/0123456789"
    assert link(Reference("org/a", "0123456789"), "datasets/") == f"[`org/a`]({page}) (revision `0123456`)"
    assert link(Reference("Libri-Light", url="https://example.org/x")) == "[Libri-Light](https://example.org/x)"
    assert link(Reference("x", url="javascript:alert(1)")) == "`x` (local)"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.6, "1 min"), (312, "5 min 12 s"), (84600, "23 h 30 min")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_numbers_and_values():
    assert [format_number(number) for number in (1200, 1.4e9)] == ["1,200", "1.4B"]
    values = (True, 1024, 5e-05, "bf16", ["q", 2], {"min_lr": 5e-05})
    assert [format_value(value) for value in values] == ["yes", "1,024", "5e-05", "`bf16`", "`q`, 2", "`min_lr` 5e-05"]


def test_parameters_are_counted_from_the_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no safetensors file"):
        count_parameters(tmp_path)
    save_file({"lm.a": np.zeros((3, 4)), "head": np.zeros(5)}, tmp_path / "model-1.safetensors")
    save_file({"lm.b": np.zeros(2)}, tmp_path / "model-2.safetensors")
    assert (count_parameters(tmp_path), count_parameters(tmp_path, "lm.")) == (19, 14)
