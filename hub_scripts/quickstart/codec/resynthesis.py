"""Speech from units with the codec's vocoder, and examples to listen to."""

from pathlib import Path

import numpy as np
import soundfile
import torch

from slam_hf import HubertUnitCodec


@torch.no_grad()
def resynthesize(codec: HubertUnitCodec, units: torch.LongTensor, predict_durations: bool) -> np.ndarray:
    """A waveform from the unit of each frame, with the original or with predicted durations."""
    if predict_durations:
        deduplicated, _ = codec.deduplicate(units)
        return codec.decode(deduplicated[None]).audio_values[0, 0].numpy()
    return codec.decode(units[None], durations=torch.ones_like(units)[None]).audio_values[0, 0].numpy()


def save_examples(folder: Path, waveforms: list[np.ndarray], transcripts: list[str]) -> None:
    """Write waveforms as WAV files, and their transcripts."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, waveform in enumerate(waveforms):
        soundfile.write(folder / f"{index}.wav", waveform, 16_000)
    (folder / "transcripts.txt").write_text("\n".join(transcripts) + "\n")
