"""Recordings for "Your own language and voice" in hub_scripts/README.md: four voices of espeak-ng tell short Italian
stories, and two of them tell each story. All recordings together last twenty minutes.

python hub_scripts/quickstart/italian.py italian

It needs espeak-ng (`apt-get install espeak-ng`) and takes seconds. `italian/manifest.jsonl` has the text and the
speaker of each recording.
"""

import argparse
import itertools
import json
import random
import shutil
import subprocess
from pathlib import Path


NUM_STORIES = 50

VOICES = {
    "anna": ("it+f2", 55, 150),
    "bruno": ("it+m3", 40, 145),
    "carla": ("it+f4", 70, 165),
    "dario": ("it+m7", 30, 135),
}
"""espeak-ng's voice, pitch (0 to 99) and words a minute of each speaker."""

HEROES = ("Giulia", "Marco", "Elena", "Paolo", "Sofia", "Luca", "Chiara", "Matteo", "Teresa", "Andrea")
FRIENDS = ("suo fratello", "sua sorella", "la nonna", "un'amica", "il cane", "lo zio", "due compagni", "la maestra")
ENDINGS = (
    "La sera torna a casa e racconta tutto.",
    "Poi comincia a piovere, e tutti corrono via.",
    "Alla fine ride e canta una canzone.",
    "Quando fa buio, vuole restare ancora un poco.",
)
PLACES = {
    "al mare": (
        ("una barca bianca", "una conchiglia rosa", "un granchio", "un gabbiano"),
        ("nuota fra le onde", "costruisce un castello di sabbia", "pesca dal molo"),
    ),
    "nel bosco": (
        ("una volpe", "un fungo enorme", "una quercia antica", "uno scoiattolo"),
        ("raccoglie le castagne", "segue un sentiero", "ascolta gli uccelli"),
    ),
    "al mercato": (
        ("una cesta di mele", "un banco di formaggi", "tre meloni maturi", "un mazzo di fiori"),
        ("compra il pane", "assaggia l'uva", "cerca un regalo"),
    ),
    "in montagna": (
        ("una cascata", "un'aquila", "un rifugio di pietra", "la prima neve"),
        ("sale fino alla cima", "beve l'acqua fredda", "accende un fuoco"),
    ),
    "in fattoria": (
        ("un asino", "sette galline", "una mucca con il vitello", "il vecchio trattore"),
        ("porta il fieno", "raccoglie le uova", "munge le capre"),
    ),
}
"""What one sees at a place, and what one does there."""


def tell_story(rng: random.Random) -> str:
    place = rng.choice(list(PLACES))
    things, actions = PLACES[place]
    (first, second), (action, next_action) = rng.sample(things, 2), rng.sample(actions, 2)
    start = f"{rng.choice(HEROES)} va {place} con {rng.choice(FRIENDS)}. Vede {first} e {second}. "
    return start + f"Prima {action}, dopo {next_action}. {rng.choice(ENDINGS)}"


def record(folder: Path) -> None:
    """Write the recordings and the manifest."""
    rng = random.Random(0)
    pairs = list(itertools.combinations(VOICES, 2))
    rows = []
    for number in range(NUM_STORIES):
        story = tell_story(rng)
        for speaker in pairs[number % len(pairs)]:
            voice, pitch, speed = VOICES[speaker]
            path = Path(speaker, f"{number:03d}.wav")
            (folder / speaker).mkdir(parents=True, exist_ok=True)
            command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "-w", folder / path, story]
            subprocess.run(command, check=True)
            rows.append({"path": str(path), "id": str(path.with_suffix("")), "text": story, "speaker": speaker})
    rng.shuffle(rows)  # any part of the corpus has all voices then
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Folder for the recordings (50 MB).")
    args = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        raise SystemExit("Error: espeak-ng is missing: apt-get install espeak-ng.")
    record(args.folder)


if __name__ == "__main__":
    main()
