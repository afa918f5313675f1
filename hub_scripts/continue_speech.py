"""Continue recordings with a speech language model.

```
python hub_scripts/continue_speech.py recording.wav -o continuation.wav
python hub_scripts/continue_speech.py recordings/*.flac -o continuations --model slprl/slam_scaled --prompt_duration 3
```

The output begins with the recording, resynthesised by the model's codec. The default model comes with the package and
needs no network. An existing output file is replaced, but never one of the recordings.
"""

import io
import sys
from collections import Counter
from pathlib import Path

import soundfile
from transformers import pipeline

from slam_hf.atomic_write import atomic_write
from slam_hf.auto import DEFAULT_MODEL
from slam_hf.command_line import run
from slam_hf.loading_utils import naming_damaged_files
from slam_hf.option_parser import OptionParser
from slam_hf.quickstart import resolve_path


def output_paths(recordings: list[str], output: str) -> list[Path]:
    """
    The file for each recording: `output` itself for a single one, unless that is a folder or ends like one. In a
    folder, a continuation is a WAV file with the name of its recording.

    Raises:
        ValueError: `output` is a file and there are several recordings, its suffix is not one of an audio format, two
            recordings have the same name, or a recording would be replaced.
    """
    folder = Path(output)
    if folder.is_dir() or output.endswith("/") or len(recordings) > 1:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"'{output}' is not a folder, which several recordings need.")
        paths = [folder / f"{Path(recording).stem}.wav" for recording in recordings]
    else:
        paths = [folder]
        if not soundfile.check_format(audio_format(folder)):
            raise ValueError(f"'{output}': name a file such as .wav, .flac, .ogg or .mp3, or a folder.")
    path, count = Counter(paths).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} recordings would be continued in '{path}': give them different names.")
    read = {Path(recording).resolve() for recording in recordings}
    for path in paths:
        if path.resolve() in read:
            raise ValueError(f"'{path}' is one of the recordings: name another output.")
    return paths


def audio_format(path: Path) -> str:
    return path.suffix.removeprefix(".").upper()


def voice(text: str) -> int | str:
    """A speaker or a style, by its number or its name."""
    return int(text) if text.isdecimal() else text


def main() -> None:
    parser = OptionParser(doc=__doc__)
    parser.add_argument("recordings", nargs="+", help="Recordings to continue: paths or URLs.")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help="Audio file, in the format of its suffix; a folder for several recordings.",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="A Hub id or a folder.")
    parser.add_argument("--codec", help="The model's codec, a Hub id or a folder. Default: the one that it names.")
    parser.add_argument(
        "--prompt_duration", type=float, help="Seconds of the recording to continue from. Default: all."
    )
    parser.add_argument("--max_new_tokens", type=int, help="Maximum number of units to add. Default: 150.")
    parser.add_argument("--temperature", type=float, help="Sampling temperature. Default: 0.8.")
    parser.add_argument("--seed", type=int, help="Seed of the sampling. Default: a new one each time.")
    parser.add_argument("--speaker_id", type=voice, help="A speaker of the codec: a number, or a name on its card.")
    parser.add_argument("--style_id", type=voice, help="A style of the codec: a number, or a name on its card.")
    parser.add_argument("--only_new", action="store_true", help="Leave the recording out of the output.")
    args = parser.parse_args()
    paths = output_paths(args.recordings, args.output)
    with naming_damaged_files(args.model):
        speak = pipeline("audio-to-audio", model=args.model, codec=args.codec)
    names = ("prompt_duration", "max_new_tokens", "temperature", "seed", "speaker_id", "style_id")
    options = {name: value for name in names if (value := getattr(args, name)) is not None}
    failed = False
    for recording, path in zip(args.recordings, paths, strict=True):
        try:
            result = speak(resolve_path(recording), return_full_audio=not args.only_new, **options)
        except (OSError, ValueError) as error:
            print(f"Error: {error}", file=sys.stderr)
            failed = True
            continue
        audio, rate = result["audio"], result["sampling_rate"]
        file = io.BytesIO()
        soundfile.write(file, audio, rate, format=audio_format(path))
        atomic_write(path, file.getvalue())
        print(
            f"{path}: {len(audio) / rate:.1f} s, {len(result['units'])} units after {len(result['prompt_units'])} of "
            f"{recording}",
            flush=True,
        )
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
