r"""Train the vocoder of a codec on recordings of one or many speakers: a unit HiFi-GAN with predicted durations.

```
python hub_scripts/train_vocoder.py --config hub_scripts/recipes/vocoder.yaml \
    --source LJSpeech-1.1/wavs --codec path/to/codec --output_dir my-codec
accelerate launch --multi_gpu --num_processes 8 hub_scripts/train_vocoder.py \
    --config hub_scripts/recipes/vocoder.yaml --per_device_train_batch_size 2 --codec path/to/codec \
    --source LibriSpeech/train-clean-100 --layout librispeech --speaker_column folder --output_dir my-codec
```

The result is the codec with its new vocoder. During the training, `samples/step-*` gets resynthesised held-out
recordings and their mel spectrograms. Start it again with the same command to continue after an interruption. The
learning rates, the length, and how often it logs and saves may then change. So may the number of processes, if the
batch stays the same: half the processes need twice the `per_device_train_batch_size`.
"""

import re
import shutil
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import datasets
import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from slam_hf.codec_training.augmentation import Augmentation
from slam_hf.codec_training.vocoder_arguments import VocoderArguments
from slam_hf.codec_training.vocoder_initialization import adapt_vocoder, load_vocoder, new_vocoder
from slam_hf.codec_training.vocoder_record import save_vocoder_record
from slam_hf.codec_training.vocoder_samples import word_error_rates
from slam_hf.codec_training.vocoder_trainer import describe_plan, train_vocoder
from slam_hf.codec_training.voice_crops import VoiceCrops, hold_out
from slam_hf.codec_training.voice_recordings import check_voices, list_voices, prepare_recordings
from slam_hf.command_line import parse_arguments, run
from slam_hf.encoding.codec_identity import describe_codec
from slam_hf.encoding.job_state import check_unclaimed, claim_folder
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.segmentation import Segmentation
from slam_hf.encoding.source_arguments import VoiceSourceArguments
from slam_hf.folder_lock import lock_folder
from slam_hf.hub.codec_card import render_codec_card
from slam_hf.hub.repository_files import CODEBOOK
from slam_hf.judging.transcription import load_recogniser
from slam_hf.loading_utils import find_file
from slam_hf.processes import LONGEST_WAIT
from slam_hf.processing_speech_lm import load_codec
from slam_hf.remote_files import local_path


# fmt: off
CHANGEABLE = (
    "asr_model", "eval_steps", "final_learning_rate", "learning_rate", "logging_steps", "max_grad_norm", "max_steps",
    "max_train_hours", "num_samples", "num_workers", "output_dir", "save_steps", "use_cpu",
)
# fmt: on
"""Arguments that may change when a training is continued."""


def train(source_args: VoiceSourceArguments, args: VocoderArguments, accelerator: Accelerator) -> None:
    folder, state = Path(args.output_dir), accelerator.state
    codec = load_codec(args.codec, args.codec_revision).to(accelerator.device)
    recogniser = (
        load_recogniser(args.asr_model, accelerator.device) if args.asr_model and state.is_main_process else None
    )
    earlier = of_codec = None
    if args.init_from is not None:
        earlier, of_codec = load_vocoder(args.init_from, args.init_config, codec)
    else:
        new_vocoder(codec, args.vocoder_config or {}, [], [], args.seed)  # an error is raised before the long work
    if state.is_main_process:
        settings = {name: value for name, value in asdict(args).items() if name not in CHANGEABLE}
        # The order of the crops does not depend on the number of processes.
        settings["batch_size"] = settings.pop("per_device_train_batch_size") * accelerator.num_processes
        settings["codec"] = describe_codec(codec).weights
        check_unclaimed(folder, "training", ("config.json", "README.md"))
        claim_folder(folder / "training", settings, "the training of a vocoder")

    rules = PieceRules(Segmentation(max_seconds=args.max_seconds))
    versions = tuple(map(Augmentation, range(1, args.num_augmentations + 1)))
    recordings = prepare_recordings(
        folder / "recordings" / "train", source_args, codec, rules, state, versions, args.num_workers
    )
    if args.validation_source is None:
        validation = recordings
        indices, held_out = hold_out(recordings, args.validation_share, args.max_validation)
    else:
        validation_args = replace(source_args, source=args.validation_source)
        validation = prepare_recordings(
            folder / "recordings" / "validation", validation_args, codec, rules, state, num_workers=args.num_workers
        )
        indices, held_out = range(len(recordings)), range(min(len(validation), args.max_validation))
    crop_frames = max(1, round(args.crop_seconds * codec.frame_rate))
    speakers, styles = list_voices(recordings, indices)
    check_voices(validation, held_out, speakers, styles)
    crops = VoiceCrops(recordings, indices, crop_frames, codec.config.hop_length, args.seed, speakers, styles)
    if earlier is None:
        vocoder = new_vocoder(codec, args.vocoder_config or {}, speakers, styles, args.seed)
    else:
        torch.manual_seed(args.seed)
        vocoder = adapt_vocoder(earlier, codec, of_codec, recordings, speakers, styles)
    accelerator.print(describe_plan(args, accelerator, vocoder, crops, held_out))

    trained, progress = train_vocoder(args, accelerator, codec, vocoder, crops, validation, held_out)
    if state.is_main_process:
        trained.save_pretrained(folder)
        if measures := find_file(args.codec, CODEBOOK, args.codec_revision):  # for the card
            shutil.copyfile(measures, folder / CODEBOOK)
        rates = {} if recogniser is None else word_error_rates(trained, validation, held_out, recogniser)
        save_vocoder_record(args, source_args, accelerator, crops, progress, rates)
        name = re.sub(r"[^A-Za-z0-9_]+", "-", folder.resolve().name).strip("-")[:96] or "codec"
        render_codec_card(folder, name).save(folder / "README.md")
        for version, rate in rates.items():
            print(f"Word error rate, {version}: {rate:.1%}.")
        print(f"Codec, samples and card: {folder}")
    accelerator.end_training()


def main(source_args: VoiceSourceArguments, args: VocoderArguments) -> None:
    if local_path(args.output_dir) is None:
        raise ValueError(f"`output_dir` must be a folder of this machine, not '{args.output_dir}'.")
    if source_args.layout == "preference_pairs":
        raise ValueError("Preference pairs are not recordings to train a vocoder on: take another layout.")
    datasets.disable_progress_bars()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        cpu=args.use_cpu or not torch.accelerator.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )
    with lock_folder(args.output_dir) if accelerator.is_main_process else nullcontext():
        train(source_args, args, accelerator)


if __name__ == "__main__":
    run(
        lambda: main(*parse_arguments(__doc__, (VoiceSourceArguments, VocoderArguments), recipes=True)),
        hint="Start the same command again to continue.",
    )
