"""Models that give the times of words: a CTC model for recordings with a text, and Whisper for those without."""

import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SequenceFeatureExtractor,
    Wav2Vec2PhonemeCTCTokenizer,
    pipeline,
)
from transformers.pipelines import AutomaticSpeechRecognitionPipeline

from ...encoding.recordings import SkipReason
from ...loading_utils import naming_damaged_files
from .forced_alignment import align_words
from .word_times import UnalignableError, split_words, timed_words


APOSTROPHES = str.maketrans("’ʼ`´", "''''")


class TimedPiece(NamedTuple):
    """A piece of a recording: its start in seconds, and its waveform of shape `(samples,)`."""

    start: float
    waveform: np.ndarray


class TimedText(NamedTuple):
    """A text and its words with their times, for `text` and `aligned_text` of a row, and the length in seconds of the
    audio that they were found in."""

    text: str
    words: list[dict[str, Any]]
    seconds: float


class CtcAligner:
    r"""
    Aligns transcripts by a CTC model: which words were spoken when.

    Args:
        model (`PreTrainedModel`):
            Any of `AutoModelForCTC`, on the device to use.
        tokenizer (`PreTrainedTokenizerBase`):
            The model's. If its vocabulary is letters, of either case, a text is spelled in them, without punctuation
            that the vocabulary lacks; a fast tokenizer splits the text into its own tokens.
        feature_extractor (`SequenceFeatureExtractor`):
            The model's.

    Raises:
        ValueError: the model writes phonemes, or the tokenizer has more tokens than the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        feature_extractor: SequenceFeatureExtractor,
    ):
        if isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer):
            raise ValueError(f"'{tokenizer.name_or_path}' writes phonemes: choose a CTC model that writes letters.")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.sampling_rate: int = feature_extractor.sampling_rate
        self.blank: int = model.config.pad_token_id
        vocabulary = tokenizer.get_vocab()
        # Tokenizers add special tokens that the model does not have.
        used = {token: id for token, id in vocabulary.items() if id not in tokenizer.all_special_ids}
        if max(used.values()) >= model.config.vocab_size:
            raise ValueError(f"'{tokenizer.name_or_path}' has more tokens than the CTC model: they are not a pair.")
        delimiter = None if tokenizer.is_fast else getattr(tokenizer, "word_delimiter_token", None)
        self.delimiter: int | None = vocabulary.get(delimiter)
        self.letters = {
            token: id for token, id in used.items() if len(token) == 1 and id not in (self.blank, self.delimiter)
        }

    @classmethod
    def from_pretrained(cls, name: str, revision: str = "main", device: str | torch.device = "cpu") -> "CtcAligner":
        """Load a model with its tokenizer and feature extractor from a folder or the Hub; weights from safetensors."""
        with naming_damaged_files(name):
            return cls(
                AutoModelForCTC.from_pretrained(name, revision=revision, use_safetensors=True).to(device),
                AutoTokenizer.from_pretrained(name, revision=revision),
                AutoFeatureExtractor.from_pretrained(name, revision=revision),
            )

    def align(self, pieces: Iterable[TimedPiece], text: str) -> TimedText:
        r"""
        Align a text with the recording that it is spoken in.

        Args:
            pieces (iterable of [`TimedPiece`]):
                The recording at `sampling_rate`, cut at silences where it is long. The model hears each piece alone.
            text (`str`):
                The transcript.

        Raises:
            UnalignableError: the text has no words, or characters that the model does not know; it does not fit into
                the recording; or the model's values are not finite.
        """
        words = split_words(text)
        if not words:
            raise UnalignableError(SkipReason.NO_TEXT, "no letters and digits")
        tokens = self.tokenize_words(words)
        outputs, starts, ends, total = [], [], [], 0.0
        for start, waveform in pieces:
            outputs.append(self.log_probabilities(waveform))
            num_frames, seconds = len(outputs[-1]), len(waveform) / self.sampling_rate
            total += seconds
            edges = np.arange(num_frames + 1) * self._frame_seconds(seconds, num_frames)
            edges = (start + np.minimum(edges, seconds)).tolist()
            starts += edges[:-1]
            ends += edges[1:]
        spans = align_words(torch.cat(outputs), tokens, self.blank, self.delimiter)
        return TimedText(text, timed_words(words, [(starts[first], ends[last - 1]) for first, last in spans]), total)

    def tokenize_words(self, words: list[str]) -> list[list[int]]:
        """Ids of the tokens of each word. [`UnalignableError`] names characters that the vocabulary lacks."""
        tokens = self._subwords(words) if self.tokenizer.is_fast else [self._spell(word) for word in words]
        for word, of_word in zip(words, tokens, strict=True):
            if not of_word or self.tokenizer.unk_token_id in of_word:
                raise UnalignableError(SkipReason.UNKNOWN_CHARACTERS, repr(word.strip()))
        return tokens

    @torch.inference_mode()
    def log_probabilities(self, waveform: np.ndarray) -> torch.Tensor:
        """Log-probabilities of shape `(num_frames, vocab_size)`, float32 on the CPU, of a waveform of shape
        `(samples,)`."""
        inputs = self.feature_extractor(waveform, sampling_rate=self.sampling_rate, return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        return self.model(**inputs).logits[0].float().log_softmax(-1).cpu()

    def _frame_seconds(self, seconds: float, num_frames: int) -> float:
        """Seconds from a frame to the next: the model's stride, where its configuration tells it."""
        config = self.model.config
        stride = getattr(config, "inputs_to_logits_ratio", None)
        if stride is None or getattr(config, "add_adapter", False):
            return seconds / num_frames
        return stride / self.sampling_rate

    def _spell(self, word: str) -> list[int]:
        """Ids of a word's letters. A letter that the vocabulary lacks is spelled in the other case or without its
        accent. If a letter, digit or symbol cannot be spelled at all, the word has no ids."""
        ids: list[int] = []
        for character in unicodedata.normalize("NFC", word.translate(APOSTROPHES)):
            plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
            for form in (character, character.lower(), character.upper(), plain, plain.lower(), plain.upper()):
                if form and all(letter in self.letters for letter in form):
                    ids += [self.letters[letter] for letter in form]
                    break
            else:
                if unicodedata.category(character)[0] in "LNS":  # letters, digits and symbols, which are spoken
                    return []
        return ids

    def _subwords(self, words: list[str]) -> list[list[int]]:
        """Ids of the subwords of each word, by the characters that a fast tokenizer maps them to."""
        encoded = self.tokenizer("".join(words), add_special_tokens=False, return_offsets_mapping=True)
        ends = np.cumsum([len(word) for word in words])
        tokens: list[list[int]] = [[] for _ in words]
        for id, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            tokens[np.searchsorted(ends, end)].append(id)
        return tokens


