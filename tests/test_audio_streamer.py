import threading
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
from transformers import EncodecFeatureExtractor

from slam_hf import AudioIteratorStreamer, HubertUnitCodec, HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.audio_streamer import StreamClosed, StreamingDecoder
from slam_hf.configuration_hubert_unit_codec import UnitHifiGanConfig
from slam_hf.modeling_unit_hifigan import UnitHifiGan


VOCODERS = [
    pytest.param({}, (20, 20), (2, 2), id="HiFi-GAN V1 at 25 Hz"),
    pytest.param(
        {
            "upsample_rates": [2, 2, 2, 5, 16],
            "upsample_kernel_sizes": [4, 4, 4, 11, 32],
            "resblock_type": 2,
            "resblock_kernel_sizes": [3, 7],
            "resblock_dilation_sizes": [[1, 3], [1, 3]],
        },
        (15, 15),
        (2, 2),
        id="the quickstart's",
    ),
    pytest.param(
        {
            "upsample_rates": [3, 2],
            "upsample_kernel_sizes": [3, 2],
            "resblock_kernel_sizes": [5],
            "resblock_dilation_sizes": [[1, 2]],
        },
        (9, 9),
        (2, 2),
        id="kernels as long as strides",
    ),
    pytest.param({"duration_kernel_size": 4}, (20, 20), (2, 4), id="an even kernel for durations"),
]


@pytest.mark.parametrize(("options", "context", "duration_context"), VOCODERS)
def test_contexts_are_what_the_layers_see(options, context, duration_context):
    torch.manual_seed(0)
    config = UnitHifiGanConfig(
        num_units=4, unit_embed_dim=2, duration_hidden_dim=32, upsample_initial_channel=32, **options
    )
    assert (config.context, config.duration_context) == (context, duration_context)
    vocoder = UnitHifiGan(config).double().eval()
    with torch.no_grad():
        for parameter in vocoder.hifi_gan.parameters():  # positive numbers neither cancel out nor are cut off
            parameter.abs_().mul_(0.1).add_(0.01)
    vocoder.hifi_gan.conv_post.register_forward_hook(lambda module, args, output: output.log())  # tanh would saturate

    center, hop_length = 24, config.hop_length
    embeds = torch.rand(1, 2, 2 * center + 1, dtype=torch.double, requires_grad=True)
    samples = vocoder.hifi_gan(embeds)[0, center * hop_length : (center + 1) * hop_length]
    reached = torch.autograd.grad(samples.sum(), embeds)[0].abs().sum(dim=(0, 1)).nonzero().flatten()
    assert [center - reached[0], reached[-1] - center] == list(context)

    duration = vocoder.duration_predictor(embeds.transpose(1, 2))[0, center]
    reached = torch.autograd.grad(duration, embeds)[0].abs().sum(dim=(0, 1)).nonzero().flatten()
    assert [center - reached[0], reached[-1] - center] == list(duration_context)


def join(chunks) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


