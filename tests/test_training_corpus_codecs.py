import pytest
from transformers import EncodecFeatureExtractor

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.encoding.codec_identity import describe_codec
from slam_hf.processing_speech_lm import load_codec
from slam_hf.training.arguments import CorpusConfig
from slam_hf.training.corpus_codecs import check_codecs


def processor(num_units=50, codec=None, reference=None):
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    return SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=num_units), codec, reference)


@pytest.fixture
def corpus(tmp_path):
    """Makes a corpus with a card."""

    def make(name, **card):
        (tmp_path / name).mkdir()
        lines = "".join(f"{key}: {value}\n" for key, value in card.items())
        (tmp_path / name / "README.md").write_text(f"---\n{lines}---\n")
        return CorpusConfig(str(tmp_path / name))

    return make


@pytest.mark.parametrize("name", ["corpus", "preferences"])
def test_the_quickstart_data_are_of_the_quickstart_codec(name, tiny_codec, capsys):
    corpora = [CorpusConfig(f"quickstart:{name}")]
    check_codecs(corpora, processor(500, load_codec("quickstart:codec")))
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="has 500 units, and the model 50"):
        check_codecs(corpora, processor(50, tiny_codec))


def test_a_corpus_of_the_models_codec_is_accepted(corpus, tiny_codec):
    made = corpus("a", codec="x/y", codec_sha256=describe_codec(tiny_codec).weights, num_units=50)
    check_codecs([made, made], processor(50, tiny_codec))
    check_codecs([made], processor(50))


def test_a_corpus_of_another_codec_is_refused(corpus, tiny_codec):
    made = corpus("a", codec="x/y", codec_sha256="f" * 64, num_units=50)
    with pytest.raises(ValueError, match="of another codec than the model's: '.*/a' by x/y"):
        check_codecs([made], processor(50, tiny_codec))


def test_corpora_of_two_codecs_are_refused(corpus):
    corpora = [corpus(name, codec=f"x/{name}", codec_sha256=name * 64) for name in "ab"]
    with pytest.raises(ValueError, match="different codecs: '.*/a' by x/a and '.*/b' by x/b"):
        check_codecs(corpora, processor())


def test_a_corpus_that_does_not_name_its_codec_is_reported(corpus, tiny_codec, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    corpora = [CorpusConfig(str(tmp_path / "bare")), corpus("a", license="mit"), CorpusConfig("user/not-downloaded")]
    check_codecs(corpora, processor(50, tiny_codec))
    assert capsys.readouterr().out.count("has no card that names its codec") == 3


def test_a_codec_that_cannot_be_loaded_is_reported(corpus, tmp_path, capsys):
    reference = {"name_or_path": str(tmp_path / "gone"), "revision": None}
    check_codecs([corpus("a", codec_sha256="f" * 64)], processor(reference=reference))
    assert "The corpora are not compared with it" in capsys.readouterr().out
