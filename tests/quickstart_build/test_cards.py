import yaml
from quickstart.codec import card as codec_card
from quickstart.corpus import cards


CODEC = {"codec": "quickstart:codec", "codec_sha256": "abc", "frame_rate": 25.0, "num_units": 500}


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


def test_the_corpus_card_names_the_codec_the_parts_and_their_sizes():
    figures = {
        f"{part}/{split}": {"rows": 1200, "hours": 2.0, "units": 144_000}
        for part in ("sentences", "stories")
        for split in ("train", "validation")
    }
    error = {"words": 900, "mean_ms": 20.4, "median_ms": 15.0, "bias_ms": -3.0}
    error |= {"within_50_ms": 0.95, "within_100_ms": 0.999}
    word_times = {
        "training": {"cpu_minutes": 5.01},
        "lead_ms": 33.2,
        "unaligned": {"sentences/train": {"too short for its text": 3}, "stories/train": {}},
        "sentences": {"starts": error, "ends": error},
        "stories": {"starts": error, "ends": error},
        "flite-slt": {"starts": error, "ends": error},
    }
    card = cards.corpus_card(CODEC, figures, sha256="def", scenarios=33, heroes=36, word_times=word_times)
    assert CODEC.items() <= metadata(card).items()
    configs = {config["config_name"]: config["data_files"][0]["path"] for config in metadata(card)["configs"]}
    assert configs == {
        "default": "*/train.parquet",
        "sentences": "sentences/train.parquet",
        "stories": "stories/train.parquet",
    }
    assert {config["description"] for config in metadata(card)["configs"]} == {"SHA-256 of the files: def"}
    assert "| stories | validation | 1,200 | 2.00 | 144,000 | 20.0 |" in card
    text = card.replace("\n", " ")
    assert "33 scenarios with two outcomes each, 36 heroes" in text
    assert "4,797 of 4,800 rows have them" in text
    assert "begins 33 ms earlier" in text
    assert "| flite-slt, starts | 900 |" in text
    assert "| stories, ends | 900 | 20 ms | 15 ms | -3 ms | 95.0% | 99.9% |" in card


def test_the_preference_card_counts_pairs():
    card = cards.preference_card(CODEC, {"train": 900, "validation": 100})
    assert CODEC.items() <= metadata(card).items()
    assert "900 preference pairs to train on and 100 to validate with" in card


def test_the_benchmark_card_counts_pairs():
    card = cards.benchmark_card(sblimp=560, phenomena=7, voices=2, storycloze=250)
    assert "| `sblimp` | 560: 7 phenomena, 2 voices |" in card
    assert "| `tstorycloze` | 250 |" in card


def test_the_codec_card_has_what_the_stages_measured():
    measured = {"pnmi": 0.7251, "edit_rate": 0.6449}
    rates = {"recordings": 0.025, "resynthesis": 0.18, "predicted durations": 0.24}
    figures = {
        "targets": {"training_hours": 6.28},
        "codebook": {"student": measured, "teacher": measured},
        "student": {"cpu_minutes": 45.0},
        "resynthesis": {"hibari": rates, "audiobooks": {"resynthesis": 0.5, "predicted durations": 0.551}},
    }
    card = codec_card.codec_card(figures, encoder_parameters=3.5, vocoder_parameters=1.2, num_units=500)
    assert "| this codec | 0.73 | 0.64 |" in card
    assert "| hibari, 40 held-out sentences | 2.5 % | 18.0 % | 24.0 % |" in card
    assert "| LibriVox and LibriSpeech |  | 50.0 % | 55.1 % |" in card