@pytest.fixture(scope="module")
def units() -> torch.LongTensor:
    return torch.randint(0, 50, (80,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("count", "chunk_duration"), [(1, 0.5), (6, 0.5), (45, 0.04), (80, 0.5), (80, 100.0)])
@pytest.mark.parametrize("at_once", [False, True])
def test_joined_chunks_are_the_whole(tiny_codec, units, chunk_duration, count, at_once):
    whole = tiny_codec.decode(units[None, :count])
    decoder = StreamingDecoder(tiny_codec, chunk_duration)
    parts = [units[:count].tolist()] if at_once else [[unit] for unit in units[:count].tolist()]
    chunks = [chunk for part in [*parts, []] for chunk in decoder(part, is_end=part == [])]
    audio, given, durations = join(chunks)
    assert given.tolist() == units[:count].tolist()
    assert durations.tolist() == whole.durations[0].tolist()
    # Also at both ends, and where chunks meet.
    np.testing.assert_allclose(audio, whole.audio_values[0, 0].numpy(), rtol=0, atol=1e-6)
    for chunk_audio, _, frames in chunks:
        assert len(chunk_audio) == frames.sum() * 640
    minimum = 25 * chunk_duration
    assert all(frames.sum() >= minimum > frames[:-1].sum() for _, _, frames in chunks[:-1])


def test_a_chunk_waits_for_its_contexts_and_no_longer(tiny_codec, units):
    decoder = StreamingDecoder(tiny_codec, chunk_duration=0.5)
    durations = tiny_codec.decode(units[None]).durations[0].tolist()
    assert decoder.max_lookahead == 13 + 20 + 2
    waited = next(count for count, unit in enumerate(units.tolist(), 1) if list(decoder([unit])))
    chunk = next(count for count in range(80) if sum(durations[:count]) >= 13)
    context = next(count for count in range(80) if sum(durations[chunk : chunk + count]) >= 20)
    assert waited == chunk + context + 2 <= decoder.max_lookahead


def test_the_work_per_unit_and_what_is_kept_do_not_grow(tiny_codec, units, monkeypatch):
    decoded, predicted = [], []
    for name, calls in (("decode", decoded), ("predict_durations", predicted)):
        method = getattr(tiny_codec, name)
        monkeypatch.setattr(
            tiny_codec,
            name,
            lambda units, *args, calls=calls, method=method, **options: (
                calls.append(units.numel()),
                method(units, *args, **options),
            )[1],
        )
    decoder = StreamingDecoder(tiny_codec, chunk_duration=0.5)
    kept = []
    for unit in units.tolist():
        list(decoder([unit]))
        kept.append(len(decoder._units))
    before, after = tiny_codec.config.vocoder_config.context
    assert max(decoded) <= before + 13 + after + 1
    assert sum(decoded) <= 80 / 13 * 2 * (before + 13 + after)
    assert max(predicted) <= 2 + 1 + 2
    assert len(predicted) == 80 - 2
    assert max(kept) <= before + 13 + after + 2 + 1


def test_a_codec_without_a_vocoder_and_no_duration_are_refused(tiny_codec):
    with pytest.raises(ValueError, match="`chunk_duration` is in seconds and must be positive, got 0"):
        StreamingDecoder(tiny_codec, chunk_duration=0)
    encoder = HubertUnitCodec.from_parts(tiny_codec.encoder, tiny_codec.codebook, layer=3)
    with pytest.raises(ValueError, match="This codec has no vocoder and cannot make audio"):
        StreamingDecoder(encoder)


@pytest.fixture
def processor(tiny_codec) -> SpeechLMProcessor:
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    return SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50), tiny_codec)


@pytest.fixture
def generate(tiny_model):
    """Continues a prompt of five units with sampling; the seed is fixed."""
    prompt = torch.tensor([[1, 4, 9, 2, 30, 17]])

    def generate(streamer=None, **options):
        torch.manual_seed(0)
        return tiny_model.generate(prompt, do_sample=True, suppress_tokens=[0, 1], streamer=streamer, **options)

    return generate


@pytest.mark.parametrize("skip_prompt", [False, True])
@pytest.mark.parametrize("in_own_thread", [False, True])
def test_audio_of_what_generate_puts_out(processor, generate, skip_prompt, in_own_thread):
    tokens = generate(max_new_tokens=60)[0]
    streamer = AudioIteratorStreamer(processor, skip_prompt=skip_prompt)
    if in_own_thread:
        chunks = list(streamer.run(partial(generate, max_new_tokens=60)))
    else:
        thread = threading.Thread(target=generate, kwargs={"streamer": streamer, "max_new_tokens": 60})
        thread.start()
        chunks = list(streamer)
        thread.join()
    expected = processor.decode(tokens[6:] if skip_prompt else tokens)
    np.testing.assert_allclose(np.concatenate([chunk["audio"] for chunk in chunks]), expected, rtol=0, atol=1e-6)
    assert {chunk["sampling_rate"] for chunk in chunks} == {16_000}
    assert np.concatenate([chunk["units"] for chunk in chunks]).tolist() == (tokens[6:] - 2).tolist()
    prompt_units = np.concatenate([chunk["prompt_units"] for chunk in chunks]).tolist()
    assert prompt_units == ([] if skip_prompt else [2, 7, 0, 28, 15])
    for chunk in chunks:
        assert len(chunk["durations"]) == len(chunk["prompt_units"]) + len(chunk["units"])
        assert len(chunk["audio"]) == 640 * chunk["durations"].sum()


