"""Generation: new units per second of a batch of prompts, greedily.

The baseline is `generate()` with its default, growing cache. A static cache lets transformers compile the step of
decoding on a GPU. Both give the same units, which is checked.
"""

from functools import partial

import torch

from .train import make_model
from .turns import Comparison, describe_device, take_turns


BATCH_SIZE = {"small": 8, "full": 64}
NEW_TOKENS = {"small": 32, "full": 150}
PROMPT_LENGTH = 60


def compare(size: str, rounds: int, seed: int, device: torch.device) -> Comparison:
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    model = make_model(size).to(device, dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(2, model.config.vocab_size, (BATCH_SIZE[size], PROMPT_LENGTH), generator=generator)
    prompts = prompts.to(device)
    results: dict[str, torch.Tensor] = {}

    def generate(way: str, **options: str) -> float:
        count = NEW_TOKENS[size]
        tokens = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), min_new_tokens=count, max_new_tokens=count, **options
        )
        results[way] = tokens.cpu()
        return BATCH_SIZE[size] * count

    ways = {
        "dynamic cache": partial(generate, "dynamic cache"),
        "static cache": partial(generate, "static cache", cache_implementation="static"),
    }
    turns = take_turns(ways, rounds)
    equal = {way: f"{(tokens == results['dynamic cache']).float().mean():.1%}" for way, tokens in results.items()}
    title = f"Generation: {BATCH_SIZE[size]} prompts, {model.num_parameters() / 1e6:.0f}M parameters, {dtype}"
    return Comparison(
        f"{title}, on {describe_device(device)}", "units/s", "dynamic cache", turns, notes={"same units": equal}
    )
