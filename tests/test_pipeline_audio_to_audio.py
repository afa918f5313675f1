import numpy as np
import pytest
import torch
from datasets import Audio, Dataset
from transformers import EncodecFeatureExtractor, pipeline

import slam_hf  # noqa: F401 (registers the pipeline)
from slam_hf import AudioToAudioPipeline, HubertUnitTokenizer, SpeechLMProcessor, load_audio


GREEDY = {"do_sample": False, "max_new_tokens": 12, "repetition_penalty": 1.0, "suppress_tokens": [0, 1]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model, tiny_codec):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_codec.save_pretrained(folder / "codec")
    tiny_model.save_pretrained(folder / "model")
    codec = type(tiny_codec).from_pretrained(folder / "codec")
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50), codec).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def speak(checkpoint) -> AudioToAudioPipeline:
    return pipeline("audio-to-audio", model=checkpoint)


def test_continuation_is_that_of_model_and_codec(speak, tiny_model, tiny_codec, recordings):
    result = speak(recordings[0], prompt_duration=2.0, **GREEDY)
    assert isinstance(speak, AudioToAudioPipeline)

    waveform = torch.from_numpy(load_audio(recordings[0], 16_000)[:32_000])
    prompt, _ = tiny_codec.deduplicate(tiny_codec.encode(waveform[None]).audio_codes[0, 0])
    prompt_ids = torch.cat([torch.tensor([1]), prompt + 2])[None]
    generated = tiny_model.generate(prompt_ids, **GREEDY)[0, prompt_ids.shape[1] :]
    continuation = generated[generated > 1] - 2
    audio = tiny_codec.decode(torch.cat([prompt, continuation])[None]).audio_values[0, 0]

    assert result["prompt_units"].tolist() == prompt.tolist()
    assert result["units"].tolist() == continuation.tolist()
    assert len(set(result["units"].tolist())) > 3
    assert result["sampling_rate"] == 16_000
    assert result["audio"].dtype == np.float32
    assert np.array_equal(result["audio"], audio.numpy())


def test_batching_does_not_change_greedy_continuations(speak, recordings):
    sources = [
        {"array": load_audio(path, 16_000)[:n], "sampling_rate": 16_000}
        for path in recordings
        for n in (9_000, 40_000)
    ]
    alone = [speak(source, **GREEDY) for source in sources]
    batched = speak(sources, batch_size=4, **GREEDY)
    for one, other in zip(alone, batched, strict=True):
        assert one["units"].tolist() == other["units"].tolist()
        assert np.array_equal(one["audio"], other["audio"])


def test_recordings_come_in_every_form(speak, recordings):
    path = recordings[1]
    row = Dataset.from_dict({"audio": [str(path)]}).cast_column("audio", Audio(decode=False))[0]
    stereo = np.stack([load_audio(path, 44_100)] * 2)
    options = {"prompt_duration": 1.0, "max_new_tokens": 2, "do_sample": False}
    expected = speak(str(path), **options)
    for source in (path, path.read_bytes(), row, {"array": load_audio(path, 16_000), "sampling_rate": 16_000}):
        assert np.array_equal(speak(source, **options)["audio"], expected["audio"])
    assert len(speak({"array": stereo, "sampling_rate": 44_100}, **options)["prompt_units"]) > 10
    assert len(speak([path, path], **options)) == len(speak((path, path), **options)) == 2
    for many in (iter([path] * 3), (path for _ in range(3)), map(str, [path] * 3)):
        results = list(speak(many, batch_size=2, **options))
        assert [np.array_equal(result["audio"], expected["audio"]) for result in results] == [True] * 3
    assert speak([]) == []


def test_audio_is_the_whole_or_the_continuation(speak, tiny_codec, recordings):
    whole = speak(recordings[0], prompt_duration=1.0, **GREEDY)
    rest = speak(recordings[0], prompt_duration=1.0, return_full_audio=False, **GREEDY)
    assert whole["units"].tolist() == rest["units"].tolist()
    expected = tiny_codec.decode(torch.from_numpy(rest["units"])[None]).audio_values[0, 0].numpy()
    assert np.array_equal(rest["audio"], expected)
    assert len(whole["audio"]) > len(rest["audio"])


def test_sampling_is_that_of_the_paper_and_repeats_with_its_seed(speak, recordings):
    assert speak._generation_defaults == {
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 25,
        "max_new_tokens": 150,
        "repetition_penalty": 1.1,
        "pad_token_id": 0,
    }
    options = {"prompt_duration": 1.0, "max_new_tokens": 20, "min_new_tokens": 20}
    state = torch.get_rng_state()
    first, again, other = (speak(recordings[0], seed=seed, **options)["units"].tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_several_continuations_of_one_prompt(speak, recordings):
    options = {"prompt_duration": 1.0, "max_new_tokens": 9, "num_return_sequences": 3, "seed": 0}
    results = speak(recordings, batch_size=2, **options)
    assert [len(continuations) for continuations in results] == [3, 3]
    for continuations in results:
        prompts = {tuple(result["prompt_units"]) for result in continuations}
        assert len(prompts) == 1
        assert len({tuple(result["units"]) for result in continuations}) > 1


def test_nothing_generated_is_no_error(speak, recordings):
    result = speak(recordings[0], return_full_audio=False, do_sample=False, max_new_tokens=1, forced_eos_token_id=1)
    assert (result["units"].shape, result["audio"].shape) == ((0,), (0,))


def test_codec_can_be_named(checkpoint, published_checkpoint, tiny_codec):
    by_path = pipeline("audio-to-audio", model=checkpoint, codec=checkpoint.parent / "codec")
    assert by_path.processor.audio_tokenizer.codebook_size == 50
    by_value = pipeline("audio-to-audio", model=checkpoint, codec=tiny_codec)
    assert by_value.processor.audio_tokenizer is tiny_codec
    with pytest.raises(ValueError, match="The codec has 50 units and the model 500. Pass `codec=`"):
        pipeline("audio-to-audio", model=published_checkpoint, codec=tiny_codec)


def test_only_models_of_500_units_fall_back_on_the_published_codec(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="This model of 50 units names no codec. Pass `codec=`"):
        pipeline("audio-to-audio", model=tmp_path)


def test_without_a_codec_and_without_network_the_error_says_what_to_pass(published_checkpoint):
    with pytest.raises(OSError, match="This model names no codec. Pass `codec=`"):
        pipeline("audio-to-audio", model=published_checkpoint)


def test_bad_recordings_are_named(speak, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        speak(tmp_path / "none.wav")
    with pytest.raises(ValueError, match="the audio is empty"):
        speak({"array": [], "sampling_rate": 16_000})
    with pytest.raises(ValueError, match="A bare array has no sampling rate"):
        speak(np.zeros(16_000, np.float32))
    with pytest.raises(ValueError, match="`prompt_duration` is in seconds and must be positive, got 0"):
        speak(tmp_path / "any.wav", prompt_duration=0)
