"""Count the frames whose unit changes in batches or in bfloat16, compared with each clip alone in float32.

```
python hub_scripts/compare_units.py tests/fixtures/librispeech-clips slam_hf/quickstart/prompt.flac --codec my-codec
```

`--vocoded_frames` adds speech that the codec's vocoder makes of the corpus in this package. The codec must have the
units of that corpus.
"""

from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from speed_comparisons.encode import encode_clips

from slam_hf import HubertUnitCodec, load_audio
from slam_hf.command_line import run
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.recordings import Recording
from slam_hf.option_parser import OptionParser
from slam_hf.processing_speech_lm import load_codec


def read_clips(path: Path, sampling_rate: int) -> list[torch.Tensor]:
    """The recordings of a file or a folder."""
    paths = [path]
    if path.is_dir():
        paths = [recording.audio for recording in list_audio_folder(path) if isinstance(recording, Recording)]
    return [torch.from_numpy(load_audio(path, sampling_rate)) for path in paths]


def vocode_corpus(codec: HubertUnitCodec, num_frames: int) -> list[torch.Tensor]:
    """Speech that the vocoder makes of the embedded sentences, at least `num_frames` frames of it."""
    clips = []
    for row in load_dataset("quickstart:corpus", "sentences", split="train", streaming=True):
        units, durations = (torch.tensor([row[name]], device=codec.device) for name in ("units", "durations"))
        clips.append(codec.decode(units, durations).audio_values[0, 0].cpu())
        num_frames -= row["num_frames"]
        if num_frames <= 0:
            return clips
    raise ValueError(f"The embedded corpus has {num_frames:,} frames fewer: lower `--vocoded_frames`.")


def main() -> None:
    parser = OptionParser(doc=__doc__)
    parser.add_argument("audio", nargs="*", type=Path, help="Recordings, or folders of them.")
    parser.add_argument("--codec", default="quickstart:codec", help="Default: the one that comes with the package.")
    parser.add_argument("--vocoded_frames", type=int, default=0, help="Frames of vocoder speech to add. Default: 0.")
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
        alone = np.concatenate(encode_clips(codec, batched=False, clips=clips))
        batched = [np.concatenate(encode_clips(other, batched=True, clips=clips)) for other in (codec, in_bfloat16)]
        counts = [int((units != alone).sum()) for units in batched]
        cells = [f"{count:,} ({count / len(alone):.2%})" for count in counts]
        print(f"| {name} | {len(alone):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run(main)
