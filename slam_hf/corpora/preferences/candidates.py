"""Continuations of prompts, with what is heard in them and how it is judged, in a job that can be killed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from transformers import AutomaticSpeechRecognitionPipeline

from ...encoding.ledger import ChunkKey, ChunkRecord, Ledger
from ...encoding.recordings import Skipped
from ...encoding.sources import Source, in_chunks
from ...judging.continuations import sample_continuations, save_audio
from ...judging.judge import Exchange, Judge
from ...judging.transcription import transcribe_waveforms
from ...pipeline_audio_to_audio import AudioToAudioPipeline
from ...unit_vocabulary import unit_string
from .prompts import Prompt, read_prompt


CANDIDATE_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "prompt": pa.string(),
        "prompt_text": pa.string(),
        "prompt_seconds": pa.float64(),
        "audio": pa.string(),
        "continuations": pa.list_(
            pa.struct(
                {
                    "units": pa.string(),
                    "seconds": pa.float64(),
                    "text": pa.string(),
                    "score": pa.float64(),
                    "problem": pa.string(),
                    "reply": pa.string(),
                    "auto_bleu": pa.float64(),
                }
            )
        ),
    }
)
"""A prompt with its continuations. Units are strings. A continuation has a score, or a problem that says why not.
`audio` is the folder of the recordings, where they were kept."""


@dataclass(frozen=True)
class CandidateMaker:
    r"""
    Lets a model continue prompts, and judges what is heard.

    Args:
        speak ([`AudioToAudioPipeline`]), transcribe (`AutomaticSpeechRecognitionPipeline`), judge ([`Judge`]):
            The model, the speech recogniser and the judge.
        options (`dict`):
            Parameters of `generate()`.
        prompt_seconds (`float`):
            Length of a prompt.
        num_samples (`int`):
            Continuations of each prompt.
        seed (`int`):
            Seed of the sampling. With the id of a prompt, it gives the seed of its continuations.
        batch_size (`int`):
            Maximum number of continuations to sample together.
        audio_dir (`str`, *optional*):
            Path or URL of a folder for the audio of prompts and continuations. Defaults to not keeping it.
    """

    speak: AudioToAudioPipeline
    transcribe: AutomaticSpeechRecognitionPipeline
    judge: Judge
    options: dict[str, Any]
    prompt_seconds: float
    num_samples: int
    seed: int
    batch_size: int
    audio_dir: str | None = None

    def make(self, source: Source, ledger: Ledger, rank: int = 0, world_size: int = 1) -> None:
        """Continue what the ledger lacks of one task's share of a source: a batch of prompts is a chunk. The shares of
        all tasks are the whole source, and the tasks do not communicate."""
        codec = self.speak.processor.audio_tokenizer
        for key, next_row in ledger.begin(source.parts, rank, world_size):
            rows = source.parts[key.part].read(next_row)
            prompts = (read_prompt(row, self.prompt_seconds, codec.sampling_rate, codec.frame_rate) for row in rows)
            # What is skipped does not count.
            num_prompts = max(1, self.batch_size // self.num_samples)
            for chunk, is_last in in_chunks(prompts, num_prompts, lambda item: isinstance(item, Prompt)):
                first_row, next_row = next_row, next_row + len(chunk)
                ledger.add(key, *self._make_rows(chunk, key, first_row, is_last))
                key = key._replace(chunk=key.chunk + 1)

    def _make_rows(
        self, chunk: Sequence[Prompt | Skipped], key: ChunkKey, first_row: int, is_last: bool
    ) -> tuple[pa.Table, ChunkRecord]:
        skipped = [item for item in chunk if isinstance(item, Skipped)]
        places = [row for row, item in enumerate(chunk, first_row) if isinstance(item, Prompt)]
        prompts = [item for item in chunk if isinstance(item, Prompt)]
        rows = self.continue_prompts(prompts, [f"{key.part:06d}-{row:07d}" for row in places]) if prompts else []
        record = ChunkRecord(
            next_row=first_row + len(chunk),
            is_last=is_last,
            seconds=sum(row["prompt_seconds"] + sum(c["seconds"] for c in row["continuations"]) for row in rows),
            num_rows=len(rows),
            num_units=sum(
                text.count("<")
                for row in rows
                for text in (row["prompt"], *(c["units"] for c in row["continuations"]))
            ),
            num_frames=0,
            skipped=skipped,
        )
        return pa.Table.from_pylist(rows, schema=CANDIDATE_SCHEMA), record

    def continue_prompts(self, prompts: Sequence[Prompt], names: Sequence[str]) -> list[dict[str, Any]]:
        """Continue a batch of prompts. Returns rows of `CANDIDATE_SCHEMA`; audio gets these names."""
        from ...metrics.auto_bleu.auto_bleu import auto_bleu  # needs NLTK, which not everything here does

        processor, tokenizer = self.speak.processor, self.speak.tokenizer
        rate = processor.audio_tokenizer.sampling_rate
        if prompts[0].waveform is not None:
            inputs = processor([prompt.waveform for prompt in prompts], rate)
            heard = [prompt.waveform for prompt in prompts]
        else:
            units = [prompt.units for prompt in prompts]
            if tokenizer.has_text:
                ids = [tokenizer.encode_prompt([of_prompt]) for of_prompt in units]
                inputs = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
            else:
                inputs = tokenizer.encode_units(units, padding=True, return_tensors="pt")
            heard = processor.batch_decode(inputs["input_ids"])
        seeds = [_seed(self.seed, prompt.id) for prompt in prompts]
        samples = sample_continuations(inputs, self.speak, seeds, self.num_samples, self.options)
        exchanges = []
        for prompt, waveform, of_one in zip(prompts, heard, samples, strict=True):
            # Each prompt in a batch of its own: padding changes what some recognisers hear.
            waveforms = [*([waveform] if prompt.text is None else []), *(waveform for _, waveform in of_one)]
            texts = transcribe_waveforms(waveforms, rate, self.transcribe, len(waveforms))
            prompt_text = texts.pop(0) if prompt.text is None else prompt.text
            exchanges += [Exchange(prompt_text, text) for text in texts]
        judgements = self.judge.judge(exchanges)
        rows = []
        for index, (prompt, of_one) in enumerate(zip(prompts, samples, strict=True)):
            audio_dir = None if self.audio_dir is None else f"{self.audio_dir}/{names[index]}"
            if audio_dir is not None:
                save_audio(heard[index], rate, f"{audio_dir}/prompt.flac")
            prompt_units = tokenizer.decode_units(inputs["input_ids"][index])
            continuations = []
            for number, (units, waveform) in enumerate(of_one):
                row = index * self.num_samples + number
                if audio_dir is not None and len(waveform) > 0:  # an empty FLAC file cannot be read
                    save_audio(waveform, rate, f"{audio_dir}/{number}.flac")
                continuations.append(
                    {
                        # The last unit of the prompt may go on, as in speech that is encoded in one go.
                        "units": unit_string(units[int(len(units) > 0 and units[0] == prompt_units[-1]) :]),
                        "seconds": len(waveform) / rate,
                        "text": exchanges[row].continuation,
                        **judgements[row]._asdict(),
                        "auto_bleu": auto_bleu(exchanges[row].continuation),
                    }
                )
            rows.append(
                {
                    "id": prompt.id,
                    "prompt": unit_string(prompt_units),
                    "prompt_text": exchanges[index * self.num_samples].prompt,
                    "prompt_seconds": prompt.seconds,
                    "audio": names[index] if audio_dir else None,
                    "continuations": continuations,
                }
            )
        return rows


def _seed(seed: int, id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {id}".encode()).digest()[:7], "big")
