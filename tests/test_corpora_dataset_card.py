import pytest
from datasets import Dataset, Features
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard
from loopback_hub import run_with_hub

from slam_hf.corpora.dataset_card import SplitSummary, make_card, render_dataset_card
from slam_hf.corpora.schema import PREFERENCE_FEATURES, UNIT_CORPUS_FEATURES
from slam_hf.encoding.codec_identity import CodecDescription


CODEC = CodecDescription("org/codec", "a319086e1d34", "f" * 64, 500, 16_000, 25.0)
TRAIN = SplitSummary("train", 1200, 180_000, 250_000, 10_000.0, 999, False, {"corrupt": 2, "silent": 1})
TEST = SplitSummary("test", 10, 900, 1000, 40.0, 9, False, {})


def test_the_yaml_names_the_codec_and_the_totals():
    data = DatasetCard(make_card(CODEC, [TRAIN, TEST]).content).data.to_dict()

    described = ("codec", "codec_revision", "codec_sha256", "codec_dtype", "frame_rate", "num_units")
    assert {name: data[name] for name in described} == {
        "codec": "org/codec",
        "codec_revision": "a319086e1d34",
        "codec_sha256": "f" * 64,
        "codec_dtype": "float32",
        "frame_rate": 25.0,
        "num_units": 500,
    }
    assert (data["total_hours"], data["total_units"]) == (2.79, 180_900)
    assert data["configs"] == [
        {
            "config_name": "default",
            "data_files": [{"split": "train", "path": "data/train-*"}, {"split": "test", "path": "data/test-*"}],
        }
    ]


def test_the_yaml_has_the_features_as_datasets_reads_them():
    for has_pairs, features in ((False, UNIT_CORPUS_FEATURES), (True, PREFERENCE_FEATURES)):
        split = SplitSummary("train", 1, 1, 1, 1.0, 1, has_pairs, {})
        data = DatasetCard(make_card(CODEC, [split]).content).data

        info = DatasetInfosDict.from_dataset_card_data(data)["default"]

        assert info.features == Features(features)
        assert info.splits["train"].num_examples == 1


def test_the_text_has_the_figures_and_what_was_left_out():
    text = make_card(CODEC, [TRAIN, TEST]).text

    assert "[`org/codec`](https://huggingface.co/org/codec/tree/a319086e1d34): 500 units, 25 frames a second." in text
    assert "| train | 1,200 | 2.78 | 180,000 | 18.0 |\n| test | 10 | 0.01 | 900 | 22.5 |" in text
    assert "`skipped/train.jsonl`" in text
    assert "| corrupt | 2 |\n| silent | 1 |" in text
    assert "`test`: nothing was left out." in text


def test_a_codec_without_a_repository_has_no_link():
    codec = CodecDescription("my-codec", None, "f" * 64, 500, 16_000, 25.0)

    card = make_card(codec, [TRAIN])

    assert "tokenised with `my-codec`: 500 units" in card.text
    assert "codec_revision" not in card.data.to_dict()


def test_the_card_of_a_repository_names_it_and_the_licence(tmp_path):
    (tmp_path / "README.md").write_text(make_card(CODEC, [TRAIN]).content)

    card = render_dataset_card(tmp_path, "user/units", license="cc-by-4.0")

    assert DatasetCard(str(card)).data.license == "cc-by-4.0"
    assert 'load_dataset("user/units")' in card.text
    assert "## License\n\n`cc-by-4.0`\n" in card.text


def test_a_card_says_so_where_no_licence_was_given(tmp_path):
    (tmp_path / "README.md").write_text(make_card(CODEC, [TRAIN]).content)

    card = render_dataset_card(tmp_path, "user/units")

    assert "license" not in card.data.to_dict()
    assert "## License\n\nNone was given: ask the authors before you use it.\n" in card.text


def test_a_folder_without_a_card_is_not_a_dataset(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no README.md"):
        render_dataset_card(tmp_path, "user/units")


SNIPPET = """
import re
from huggingface_hub import HfApi
from slam_hf.corpora.dataset_card import render_dataset_card

card = render_dataset_card({folder!r}, "user/units", license="mit")
card.validate()
api = HfApi()
api.create_repo("user/units", repo_type="dataset")
api.upload_folder(repo_id="user/units", repo_type="dataset", folder_path={folder!r})
[block] = re.findall(r"```python\\n(.*?)```", card.text, flags=re.DOTALL)
exec(block)
print(dataset["train"][0]["units"])
"""


def test_the_example_runs_as_written(tmp_path):
    row = {"id": "a", "units": [3, 1], "durations": [2, 1], "num_frames": 3, "text": None, "aligned_text": None}
    rows = Dataset.from_list([row], features=UNIT_CORPUS_FEATURES)
    rows.to_parquet(tmp_path / "corpus" / "data" / "train-00000-of-00001.parquet")
    split = SplitSummary("train", 1, 2, 3, 0.12, 99, False, {})
    (tmp_path / "corpus" / "README.md").write_text(make_card(CODEC, [split]).content)

    output = run_with_hub(SNIPPET.format(folder=str(tmp_path / "corpus")), tmp_path / "cache")

    assert output.splitlines()[-1] == "[3, 1]"
