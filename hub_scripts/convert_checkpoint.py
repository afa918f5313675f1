r"""Convert a published checkpoint to a complete folder: safetensors, tokenizer, processor, remote code and card.

```
python hub_scripts/convert_checkpoint.py --source slprl/slam --codec user/my-codec --output_dir slam
python hub_scripts/convert_checkpoint.py \
    --hubert slprl/mhubert-base-25hz --layer 11 --kmeans mhubert_base_25hz_cp_mls_cv_sp_fisher_L11_km500.bin \
    --vocoder hifigan_lj_mhubert_base_25hz.pt --vocoder_config hifigan_lj_mhubert_base_25hz_config.json \
    --output_dir my-codec
python hub_scripts/convert_checkpoint.py --source outputs/quickstart --to_text_lm --output_dir text-lm
```

With `--to_text_lm`, it writes the plain causal LM (`Qwen2ForCausalLM`, ...) with a plain tokenizer. Both load without
this package, and engines such as vLLM serve them.

Supported models are those in the format of `slprl/slam` and `slprl/SIMS-7B`, including incomplete ones of this
package and checkpoints in shards, as FSDP writes them; those of TWIST (OPT and Llama checkpoints with an `offset` in
`config.json`; unpack the zip first); `tiagoCuervo/gslm-scaling-*` (`"model_type": "slm"`); and those of SpiritLM (a
Llama whose tokenizer holds `[Hu0]`, ...). No pickle is executed.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, snapshot_download
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.hf_argparser import HfArg

from slam_hf import HubertUnitCodec, HubertUnitTokenizer, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.checkpoint_files import weight_files
from slam_hf.command_line import parse_arguments, run
from slam_hf.configuration_hubert_unit_codec import make_feature_extractor
from slam_hf.conversion import read_hifigan
from slam_hf.conversion.gslm_scaling import read_gslm_scaling
from slam_hf.conversion.spiritlm import read_spiritlm
from slam_hf.conversion.text_lm import save_text_lm
from slam_hf.conversion.twist import read_twist
from slam_hf.hub.codec_card import render_codec_card
from slam_hf.hub.codec_reference import pin_codec
from slam_hf.hub.model_card import render_model_card
from slam_hf.hub.remote_code import export_remote_code
from slam_hf.loading_utils import naming_damaged_files, read_json
from slam_hf.processing_speech_lm import check_codec, load_codec
from slam_hf.quickstart import resolve_path
from slam_hf.sharded_checkpoints import is_sharded, load_sharded_model


NEEDED_FILES = ["config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"]
TOKENIZER_FILES = ["tokenizer.json", "tokenizer.model"]
NEEDED_FILES += [*TOKENIZER_FILES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]


@dataclass
class ConversionArguments:
    output_dir: str = HfArg(help="Folder to write. It must not exist.")
    source: str | None = HfArg(default=None, help="Folder or Hub repository of a model.")
    revision: str | None = HfArg(default=None, help="Revision of that repository.")
    codec: str | None = HfArg(
        default=None, help="The model's codec: `user/codec`, `user/codec@revision`, or a folder."
    )
    to_text_lm: bool = HfArg(default=False, help="Write the plain causal LM, which loads without this package.")
    text_tokenizer: str | None = HfArg(
        default=None, help="Text tokenizer of a model of text and speech. Default: the one that its config.json names."
    )
    num_units: int | None = HfArg(
        default=None, help="Number of units of a TWIST model. Default: all ids from its offset on."
    )
    hubert: str | None = HfArg(
        default=None,
        help="Folder or Hub repository of a HuBERT or another encoder, to make a codec instead of a model.",
    )
    hubert_revision: str = HfArg(default="main", help="Revision of that repository.")
    layer: int | None = HfArg(
        default=None, help="Layer of the encoder that the k-means was fitted on, counted from 1."
    )
    do_normalize: bool | None = HfArg(
        default=None,
        help="Whether the k-means was fitted on clips of mean 0 and variance 1. Default: what the encoder's "
        "preprocessor_config.json says, but False for a HuBERT.",
    )
    kmeans: str | None = HfArg(default=None, help="File with a scikit-learn KMeans.")
    vocoder: str | None = HfArg(default=None, help="File with a unit HiFi-GAN, if there is one.")
    vocoder_config: str | None = HfArg(default=None, help="JSON configuration of the unit HiFi-GAN.")
    vocoder_speakers: str | None = HfArg(default=None, help="Text file with its speakers, one a line.")
    vocoder_styles: str | None = HfArg(default=None, help="Text file with its styles, one a line.")
    repo_id: str | None = HfArg(default=None, help="Repository name for the card. Default: the name of the folder.")
    license: str | None = HfArg(default=None, help="Licence for the card, as an identifier of the Hub, such as mit.")

    def __post_init__(self):
        if (self.source is None) == (self.hubert is None):
            raise ValueError("Name either `--source`, a model, or `--hubert`, the first part of a codec.")
        if self.hubert is not None and (self.layer is None or self.kmeans is None):
            raise ValueError("A codec needs `--hubert`, `--layer` and `--kmeans`.")
        if self.to_text_lm and self.source is None:
            raise ValueError("`--to_text_lm` needs `--source`, a model.")


def convert_model(args: ConversionArguments, folder: Path, repo_id: str) -> ModelCard:
    model, tokenizer = read_model(args)
    codec = None
    if args.codec is not None and os.path.isdir(resolve_path(args.codec)):
        codec = load_codec(args.codec)
        check_codec(codec, tokenizer.num_units)
    model.save_pretrained(folder)
    feature_extractor = make_feature_extractor(16_000 if codec is None else codec.sampling_rate)
    SpeechLMProcessor(feature_extractor, tokenizer, codec).save_pretrained(folder)
    if args.codec is not None and codec is None:
        pin_codec(folder, args.codec)
    export_remote_code(folder)
    return render_model_card(folder, repo_id, license=args.license)


def read_model(args: ConversionArguments) -> tuple[SpeechLMForCausalLM, PreTrainedTokenizerBase]:
    """Read a model and its tokenizer. If it has none, make the one that its training sequences were made with."""
    folder = Path(resolve_path(args.source))
    if not folder.is_dir():
        with naming_damaged_files(args.source):
            folder = Path(snapshot_download(args.source, revision=args.revision, allow_patterns=NEEDED_FILES))
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"'{folder}' lacks config.json.")
    config = read_json(folder / "config.json")
    if config.get("model_type") == "speech_language_model":
        if is_sharded(folder):
            model = load_sharded_model(folder)
        else:
            weight_files(folder)
            model = SpeechLMForCausalLM.from_pretrained(folder, dtype="auto")
        options = {} if args.text_tokenizer is None else {"text_tokenizer": args.text_tokenizer}
        return model, AutoTokenizer.from_pretrained(folder, **options)
    if config.get("model_type") == "slm":
        model = read_gslm_scaling(folder)
        return model, HubertUnitTokenizer(model.config.num_units)
    if "offset" in config:
        model = read_twist(folder, args.num_units)
        # Its sequences start with a unit.
        return model, HubertUnitTokenizer(model.config.num_units, add_bos_token=False)
    if config.get("model_type") == "llama" and any(map(os.path.isfile, map(folder.joinpath, TOKENIZER_FILES))):
        return read_spiritlm(folder)
    raise ValueError(
        f"'{folder}' holds a model of type {config.get('model_type')!r}: expected the format of `slprl/slam`, of "
        "TWIST (with an `offset` in config.json), of `gslm-scaling`, or of SpiritLM (a Llama with its tokenizer)."
    )


def convert_codec(args: ConversionArguments, folder: Path, repo_id: str) -> ModelCard:
    vocoder = args.vocoder
    if vocoder is not None and args.vocoder_config is not None:
        vocoder = read_hifigan(vocoder, args.vocoder_config, args.vocoder_speakers, args.vocoder_styles)
    codec = HubertUnitCodec.from_parts(
        hubert=args.hubert,
        kmeans=args.kmeans,
        layer=args.layer,
        vocoder=vocoder,
        vocoder_config=args.vocoder_config,
        hubert_revision=args.hubert_revision,
        do_normalize=args.do_normalize,
    )
    codec.save_pretrained(folder)
    export_remote_code(folder)
    return render_codec_card(folder, repo_id, license=args.license)


def write_folder(output: Path, write: Callable[[Path], None]) -> None:
    """Write a folder completely or not at all."""
    if output.exists():
        raise FileExistsError(f"'{output}' exists: remove it, or name another folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        folder = Path(scratch) / output.name
        folder.mkdir()
        write(folder)
        os.rename(folder, output)


def main(args: ConversionArguments) -> None:
    output = Path(os.path.abspath(args.output_dir))

    def write(folder: Path) -> None:
        if args.to_text_lm:
            save_text_lm(*read_model(args), folder)
            return
        convert = convert_codec if args.source is None else convert_model
        convert(args, folder, args.repo_id or output.name).save(folder / "README.md")

    write_folder(output, write)
    print(f"Written: {output}")


if __name__ == "__main__":
    run(lambda: main(*parse_arguments(__doc__, [ConversionArguments])))