class WhisperAligner:
    r"""
    Transcribes recordings with the times of their words: Whisper's word timestamps.

    Args:
        recognizer (`AutomaticSpeechRecognitionPipeline`):
            transformers' pipeline with a Whisper whose generation configuration has `alignment_heads`.
        language (`str`, *optional*):
            The language that is spoken. By default, Whisper finds out, for each piece.

    Raises:
        ValueError: the model gives no word timestamps.
    """

    def __init__(self, recognizer: AutomaticSpeechRecognitionPipeline, language: str | None = None):
        if getattr(recognizer.model.generation_config, "alignment_heads", None) is None:
            raise ValueError(
                f"'{recognizer.model.name_or_path}' gives no word timestamps: its generation configuration has no "
                "`alignment_heads`. Choose one of OpenAI's Whisper models."
            )
        self.recognizer = recognizer
        self.options = {} if language is None else {"language": language}
        self.sampling_rate: int = recognizer.feature_extractor.sampling_rate

    @classmethod
    def from_pretrained(
        cls, name: str, revision: str = "main", device: str | torch.device = "cpu", language: str | None = None
    ) -> "WhisperAligner":
        """Load a Whisper from a folder or the Hub; weights from safetensors."""
        with naming_damaged_files(name):
            recognizer = pipeline(
                "automatic-speech-recognition",
                name,
                revision=revision,
                device=device,
                model_kwargs={"use_safetensors": True},
            )
        return cls(recognizer, language)

    def transcribe(self, pieces: Iterable[TimedPiece]) -> TimedText:
        r"""
        Transcribe a recording.

        Args:
            pieces (iterable of [`TimedPiece`]):
                The recording, in pieces of at most 30 seconds at `sampling_rate`. Whisper hears each alone.

        Raises:
            UnalignableError: Whisper hears no words.
        """
        heard: list[str] = []
        spans: list[tuple[float, float]] = []
        latest = total = 0.0
        for start, waveform in pieces:
            audio = {"raw": waveform, "sampling_rate": self.sampling_rate}
            result = self.recognizer(audio, return_timestamps="word", generate_kwargs=self.options)
            seconds = len(waveform) / self.sampling_rate
            total += seconds
            for chunk in result["chunks"]:
                if not (word := " ".join(chunk["text"].split())):
                    continue
                # The last word of a piece may have no end, and times may run backwards where Whisper repeats itself.
                begin, end = (seconds if time is None else min(time, seconds) for time in chunk["timestamp"])
                begin = max(latest, start + begin)
                latest = max(begin, start + end)
                spaced = chunk["text"][0].isspace()
                heard.append(f" {word}" if heard and spaced else word)
                spans.append((begin, latest))
        if not heard:
            raise UnalignableError(SkipReason.NO_TEXT, "Whisper hears no words")
        return TimedText("".join(heard), timed_words(heard, spans), total)
