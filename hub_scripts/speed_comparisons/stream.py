"""Streaming: seconds from the call to the first sound of a continuation, and to its end.

The baseline is the plain call of the pipeline, which vocodes when all units are generated. The prompt is encoded in
each of them. Its audio is left out: with it, the first sound of a stream comes before anything is generated.
"""

from functools import partial
from statistics import median

import torch

from slam_hf import AudioToAudioPipeline, HubertUnitCodec, HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.configuration_hubert_unit_codec import make_feature_extractor
from slam_hf.quickstart import resolve_path

from .train import make_model
from .turns import Comparison, describe_device, take_turns


NEW_TOKENS = 250
"""About ten seconds."""


def compare(size: str, rounds: int, seed: int, device: torch.device) -> Comparison:
    codec = HubertUnitCodec.from_pretrained("quickstart:codec")
    processor = SpeechLMProcessor(make_feature_extractor(), HubertUnitTokenizer(codec.codebook_size), codec)
    model = make_model(size).eval()
    speak = AudioToAudioPipeline(model=model, processor=processor, device=device)
    continue_prompt = partial(
        speak,
        resolve_path("quickstart:prompt.flac"),
        prompt_duration=3.0,
        return_full_audio=False,
        seed=seed,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
    )
    whole = continue_prompt()
    seconds = len(whole["audio"]) / whole["sampling_rate"]

    def stream(num_chunks: int | None) -> float:
        for number, _ in enumerate(continue_prompt(stream=True), start=1):
            if number == num_chunks:
                break
        return 1.0

    ways = {
        "plain call": lambda: float(len(continue_prompt()["audio"]) > 0),
        "stream, first sound": partial(stream, 1),
        "stream, whole": partial(stream, None),
    }
    turns = take_turns(ways, rounds)
    notes = {
        name: {way: f"{median(getattr(turn, clock) for turn in turns[way]):.2f} s" for way in ways}
        for name, clock in (("time", "seconds"), ("processor time", "processor_seconds"))
    }
    title = f"Streaming: {seconds:.1f} s of speech, {model.num_parameters() / 1e6:.0f}M parameters"
    return Comparison(f"{title}, on {describe_device(device)}", "calls/s", "plain call", turns, notes=notes)
