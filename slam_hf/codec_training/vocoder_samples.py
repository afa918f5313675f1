"""What a vocoder in training makes of held-out recordings: measures, audio and pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from accelerate import Accelerator
from torchaudio.functional import edit_distance
from transformers import AutomaticSpeechRecognitionPipeline
from transformers.models.whisper.english_normalizer import BasicTextNormalizer
from transformers.utils import is_matplotlib_available

from ..judging.transcription import transcribe_waveforms
from ..modeling_hubert_unit_codec import HubertUnitCodec
from .vocoder_losses import LogMel
from .voice_recordings import Voice, VoiceRecordings


MAX_FRAMES_SECONDS = 10.0
"""Seconds of a held-out recording that are resynthesised."""


@torch.no_grad()
def resynthesize(codec: HubertUnitCodec, voice: Voice, predict_durations: bool = False) -> np.ndarray:
    """A recording, at most its first ten seconds, from its units, with its own or with predicted durations. A voice
    without a name in the vocoder is its first one."""
    units = torch.from_numpy(voice.units[0].astype(np.int64))[: round(MAX_FRAMES_SECONDS * codec.frame_rate)]
    durations = torch.ones_like(units)
    if predict_durations:
        units, durations = codec.deduplicate(units)[0], None
    names = codec.config.vocoder_config
    speaker = voice.speaker if voice.speaker in (names.speaker_names or ()) else None
    style = voice.style if voice.style in (names.style_names or ()) else None
    decoded = codec.decode(units[None], None if durations is None else durations[None], speaker, style)
    return decoded.audio_values[0, 0].float().cpu().numpy()


@torch.no_grad()
def measure_resynthesis(
    codec: HubertUnitCodec,
    recordings: VoiceRecordings,
    held_out: Sequence[int],
    log_mel: LogMel,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Means over held-out recordings, divided among the processes: `eval_mel_loss`, the mel loss of the resynthesis
    with the true durations, and `eval_duration_error`, in frames a unit, if the vocoder predicts them."""
    sums = torch.zeros(4, dtype=torch.float64)
    for index in held_out[accelerator.process_index :: accelerator.num_processes]:
        voice = recordings[index]
        made = torch.from_numpy(resynthesize(codec, voice))[None].to(accelerator.device)
        real = torch.from_numpy(voice.waveform(0, made.shape[1]))[None].to(accelerator.device)
        sums[:2] += torch.tensor([torch.nn.functional.l1_loss(log_mel(made), log_mel(real)).item(), 1])
        if codec.vocoder.duration_predictor is not None:
            runs, durations = codec.deduplicate(torch.from_numpy(voice.units[0].astype(np.int64)))
            predicted = codec.vocoder.predict_durations(runs[None].to(accelerator.device))[0].cpu()
            sums[2:] += torch.tensor([(predicted - durations).abs().sum().item(), len(runs)])
    sums = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
    figures = {"eval_mel_loss": sums[0] / sums[1]}
    return figures | ({"eval_duration_error": sums[2] / sums[3]} if sums[3] else {})


def save_samples(
    folder: Path,
    step: int,
    codec: HubertUnitCodec,
    recordings: VoiceRecordings,
    held_out: Sequence[int],
    count: int,
    log_mel: LogMel,
) -> None:
    """Write held-out recordings, of different speakers first, as `{number}-original.flac`, what the vocoder makes of
    their units as `{step}/{number}.flac` and with predicted durations as `{number}-durations.flac`, and a picture of
    the mel spectrograms."""
    seen: dict[str | None, int] = {}
    ranks = []
    for index in held_out:
        seen[recordings.speakers[index]] = seen.get(recordings.speakers[index], 0) + 1
        ranks.append((seen[recordings.speakers[index]], index))
    step_folder = folder / f"step-{step:09d}"
    step_folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, (_, index) in enumerate(sorted(ranks)[:count]):
        voice = recordings[index]
        made = resynthesize(codec, voice)
        original = voice.waveform(0, len(made))
        soundfile.write(folder / f"{number}-original.flac", original, codec.sampling_rate)
        soundfile.write(step_folder / f"{number}.flac", made, codec.sampling_rate)
        if codec.vocoder.duration_predictor is not None:
            predicted = resynthesize(codec, voice, predict_durations=True)
            soundfile.write(step_folder / f"{number}-durations.flac", predicted, codec.sampling_rate)
        label = ", ".join(filter(None, (voice.speaker, voice.style))) or voice.id
        pictures += [(f"{label}: recording", original), (f"{label}: step {step:,}", made)]
    if pictures and is_matplotlib_available():
        _plot_mels(pictures[:4], log_mel, codec.sampling_rate, step_folder / "mels.png")


def _plot_mels(pictures: Sequence[tuple[str, np.ndarray]], log_mel: LogMel, sampling_rate: int, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2 * len(pictures)), layout="constrained")
    for axes, (title, waveform) in zip(figure.subplots(len(pictures), squeeze=False)[:, 0], pictures, strict=True):
        mel = log_mel(torch.from_numpy(waveform)[None].to(log_mel.bands.device))[0].cpu().numpy()
        seconds = len(waveform) / sampling_rate
        axes.imshow(mel, origin="lower", aspect="auto", extent=(0, seconds, 0, len(mel)), vmin=-9, vmax=2)
        axes.set(title=title, ylabel="mel band")
    axes.set_xlabel("seconds")
    figure.savefig(path, dpi=80)


def word_error_rates(
    codec: HubertUnitCodec,
    recordings: VoiceRecordings,
    held_out: Sequence[int],
    recogniser: AutomaticSpeechRecognitionPipeline,
    batch_size: int = 8,
) -> dict[str, float]:
    r"""
    Word error rates, from 0, of what a recogniser hears in held-out recordings and in their resynthesis, at most the
    first ten seconds of each. The reference is the text of a recording, if it is complete, and else what is heard in
    the recording itself. Case and punctuation do not count.

    Returns:
        `dict`: `resynthesis`, and `predicted durations` if the vocoder predicts them; and `recordings`, if all of them
        have a text.
    """
    voices, rate, normalize = [recordings[index] for index in held_out], codec.sampling_rate, BasicTextNormalizer()
    limit = round(MAX_FRAMES_SECONDS * rate)
    versions = {
        "recordings": [voice.waveform(0, limit) for voice in voices],
        "resynthesis": [resynthesize(codec, voice) for voice in voices],
    }
    if codec.vocoder.duration_predictor is not None:
        versions["predicted durations"] = [resynthesize(codec, voice, predict_durations=True) for voice in voices]
    heard = {
        version: [normalize(text) for text in transcribe_waveforms(waveforms, rate, recogniser, batch_size)]
        for version, waveforms in versions.items()
    }
    has_texts = all(voice.text and len(voice.samples) <= limit for voice in voices)
    references = [normalize(voice.text) for voice in voices] if has_texts else heard.pop("recordings")
    spoken = [row for row, reference in enumerate(references) if reference.strip()]
    if not spoken:
        return {}
    num_words = sum(len(references[row].split()) for row in spoken)
    return {
        version: sum(edit_distance(references[row].split(), texts[row].split()) for row in spoken) / num_words
        for version, texts in heard.items()
    }
