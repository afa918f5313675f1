"""What continuation tasks say about continuations beyond their transcripts: further columns of the records."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutomaticSpeechRecognitionPipeline

from ..fingerprints import describe_model
from ..judging.arguments import JudgeArguments, check_judge, load_judge
from ..judging.judge import NO_RATING, Exchange
from ..judging.local import TextLM, check_text_lm
from ..judging.sound import SpeakerEncoder, describe_quality_model, rate_quality
from ..judging.transcription import transcribe_waveforms
from ..loading_utils import check_model
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from .arguments import ContinuationArguments
from .prompts import Prompts, RecordedPrompts


Record = dict[str, Any]


class Assessment(Protocol):
    """Gives further columns of each record of a continuation. Its settings are what they depend on."""

    settings: dict[str, Any]

    def __call__(self, records: Sequence[Record]) -> list[Record]: ...


def check_assessment(
    task: str, args: ContinuationArguments, judge_args: JudgeArguments | None, prompts: Prompts
) -> None:
    """Raise what [`load_assessment`] would, as far as it is known without loading a model or asking an endpoint."""
    if task == "llm_judge":
        if judge_args is None or judge_args.judge != "rating":
            raise ValueError("llm_judge asks an instruct LM for ratings: add `judge rating` and a `judge_model`.")
        check_judge(judge_args)
    elif task == "genppl":
        check_text_lm(args.text_lm, args.start_token)
    elif task == "speech_quality":
        describe_quality_model()
    elif task == "speaker_similarity":
        if not isinstance(prompts, RecordedPrompts):
            raise ValueError("speaker_similarity compares with the voice of a recording: name a folder with audio.")
        check_model(args.speaker_model)


def load_assessment(
    task: str,
    args: ContinuationArguments,
    judge_args: JudgeArguments | None,
    prompts: Prompts,
    speak: AudioToAudioPipeline,
    transcribe: AutomaticSpeechRecognitionPipeline,
) -> Assessment | None:
    """The assessment of a task, or `None` where its metric takes the transcripts themselves. What it needs is loaded:
    errors come before the long work."""
    if task == "llm_judge":
        return Ratings(judge_args, speak, transcribe)
    if task == "genppl":
        return Perplexities(args, speak.device)
    if task == "speech_quality":
        return Quality(speak)
    if task == "speaker_similarity":
        return Similarity(args, prompts, speak)
    return None


class Perplexities:
    """Mean negative log-likelihood per token of the transcripts under a text LM, in nats; `None` for empty ones."""

    def __init__(self, args: ContinuationArguments, device: torch.device):
        self.text_lm = TextLM.from_pretrained(args.text_lm, args.start_token)
        self.text_lm.model.to(device)
        self.settings = {"text_lm": self.text_lm.description}

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        columns = {
            f"{prefix}negative_log_likelihood": self.text_lm.losses([row[f"{prefix}transcript"] for row in records])
            for prefix in ("", "continuation_")
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class Ratings:
    """How well a judge finds that continuations follow from their prompts, from 1 to 5, and what it has replied. The
    prompts are transcribed as the codec resynthesises them."""

    def __init__(
        self,
        args: JudgeArguments,
        speak: AudioToAudioPipeline,
        transcribe: AutomaticSpeechRecognitionPipeline,
    ):
        self.judge, self.speak, self.transcribe = load_judge(args, speak.device), speak, transcribe
        self.settings = {"judge": self.judge.description}

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        rate = self.speak.processor.audio_tokenizer.sampling_rate
        prompts = _decode(records, self.speak, "prompt_units")
        heard = transcribe_waveforms(prompts, rate, self.transcribe, len(records))
        texts = [record["continuation_transcript"] for record in records]
        judgements = self.judge.judge([Exchange(*pair) for pair in zip(heard, texts, strict=True)])
        return [
            {
                "prompt_transcript": prompt,
                "judge_score": judgement.score,
                "judge_unscored": float(judgement.score is None),
                "judge_unparsed": float(judgement.problem == NO_RATING),
                "judge_problem": judgement.problem,
                "judge_reply": judgement.reply,
            }
            for prompt, judgement in zip(heard, judgements, strict=True)
        ]


class Quality:
    """The opinion scores that DNSMOS predicts for the continuations."""

    def __init__(self, speak: AudioToAudioPipeline):
        self.speak = speak
        self.settings = {"quality_model": describe_quality_model()}

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        rate = self.speak.processor.audio_tokenizer.sampling_rate
        return [rate_quality(waveform, rate) for waveform in _decode(records, self.speak)]


class Similarity:
    """Cosine similarity of the voices of the recorded prompts and of the continuations."""

    def __init__(self, args: ContinuationArguments, prompts: RecordedPrompts, speak: AudioToAudioPipeline):
        self.prompts, self.speak = prompts, speak
        self.encoder = SpeakerEncoder(args.speaker_model, speak.device)
        self.settings = {"speaker_model": describe_model(self.encoder.model)}

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        rate = self.speak.processor.audio_tokenizer.sampling_rate
        pairs = zip(records, _decode(records, self.speak), strict=True)
        return [
            {
                "similarity": self.encoder.similarity(
                    [self.prompts.waveform(record["prompt"], rate), continuation], rate
                )
            }
            for record, continuation in pairs
        ]


def _decode(records: Sequence[Record], speak: AudioToAudioPipeline, column: str = "units") -> list[np.ndarray]:
    """The waveforms of continuations, or of prompts. Those on disk may be of an evaluation with other settings."""
    encode = speak.tokenizer.encode_units
    return speak.processor.batch_decode(
        [encode(record[column], add_special_tokens=False)["input_ids"] for record in records]
    )
