"""Render the card of a model from the record of its training and from its evaluations.

```
python hub_scripts/model_card.py outputs/quickstart --repo_id me/quickstart
```

With recordings that the model was not trained on, it first makes samples, which the card plays:

```
python hub_scripts/model_card.py outputs/quickstart --recordings recording.flac --seeds 0 1 2
```

Or render the cards of published models from a file with the results of their paper:

```
python hub_scripts/model_card.py model_cards/slam_family.yaml --output model_cards
```
"""

import shutil
from pathlib import Path

from transformers import pipeline

from slam_hf.command_line import run
from slam_hf.hub.model_card import CURVE, describe_published, make_model_card, render_model_card
from slam_hf.hub.repository_files import read_license
from slam_hf.hub.samples import save_samples
from slam_hf.loading_utils import naming_damaged_files
from slam_hf.option_parser import OptionParser


def main() -> None:
    parser = OptionParser(doc=__doc__)
    parser.add_argument("model", type=Path, help="Folder of the model, or a YAML file that describes published ones.")
    parser.add_argument(
        "--repo_id", help="Repository that the model is published to. Default: the name of the folder."
    )
    parser.add_argument(
        "--evaluations",
        nargs="*",
        help="Summaries of evaluations, or folders with them. Default: those in `evaluation` of the model's folder.",
    )
    parser.add_argument("--license", help="Licence of the model, such as mit. Default: that of its card so far.")
    parser.add_argument("--recordings", nargs="+", default=[], help="Recordings to continue on the card.")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1], help="Seeds of the continuations. Default: 0 1."
    )
    parser.add_argument("--codec", help="The codec for the samples. Default: the one that the model names.")
    parser.add_argument(
        "--output", type=Path, help="File of the card, or folder of the cards. Default: in the folder of the model."
    )
    args = parser.parse_args()
    if args.model.suffix == ".yaml":
        folder = args.output or args.model.parent
        for name, description in describe_published(args.model).items():
            make_model_card(description).save(folder / f"{name}.md")
            print(f"Written: {folder / f'{name}.md'}")
        return
    path = args.output or args.model / "README.md"
    if args.recordings:
        with naming_damaged_files(args.model):
            speak = pipeline("audio-to-audio", model=str(args.model), codec=args.codec)
        save_samples(args.model, speak, args.recordings, args.seeds)
    license = args.license or read_license(args.model)
    render_model_card(args.model, args.repo_id, args.evaluations, license).save(path)
    curve = args.model / CURVE
    if curve.is_file() and path.parent.resolve() != args.model.resolve():
        shutil.copy(curve, path.parent)
    print(f"Written: {path}")


if __name__ == "__main__":
    run(main)
