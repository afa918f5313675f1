"""Prompts and rewards for TRL's online trainers: completions are vocoded, transcribed and judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import AutomaticSpeechRecognitionPipeline

from ..corpora.preference_pairs import as_unit_string
from ..judging.arguments import JudgeArguments
from ..judging.continuations import cut_units
from ..judging.judge import Exchange, Judge
from ..judging.transcription import transcribe_waveforms
from ..option_parser import with_help
from ..processing_speech_lm import SpeechLMProcessor
from .preferences import AlignmentData


@with_help
@dataclass
class OnlineAlignArguments(JudgeArguments, AlignmentData):
    r"""
    The prompts to continue, as [`AlignmentData`] names them (`dataset_name`: a Hub id, a folder or
    `"quickstart:corpus"`), who judges the continuations, and

    Args:
        prompt_seconds (`float`, *optional*, defaults to 3.0):
            Length of the prompts that are the beginnings of the documents of a tokenised corpus: to the nearest end of
            a word where their times are known. Preference pairs have prompts.
        asr_model (`str`, *optional*, defaults to `"openai/whisper-large-v3-turbo"`):
            Speech recogniser: a Hub id or a folder.
        max_auto_bleu (`float`, *optional*, defaults to 0.2):
            A text with a higher auto-BLEU₂ repeats itself, and gets a low reward, whatever the judge says: repetition
            is likely, and judges of likelihood prefer it.
    """

    _argument_group_name = "prompts and rewards"

    prompt_seconds: float = 3.0
    asr_model: str = "openai/whisper-large-v3-turbo"
    max_auto_bleu: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        AlignmentData.__post_init__(self)
        if not self.prompt_seconds > 0:
            raise ValueError(f"`prompt_seconds` must be positive, got {self.prompt_seconds}.")


def make_prompts(rows: Dataset, args: OnlineAlignArguments, processor: SpeechLMProcessor) -> Dataset:
    """Make prompts from preference pairs or from a tokenised corpus: unit strings, each once, in a column `prompt`. A
    `ValueError` says that the rows are neither."""
    num_units = processor.tokenizer.num_units
    if "prompt" in rows.column_names:
        prompts = [as_unit_string(units, num_units) for units in rows["prompt"]]
    elif {"units", "durations"} <= set(rows.column_names):
        frame_rate = processor.audio_tokenizer.frame_rate
        cut = (cut_units(row, args.prompt_seconds, frame_rate) for row in rows)
        prompts = [as_unit_string(units, num_units) for units, _ in cut]
    else:
        raise ValueError(
            f"'{args.dataset_name}' has neither preference pairs, with `prompt`, nor a tokenised corpus, with `units` "
            "and `durations`."
        )
    return Dataset.from_dict({"prompt": [prompt for prompt in dict.fromkeys(prompts) if prompt]})


class SpokenReward:
    r"""
    A reward function for TRL's `GRPOTrainer` and `RLOOTrainer`: the score that a judge gives what is heard in a
    completion. Completions without a score, because they have no words, say, and those that repeat themselves get one
    less than the lowest score of the same prompt.

    Args:
        processor ([`SpeechLMProcessor`]):
            The model's processor, with a codec that has a vocoder.
        transcribe (`AutomaticSpeechRecognitionPipeline`), judge ([`Judge`]):
            Who hears and who scores.
        max_auto_bleu (`float`, *optional*, defaults to 0.2):
            A text with a higher auto-BLEU₂ repeats itself.
        batch_size (`int`, *optional*, defaults to 16):
            Completions to vocode and transcribe together.

    Raises:
        ImportError: nltk is missing.
    """

    def __init__(
        self,
        processor: SpeechLMProcessor,
        transcribe: AutomaticSpeechRecognitionPipeline,
        judge: Judge,
        max_auto_bleu: float = 0.2,
        batch_size: int = 16,
    ):
        try:
            from ..metrics.auto_bleu.auto_bleu import auto_bleu
        except ImportError as error:
            raise ImportError('Auto-BLEU needs NLTK: pip install "slam-hf[metrics]".') from error
        self.processor, self.transcribe, self.judge = processor, transcribe, judge
        self.max_auto_bleu, self.batch_size = max_auto_bleu, batch_size
        self._auto_bleu = auto_bleu
        self._heard: dict[str, str] = {}
        # TRL names its logs after it.
        self.__name__ = judge.description["judge"]

    def __call__(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """The rewards of completions, both given as unit strings."""
        # A prompt is continued many times.
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._heard]
        self._heard |= zip(new, self._hear(new), strict=True)
        texts = self._hear(completions)
        exchanges = [Exchange(self._heard[prompt], text) for prompt, text in zip(prompts, texts, strict=True)]
        repeats = [self._auto_bleu(text) > self.max_auto_bleu for text in texts]
        judged = [judgement.score for judgement in self.judge.judge(exchanges)]
        scores = [None if again else score for again, score in zip(repeats, judged, strict=True)]
        lowest = dict.fromkeys(prompts, 0.0)
        for prompt in lowest:
            of_prompt = [score for other, score in zip(prompts, scores, strict=True) if other == prompt]
            lowest[prompt] = min((score for score in of_prompt if score is not None), default=0.0)
        if log_metric is not None:
            log_metric("completions/repeating", sum(repeats) / len(texts))
            log_metric("completions/unscored", judged.count(None) / len(texts))
        if log_extra is not None:
            log_extra("heard", texts)
        return [lowest[prompt] - 1 if score is None else score for prompt, score in zip(prompts, scores, strict=True)]

    def _hear(self, unit_strings: Sequence[str]) -> list[str]:
        texts, rate = [], self.processor.audio_tokenizer.sampling_rate
        for start in range(0, len(unit_strings), self.batch_size):
            batch = list(unit_strings[start : start + self.batch_size])
            # An empty string has no ids.
            ids = [self.processor.tokenizer(units)["input_ids"] for units in batch]
            texts += transcribe_waveforms(self.processor.batch_decode(ids), rate, self.transcribe, self.batch_size)
        return texts
