"""Generation: new units per second of a batch of prompts, greedily.

The baseline is `generate()` with its default, growing cache. With a static cache, which the pipeline has for batches
on a GPU, transformers compiles the steps of decoding there. The table says how many units are those of the baseline:
in bfloat16, rounding changes what follows two nearly equal units.
"""

from collections.abc import Callable
from functools import partial

import torch

from slam_hf import SpeechLMForCausalLM
from slam_hf.pipeline_audio_to_audio import CACHE_STEP

from .train import make_model
from .turns import Comparison, describe_device, matmul_flops, take_turns


BATCH_SIZE = {"small": 8, "full": 64}
NEW_TOKENS = {"small": 32, "full": 150}
PROMPT_LENGTH = 60


def compare(size: str, rounds: int, seed: int, device: torch.device) -> Comparison:
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    model = make_model(size).to(device, dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(2, model.config.vocab_size, (BATCH_SIZE[size], PROMPT_LENGTH), generator=generator)
    prompts, count = prompts.to(device), NEW_TOKENS[size]
    results: dict[str, torch.Tensor] = {}

    def way(name: str, generate: Callable[[SpeechLMForCausalLM, torch.Tensor, int], torch.Tensor]) -> float:
        results[name] = generate(model, prompts, count).cpu()
        return BATCH_SIZE[size] * count

    generators = {
        "dynamic cache": generate_with_cache,
        "static cache": partial(generate_with_cache, cache_implementation="static", max_cache_len=CACHE_STEP),
    }
    ways = {name: partial(way, name, generate) for name, generate in generators.items()}
    turns = take_turns(ways, rounds)
    equal = {name: f"{(results[name] == results['dynamic cache']).float().mean():.1%}" for name in ways}
    # 2 FLOPs per parameter, attention left out.
    limit = matmul_flops(device, dtype) / (2 * model.num_parameters())
    title = f"Generation: {BATCH_SIZE[size]} prompts, {model.num_parameters() / 1e6:.0f}M parameters, {dtype}"
    return Comparison(
        f"{title}, on {describe_device(device)}",
        "units/s",
        "dynamic cache",
        turns,
        limits=dict.fromkeys(ways, limit),
        notes={"same units": equal},
    )


def generate_with_cache(
    model: SpeechLMForCausalLM, prompts: torch.Tensor, count: int, **options: str | int
) -> torch.Tensor:
    """The new tokens of all prompts, of shape `(prompts, count)`. The end of a sequence is a token like any other."""
    tokens = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), eos_token_id=-1, max_new_tokens=count, **options
    )
    return tokens[:, prompts.shape[1] :]