class Counter:
    """A logits processor that counts the steps of a generation, and can fail."""

    def __init__(self, fails_at: int | None = None):
        self.steps, self.fails_at = 0, fails_at

    def __call__(self, input_ids, scores):
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("out of memory")
        return scores


def settled(counter: Counter) -> int:
    """Steps after which a generation waits."""
    steps = -1
    while steps != counter.steps:
        steps = counter.steps
        threading.Event().wait(0.2)
    return steps


def test_generation_waits_for_a_slow_loop(processor, generate):
    counter = Counter()
    streamer = AudioIteratorStreamer(processor, skip_prompt=True, max_pending=7)
    chunks = streamer.run(partial(generate, max_new_tokens=10_000, logits_processor=[counter]))
    assert counter.steps == 0  # it starts with the first chunk
    taken = 0
    for chunk in (next(chunks), next(chunks)):
        taken += len(chunk["units"])
    # Of the tokens that it took for these chunks, seven wait and another one is in the hands of `generate`.
    assert taken < settled(counter) <= 2 * streamer.decoder.max_lookahead + 7 + 1
    chunks.close()
    assert settled(counter) == counter.steps


def leave_the_loop(chunks):
    for _ in chunks:
        break


def fail_in_the_loop(chunks):
    for _ in chunks:
        raise KeyError("the player")


@pytest.mark.parametrize("leave", [leave_the_loop, fail_in_the_loop, lambda chunks: chunks.close()])
@pytest.mark.parametrize("max_pending", [3, None])
def test_leaving_the_loop_stops_generation(processor, generate, leave, max_pending):
    before = threading.active_count()
    counter = Counter()
    streamer = AudioIteratorStreamer(processor, max_pending=max_pending)
    chunks = streamer.run(partial(generate, max_new_tokens=10_000, logits_processor=[counter]))
    next(chunks)
    assert threading.active_count() == before + 1
    with suppress(KeyError):
        leave(chunks)
    del chunks
    assert threading.active_count() == before
    assert counter.steps < 1_000


def test_a_loop_that_dies_in_its_thread_leaves_no_other(processor, generate, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    before = threading.active_count()
    streamer = AudioIteratorStreamer(processor, max_pending=3)
    arguments = (streamer.run(partial(generate, max_new_tokens=10_000)),)
    thread = threading.Thread(target=fail_in_the_loop, args=arguments)
    del arguments
    thread.start()
    thread.join()
    assert threading.active_count() == before


def test_a_generation_in_a_thread_of_the_caller_ends_with_the_loop(processor, generate):
    streamer, errors = AudioIteratorStreamer(processor, max_pending=3), []

    def work():
        with pytest.raises(StreamClosed) as error:
            generate(streamer, max_new_tokens=10_000)
        errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    leave_the_loop(streamer)
    thread.join()
    assert len(errors) == 1


@pytest.mark.parametrize("fails_at", [1, 50])
def test_an_error_of_generation_is_raised_in_the_loop(processor, generate, fails_at):
    before = threading.active_count()
    streamer = AudioIteratorStreamer(processor, chunk_duration=0.04)
    chunks = []
    with pytest.raises(RuntimeError, match="out of memory"):
        for chunk in streamer.run(partial(generate, max_new_tokens=100, logits_processor=[Counter(fails_at)])):
            chunks.append(chunk)
    assert threading.active_count() == before
    assert (len(chunks) > 10) == (fails_at == 50)


def test_a_loop_that_hears_nothing_for_too_long_says_so(processor):
    with pytest.raises(TimeoutError, match="No token was generated in 0.01 seconds"):
        list(AudioIteratorStreamer(processor, timeout=0.01))


def test_a_batch_is_refused(processor, tiny_model):
    prompts = torch.tensor([[1, 4], [1, 5]])
    streamer = AudioIteratorStreamer(processor)
    with pytest.raises(ValueError, match="A stream has one sequence, and this is a batch of 2"):
        list(streamer.run(partial(tiny_model.generate, prompts, max_new_tokens=4)))
