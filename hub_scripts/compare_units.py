"""Count the frames whose unit is another one in batches, or in bfloat16, than for each clip alone in float32.

```
python hub_scripts/compare_units.py tests/fixtures/librispeech-clips slam_hf/quickstart/prompt.flac --codec my-codec
```

`--vocoded_frames` adds speech that the codec's vocoder makes of the embedded corpus, whose units must be the codec's.
"""

import argparse
from itertools import islice
from pathlib import Path

import torch
from datasets import load_dataset
from torch.nn.utils.rnn import pad_sequence

from slam_hf import HubertUnitCodec, load_audio
from slam_hf.command_line import help_options, run
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.recordings import Recording
from slam_hf.processing_speech_lm import load_codec


CLIPS_AT_ONCE = 128


def read_clips(path: Path, sampling_rate: int) -> list[torch.Tensor]:
    """The recordings of a file or a folder."""
    paths = [path]
    if path.is_dir():
        paths = [recording.audio for recording in list_audio_folder(path) if isinstance(recording, Recording)]
    return [torch.from_numpy(load_audio(path, sampling_rate)) for path in paths]


def vocode_corpus(codec: HubertUnitCodec, num_frames: int) -> list[torch.Tensor]:
    """Speech that the vocoder makes of the embedded sentences, until it has so many frames."""
    clips = []
    for row in load_dataset("quickstart:corpus", "sentences", split="train", streaming=True):
        units, durations = (torch.tensor([row[name]], device=codec.device) for name in ("units", "durations"))
        clips.append(codec.decode(units, durations).audio_values[0, 0].cpu())
        num_frames -= row["num_frames"]
        if num_frames <= 0:
            return clips
    raise ValueError(f"The embedded corpus has {num_frames:,} frames fewer: lower `--vocoded_frames`.")


def encode(codec: HubertUnitCodec, clips: list[torch.Tensor], batched: bool) -> torch.Tensor:
    """The units of all frames."""
    units, remaining = [], iter(sorted(clips, key=len))
    while chosen := list(islice(remaining, CLIPS_AT_ONCE)):
        batch, lengths = pad_sequence(chosen, batch_first=True), torch.tensor([len(clip) for clip in chosen])
        codes = codec.encode(batch, torch.arange(batch.shape[1]) < lengths[:, None], batched).audio_codes
        units.append(codes[codes >= 0].cpu())
    return torch.cat(units)


def main() -> None:
    parser = argparse.ArgumentParser(**help_options(__doc__))
    parser.add_argument("audio", nargs="*", type=Path, help="Recordings, or folders of them.")
    parser.add_argument("--codec", default="quickstart:codec", help="Default: the one that comes with the package.")
    parser.add_argument("--vocoded_frames", type=int, default=0, help="Frames of speech of the vocoder. Default: 0.")
    args = parser.parse_args()
    if not args.audio and not args.vocoded_frames:
        raise ValueError("Name recordings, or give `--vocoded_frames`.")
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    codec = load_codec(args.codec).to(device)
    in_bfloat16 = load_codec(args.codec, dtype=torch.bfloat16).to(device)
    speech = {str(path): read_clips(path, codec.sampling_rate) for path in args.audio}
    if args.vocoded_frames:
        speech["of the vocoder"] = vocode_corpus(codec, args.vocoded_frames)
    print("| speech | frames | differ in batches | in batches and bfloat16 |\n|---|---|---|---|")
    for name, clips in speech.items():
        alone = encode(codec, clips, batched=False)
        counts = [int((encode(other, clips, batched=True) != alone).sum()) for other in (codec, in_bfloat16)]
        cells = [f"{count:,} ({count / len(alone):.2%})" for count in counts]
        print(f"| {name} | {len(alone):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run(main)
