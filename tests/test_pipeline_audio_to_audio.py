import copy
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from transformers import CompileConfig, EncodecFeatureExtractor, PreTrainedTokenizerFast, Qwen2Config, pipeline

import slam_hf  # noqa: F401 (registers the pipeline)
from slam_hf import (
    AudioIteratorStreamer,
    AudioToAudioPipeline,
    HubertUnitCodec,
    HubertUnitTokenizer,
    SpeechLMConfig,
    SpeechLMForCausalLM,
    SpeechLMProcessor,
    SpeechTextTokenizer,
    load_audio,
)
from slam_hf.pipeline_audio_to_audio import PAPER_SAMPLING, _compiles, published_codec


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


@pytest.fixture
def encoded(tiny_codec, monkeypatch) -> list[int]:
    """As on a GPU, where clips share batches; the clips of each call of `encode`."""
    calls, encode = [], type(tiny_codec).encode
    monkeypatch.setattr(type(tiny_codec), "_is_batched", lambda codec, batched: True)
    monkeypatch.setattr(
        type(tiny_codec), "encode", lambda codec, clips, *args: calls.append(len(clips)) or encode(codec, clips, *args)
    )
    return calls


def test_prompts_are_encoded_together_on_a_gpu(speak, recordings, encoded):
    sources = [
        {"array": load_audio(recordings[0], 16_000)[:n], "sampling_rate": 16_000} for n in (9_000, 40_000, 700) * 2
    ]
    options = {**GREEDY, "max_new_tokens": 4, "prompt_duration": 2.0, "trim_silence": False}
    alone = [speak(source, **options) for source in sources]
    assert encoded == [1] * 6
    for many in (sources, iter(sources)):
        encoded.clear()
        together = list(speak(many, batch_size=4, **options))
        assert encoded == [4, 2]
        for one, other in zip(alone, together, strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="^Recording 2: <dict>: .*99 samples"):
        speak([*sources[:2], {"array": np.zeros(99, np.float32), "sampling_rate": 16_000}], batch_size=3, **options)
    with pytest.raises(FileNotFoundError, match=r"^Recording 1: .*missing\.wav"):
        speak([sources[0], "missing.wav"], batch_size=2, **options)


def test_a_batch_is_vocoded_at_once(speak, tiny_codec, recordings, monkeypatch):
    shapes = []
    decode = tiny_codec.decode.__func__
    monkeypatch.setattr(
        type(tiny_codec),
        "decode",
        lambda codec, units, **voices: shapes.append(tuple(units.shape)) or decode(codec, units, **voices),
    )
    sources = [{"array": load_audio(recordings[0], 16_000)[:n], "sampling_rate": 16_000} for n in (9_000, 40_000, 640)]
    results = speak(sources, batch_size=3, num_return_sequences=2, num_beams=2, **GREEDY)
    assert [len(of_one) for of_one in results] == [2, 2, 2]
    lengths = [len(one["prompt_units"]) + len(one["units"]) for of_one in results for one in of_one]
    assert shapes == [(6, max(lengths))]


@pytest.fixture
def generate_options(speak, monkeypatch) -> list[dict]:
    """As on a GPU where `torch.compile` works; the options of each call of `generate`."""
    calls, generate = [], SpeechLMForCausalLM.generate
    monkeypatch.setattr("slam_hf.pipeline_audio_to_audio._compiles", lambda device: True)
    monkeypatch.setattr(
        SpeechLMForCausalLM, "generate", lambda self, **options: calls.append(options) or generate(self, **options)
    )
    monkeypatch.setattr(speak, "_largest_batch", 0)
    return calls


@pytest.mark.parametrize("compile_config", [None, pytest.param(CompileConfig(), marks=pytest.mark.slow)])
def test_batches_have_a_static_cache_on_a_gpu(speak, recordings, compile_config, request):
    sources = [{"array": load_audio(recordings[0], 16_000)[:n], "sampling_rate": 16_000} for n in (9_000, 40_000) * 3]
    options = {**GREEDY, "max_new_tokens": 24}
    expected = speak(sources, batch_size=4, **options)
    if compile_config is not None:
        compile_config._compile_all_devices = True
        options["compile_config"] = compile_config
    calls = request.getfixturevalue("generate_options")
    for one, other in zip(expected, speak(sources, batch_size=4, **options), strict=True):
        assert one["units"].tolist() == other["units"].tolist()
    assert [call["cache_implementation"] for call in calls] == ["static", "static"]
    assert [call["max_cache_len"] for call in calls] == [256, 256]
    # The last batch, of two, would be compiled for itself.
    assert [call["disable_compile"] for call in calls] == [False, True]


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (1, {}),
        (2, {"disable_compile": True}),
        (2, {"num_beams": 2}),
        (2, {"use_cache": False}),
        (2, {"cache_implementation": "dynamic"}),
    ],
    ids=["one recording", "switched off", "beams", "no cache", "another cache"],
)
def test_what_gains_nothing_has_no_static_cache(speak, recordings, generate_options, count, options):
    source = {"array": load_audio(recordings[0], 16_000)[:16_000], "sampling_rate": 16_000}
    speak([source] * count, batch_size=count, **GREEDY, **options)
    [call] = generate_options
    assert call.get("cache_implementation") != "static"


def test_other_threads_have_no_static_cache(speak, recordings, generate_options):
    source = {"array": load_audio(recordings[0], 16_000)[:16_000], "sampling_rate": 16_000}
    with ThreadPoolExecutor(1) as threads:
        threads.submit(speak, [source] * 2, batch_size=2, **GREEDY).result()
    assert "cache_implementation" not in generate_options[0]


def test_a_device_without_a_compiler_is_found_by_trying(monkeypatch):
    monkeypatch.setattr(torch, "zeros", lambda *size, device: None)
    gpu = torch.device("cuda", 7)
    monkeypatch.setattr(torch, "compile", lambda function: lambda tensor: tensor)
    assert _compiles.__wrapped__(gpu)
    assert not _compiles.__wrapped__(torch.device("cpu"))
    monkeypatch.setattr(torch, "compile", lambda function: 1 / 0)
    with pytest.warns(UserWarning, match="torch.compile does not work here"):
        assert not _compiles.__wrapped__(gpu)


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


def test_each_recording_may_have_a_voice(checkpoint, voices_codec, recordings):
    speak = pipeline("audio-to-audio", model=checkpoint, codec=voices_codec)
    options = {"prompt_duration": 0.5, "min_new_seconds": 0, **GREEDY}

    def decode(result, speaker, style):
        units = torch.tensor([[*result["prompt_units"], *result["units"]]])
        return voices_codec.decode(units, speaker_id=speaker, style_id=style).audio_values[0, 0].detach().numpy()

    first, second = speak(recordings, batch_size=2, speaker_id=["ben", 0], style_id="loud", **options)
    assert np.array_equal(first["audio"], decode(first, 1, 1))
    assert np.array_equal(second["audio"], decode(second, 0, 1))
    results = speak(recordings[0], speaker_id="ben", num_return_sequences=2, num_beams=2, **options)
    assert [np.array_equal(result["audio"], decode(result, 1, 0)) for result in results] == [True, True]
    assert np.array_equal(speak(recordings[0], **options)["audio"], decode(first, 0, 0))
    chunks = list(speak(recordings[0], stream=True, speaker_id="ben", style_id=1, **options))
    # The untrained vocoder puts out -1 or 1, and rounding turns one into the other where it hesitates.
    is_close = np.isclose(np.concatenate([chunk["audio"] for chunk in chunks]), first["audio"], rtol=0, atol=1e-3)
    assert is_close.mean() > 0.999
    with pytest.raises(ValueError, match="one of 'anna', 'ben'; got 'carla'"):
        speak(recordings[0], speaker_id="carla", **options)
    with pytest.raises(ValueError, match="`speaker_id` is a list of 1: it needs one for each in a list"):
        speak(recordings, speaker_id=["ben"], **options)


def test_voices_that_the_pipeline_was_made_with_are_counted_too(checkpoint, voices_codec, recordings):
    speak = pipeline("audio-to-audio", model=checkpoint, codec=voices_codec, speaker_id=["ben", "anna"])
    with pytest.raises(ValueError, match="`speaker_id` is a list of 2: it needs one for each in a list"):
        speak([recordings[0]] * 3)


def test_a_codec_that_cannot_speak_is_refused_before_anything_is_generated(
    checkpoint, tiny_codec, recordings, monkeypatch
):
    codec = copy.deepcopy(tiny_codec)
    speak = pipeline("audio-to-audio", model=checkpoint, codec=codec)
    monkeypatch.setattr(speak.model, "generate", None)
    codec.vocoder.duration_predictor = None
    for stream in (False, True):
        with pytest.raises(ValueError, match="The codec's vocoder does not predict durations"):
            speak(recordings[0], stream=stream)
    with pytest.raises(ValueError, match="The codec's vocoder does not predict durations"):
        AudioIteratorStreamer(speak.processor)
    codec.vocoder = None
    with pytest.raises(ValueError, match="This codec has no vocoder and cannot make audio"):
        speak(recordings[0])


def test_a_voice_is_refused_by_a_codec_of_one_voice(speak, recordings):
    with pytest.raises(ValueError, match="made without `speaker_id`"):
        speak(recordings[0], speaker_id=0, **GREEDY)


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


def test_an_empty_continuation_is_not_an_error(speak, recordings):
    result = speak(recordings[0], return_full_audio=False, do_sample=False, max_new_tokens=1, forced_eos_token_id=1)
    assert (result["units"].shape, result["audio"].shape) == ((0,), (0,))


def test_codec_can_be_named(checkpoint, published_checkpoint, tiny_codec):
    by_path = pipeline("audio-to-audio", model=checkpoint, codec=checkpoint.parent / "codec")
    assert by_path.processor.audio_tokenizer.codebook_size == 50
    by_value = pipeline("audio-to-audio", model=checkpoint, codec=tiny_codec)
    assert by_value.processor.audio_tokenizer is tiny_codec
    with pytest.raises(ValueError, match="The codec.* has 50 units and the model 500. Pass .* `codec=`"):
        pipeline("audio-to-audio", model=published_checkpoint, codec=tiny_codec)


@pytest.mark.parametrize("num_units", [50, 500])
def test_a_codec_is_not_guessed_from_the_number_of_units(tiny_model, tmp_path, num_units):
    config = SpeechLMConfig(base_config=tiny_model.config.base_config.to_dict(), vocab_size=num_units + 2)
    SpeechLMForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"This model of {num_units} units names no codec. Pass `codec=`"):
        pipeline("audio-to-audio", model=tmp_path)


@pytest.mark.parametrize("named", [{"name_or_path": "slprl/slam"}, {"architectures": ["UnitLM"]}])
def test_published_models_get_their_codec(tiny_model, tiny_codec, monkeypatch, named):
    monkeypatch.setattr("slam_hf.conversion.mhubert_25hz.published_codec", lambda: tiny_codec)
    config = SpeechLMConfig(base_config=tiny_model.config.base_config.to_dict(), **named)
    assert published_codec(config) is tiny_codec
    with pytest.raises(ValueError, match="This model of 50 units names no codec"):
        published_codec(SpeechLMConfig(base_config=tiny_model.config.base_config.to_dict(), vocab_size=52, **named))


def test_without_a_codec_and_without_network_the_error_says_what_to_pass(published_checkpoint):
    with pytest.raises(OSError, match="This model names no codec. Pass `codec=`"):
        pipeline("audio-to-audio", model=published_checkpoint)


def test_a_saved_pipeline_is_whole(speak, tiny_codec, recordings, tmp_path):
    speak.save_pretrained(tmp_path)
    assert (tmp_path / "processor_config.json").is_file()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["custom_pipelines"]["audio-to-audio"]["impl"] == "pipeline_audio_to_audio.AudioToAudioPipeline"
    assert (tmp_path / "pipeline_audio_to_audio.py").is_file()
    options = {"prompt_duration": 1.0, **GREEDY}
    again = pipeline("audio-to-audio", model=tmp_path)
    assert np.array_equal(again(recordings[0], **options)["audio"], speak(recordings[0], **options)["audio"])


def test_a_codec_without_a_name_is_not_named(checkpoint, tiny_codec, tmp_path):
    codec = HubertUnitCodec(tiny_codec.config)
    speak = pipeline("audio-to-audio", model=checkpoint, codec=codec)
    with pytest.raises(ValueError, match="The codec has no name that `processor_config.json` could give"):
        speak.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    codec.save_pretrained(tmp_path / "codec")
    speak.save_pretrained(tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "processor_config.json").read_text())
    assert saved["codec"] == {"name_or_path": str(tmp_path / "codec"), "revision": None}


def test_a_continuation_lasts_two_seconds_unless_told(checkpoint, tiny_codec, recordings, monkeypatch):
    speak = pipeline("audio-to-audio", model=checkpoint)
    asked = {}
    generate = speak.model.generate

    def ending_at_once(**options):
        asked.update(options)
        return generate(**{**options, "logits_processor": [lambda ids, scores: only_eos(scores)]})

    def only_eos(scores):
        return torch.where(scores[:, 1:2].isfinite() & (torch.arange(52) != 1), -torch.inf, scores)

    monkeypatch.setattr(speak.model, "generate", ending_at_once)
    options = {"prompt_duration": 1.0, "seed": 0}
    result = speak(recordings[0], return_full_audio=False, **options)
    assert asked["min_new_tokens"] == 50  # two seconds at 25 frames a second
    assert 45 <= len(result["units"]) <= 50 and len(result["audio"]) >= 0.9 * 32_000
    assert len(speak(recordings[0], min_new_seconds=0.4, **options)["units"]) in range(8, 11)
    assert speak(recordings[0], max_new_tokens=7, **options) and asked["min_new_tokens"] == 7
    assert speak(recordings[0], min_new_tokens=3, **options) and asked["min_new_tokens"] == 3
    with pytest.warns(UserWarning, match="The model ended at once"):
        assert len(speak(recordings[0], min_new_seconds=0, **options)["units"]) == 0
    chunks = speak(recordings[0], stream=True, min_new_seconds=0, return_full_audio=False, **options)
    with pytest.warns(UserWarning, match="The model ended at once"):
        assert list(chunks) == []
    with pytest.raises(ValueError, match="`min_new_seconds` is in seconds and must be 0 or more, got -1"):
        speak(recordings[0], min_new_seconds=-1)


def test_silence_at_the_end_of_a_recording_is_left_out(speak, recordings):
    def prompt_units(samples, **options):
        source = {"array": samples, "sampling_rate": 16_000}
        return speak(source, max_new_tokens=1, **options)["prompt_units"].tolist()

    speech = load_audio(recordings[0], 16_000)[:30_720]  # 48 frames, the last of which is loud
    silence = 0.005 * np.random.default_rng(0).standard_normal(32_000, dtype=np.float32)
    recording = np.append(speech, silence)
    assert prompt_units(recording) == prompt_units(recording[: 49 * 640], trim_silence=False)
    whole = prompt_units(recording, trim_silence=False)
    assert len(whole) > len(prompt_units(recording)) + 10
    assert prompt_units(recording, prompt_duration=3.0) == prompt_units(recording[:48_000], trim_silence=False)
    assert len(prompt_units(np.zeros(16_000))) > 0


def test_a_seed_gives_the_same_in_several_threads(speak, recordings):
    def continue_with(seed):
        return speak(recordings[0], prompt_duration=0.5, max_new_tokens=20, seed=seed)["units"].tolist()

    alone = [continue_with(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(continue_with, range(4))) == alone
    assert len(set(map(tuple, alone))) == 4


@pytest.mark.parametrize(
    "options", [{}, {"num_return_sequences": 2, "top_p": 0.9}, {"num_beams": 2}, {"do_sample": False}]
)
def test_a_seed_draws_as_the_global_generator_would(speak, recordings, options):
    options = {"max_new_tokens": 20, **options}
    results = speak(recordings[0], prompt_duration=0.5, seed=5, **options)
    results = results if isinstance(results, list) else [results]
    ids = torch.cat([torch.tensor([1]), torch.from_numpy(results[0]["prompt_units"]) + 2])[None]
    torch.manual_seed(5)
    expected = speak.model.generate(
        ids, generation_config=PAPER_SAMPLING, min_new_tokens=20, pad_token_id=0, **options
    )
    for result, sequence in zip(results, expected[:, ids.shape[1] :], strict=True):
        assert result["units"].tolist() == speak.tokenizer.decode_units(sequence).tolist()


def test_each_recording_of_a_batch_may_have_a_seed_of_its_own(speak, recordings):
    options = {"prompt_duration": 0.5, "max_new_tokens": 20, "num_return_sequences": 2}
    together = speak(list(recordings), seed=[5, 6], batch_size=2, **options)
    alone = [speak(path, seed=seed, **options) for path, seed in zip(recordings, (5, 6), strict=True)]
    units = [[[one["units"].tolist() for one in of_one] for of_one in results] for results in (together, alone)]
    assert units[0] == units[1]
    with pytest.raises(ValueError, match="`seed` has 3 seeds for a batch of 2 recordings"):
        speak(list(recordings), seed=[5, 6, 7], batch_size=2, **options)


def test_seeds_of_numpy_are_seeds(speak, recordings):
    options = {"prompt_duration": 0.5, "max_new_tokens": 9}
    seeds = (5, np.int64(5), np.array([5]), [np.uint8(5)])
    results = [speak(recordings[0], seed=seed, **options)["units"].tolist() for seed in seeds]
    assert results == results[:1] * len(seeds)
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        speak(recordings[0], seed=5.5, **options)


def test_without_a_model_there_is_a_default_one(caplog):
    assert pipeline("audio-to-audio").model.name_or_path == "quickstart:model"
    assert "No model was supplied, defaulted to quickstart:model" in caplog.text


@pytest.mark.parametrize("open_recording", [Path.open, lambda path, mode: io.BytesIO(path.read_bytes())])
def test_open_files_are_recordings(speak, recordings, open_recording):
    options = {"prompt_duration": 1.0, "max_new_tokens": 2, "do_sample": False}
    with open_recording(recordings[1], "rb") as file:
        assert np.array_equal(speak(file, **options)["audio"], speak(recordings[1], **options)["audio"])


def test_a_bad_recording_is_named_among_many(speak, recordings, tmp_path):
    short = {"array": np.zeros(99, np.float32), "sampling_rate": 16_000}
    with pytest.raises(ValueError, match="^Recording 2: <dict>: .*99 samples"):
        speak([recordings[0], recordings[1], short], prompt_duration=1.0, batch_size=3, max_new_tokens=1)
    soundfile.write(tmp_path / "short.wav", np.zeros(99), 16_000)
    results = iter(speak(iter([recordings[0], tmp_path / "short.wav"]), prompt_duration=1.0, max_new_tokens=1))
    next(results)
    with pytest.raises(ValueError, match=r"^Recording 1: '.*short\.wav': .*99 samples"):
        next(results)
    with pytest.raises(ValueError, match=r"^'.*short\.wav': .*99 samples"):
        speak(tmp_path / "short.wav")
    for bare in (torch.zeros(16_000), [torch.zeros(16_000)], np.zeros(16_000, np.float32)):
        with pytest.raises(ValueError, match="A bare array has no sampling rate"):
            speak(bare)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("none.wav", FileNotFoundError, r"^'none\.wav': no such audio file"),
        (["prompt.wav", {"audio": {"path": "none.wav"}}], FileNotFoundError, r"^Recording 1: 'none\.wav': no such"),
        ({"audio": {"path": "short.wav", "bytes": None}}, ValueError, r"short\.wav': Clip 0 has 99 samples"),
        ({"array": [], "sampling_rate": 16_000}, ValueError, "the audio is empty"),
    ],
)
def test_bad_recordings_are_named(speak, recordings, tmp_path, monkeypatch, source, error, message):
    monkeypatch.chdir(tmp_path)
    shutil.copy(recordings[0], "prompt.wav")
    soundfile.write("short.wav", np.zeros(99), 16_000)
    with pytest.raises(error, match=message):
        speak(source, **GREEDY)


def test_a_prompt_needs_a_duration(speak, tmp_path):
    with pytest.raises(ValueError, match="`prompt_duration` is in seconds and must be positive, got 0"):
        speak(tmp_path / "any.wav", prompt_duration=0)


def test_the_sampling_rate_is_that_of_the_codec(checkpoint, recordings, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    config["feature_extractor"]["sampling_rate"] = 8000
    (folder / "processor_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="set to 8000 Hz and its codec to 16000 Hz"):
        pipeline("audio-to-audio", model=folder)(recordings[0], **GREEDY)


def test_stop_strings_need_no_tokenizer(speak, recordings):
    units = speak(recordings[0], prompt_duration=2.0, **GREEDY)["units"].tolist()
    stopped = speak(recordings[0], prompt_duration=2.0, stop_strings=f"<Un{units[1]}>", **GREEDY)["units"].tolist()
    assert stopped == units[: units.index(units[1]) + 1]


def test_a_seed_is_refused_where_it_would_not_be_kept(speak, recordings):
    with pytest.raises(ValueError, match="`seed` does not fix assisted sampling"):
        speak(recordings[0], prompt_duration=2.0, seed=0, max_new_tokens=8, prompt_lookup_num_tokens=2)


STREAMED = {"prompt_duration": 1.0, "chunk_duration": 0.2, "stream": True}


@pytest.mark.parametrize("return_full_audio", [True, False])
@pytest.mark.parametrize(
    "options", [{"seed": 5, "max_new_tokens": 60}, {**GREEDY, "repetition_penalty": 1.3, "max_new_tokens": 5}]
)
def test_a_stream_joins_to_the_result(speak, recordings, return_full_audio, options):
    options = {**options, "return_full_audio": return_full_audio}
    result = speak(recordings[0], prompt_duration=1.0, **options)
    chunks = list(speak(recordings[0], **STREAMED, **options))
    joined = {name: np.concatenate([np.atleast_1d(chunk[name]) for chunk in chunks]) for name in result}
    assert len(chunks) > 1
    assert set(joined.pop("sampling_rate")) == {16_000}
    np.testing.assert_allclose(joined.pop("audio"), result["audio"], rtol=0, atol=1e-6)
    if not return_full_audio:
        assert len(joined.pop("prompt_units")) == 0
    assert all(values.tolist() == result[name].tolist() for name, values in joined.items())
    num_units = len(result["units"]) + (len(result["prompt_units"]) if return_full_audio else 0)
    assert len(result["durations"]) == num_units
    assert 640 * result["durations"].sum() == len(result["audio"])


def test_a_stream_ends_as_the_result_does(speak, recordings):
    ends = ({"min_new_seconds": 0.4}, {"stop_strings": "<Un3>", "min_new_seconds": 0}, {"eos_token_id": 7})
    for end in ends:
        options = {**end, "seed": 1, "max_new_tokens": 40, "return_full_audio": False}
        result = speak(recordings[0], prompt_duration=1.0, **options)
        chunks = list(speak(recordings[0], **STREAMED, **options))
        assert np.concatenate([chunk["units"] for chunk in chunks]).tolist() == result["units"].tolist()


def test_the_first_sound_is_the_prompt_before_anything_is_generated(speak, recordings, monkeypatch):
    forward, steps = speak.model.lm.forward, []
    monkeypatch.setattr(speak.model.lm, "forward", lambda *args, **kwargs: steps.append(1) or forward(*args, **kwargs))
    chunks = speak(recordings[0], max_new_tokens=200, min_new_tokens=200, **STREAMED | {"prompt_duration": 3.0})
    assert steps == []
    first = next(chunks)
    assert len(first["prompt_units"]) > 0
    assert len(first["units"]) == 0
    chunks.close()
    assert len(steps) < 200


def test_streaming_may_be_the_default(checkpoint, tiny_codec, recordings):
    speak = pipeline("audio-to-audio", model=checkpoint, codec=tiny_codec, stream=True, chunk_duration=0.2)
    options = {"prompt_duration": 1.0, "seed": 0, "max_new_tokens": 20}
    chunks = list(speak(recordings[0], **options))
    assert len(chunks) > 1 and min(len(chunk["audio"]) for chunk in chunks[:-1]) >= 0.2 * 16_000
    joined = np.concatenate([chunk["audio"] for chunk in chunks])
    assert len(speak(recordings[0], stream=False, **options)["audio"]) == len(joined)
    assert len(list(speak(recordings[0], chunk_duration=100.0, **options))) == 1


def test_several_streams_of_one_pipeline_at_once(speak, recordings):
    seeds, options = range(3), {"max_new_tokens": 30, "min_new_seconds": 0.4, "return_full_audio": False}
    expected = [speak(recordings[0], prompt_duration=1.0, seed=s, **options)["units"].tolist() for s in seeds]
    streams = [speak(recordings[0], seed=seed, **STREAMED, **options) for seed in seeds]
    units = [[] for _ in seeds]
    for chunks in zip_longest(*streams):  # in turn, in one thread
        for seed, chunk in enumerate(chunks):
            units[seed] += [] if chunk is None else chunk["units"].tolist()
    assert units == expected


def test_a_streamer_of_the_caller_works_too(speak, recordings):
    options = {"prompt_duration": 1.0, "seed": 2, "max_new_tokens": 50}
    streamer = AudioIteratorStreamer(speak.processor, skip_prompt=True)
    with ThreadPoolExecutor() as pool:
        result = pool.submit(speak, recordings[0], streamer=streamer, return_full_audio=False, **options)
        audio = np.concatenate([chunk["audio"] for chunk in streamer])
    np.testing.assert_allclose(audio, result.result()["audio"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["one.flac", "two.flac"], {}, "`stream=True` continues one recording, and this is several"),
        (iter(["one.flac"]), {}, "`stream=True` continues one recording, and this is several"),
        ([], {}, "`stream=True` continues one recording, and this is several"),
        ("missing.flac", {}, "missing.flac"),
        (None, {"num_return_sequences": 2}, "`stream=True` gives one continuation: leave out `num_return_sequences`"),
        (None, {"num_beams": 2}, "`stream=True` gives one continuation: leave out `num_beams`"),
        (None, {"chunk_duration": -1.0}, "`chunk_duration` is in seconds and must be positive"),
        (None, {"prompt_duration": 0.0}, "`prompt_duration` is in seconds and must be positive"),
    ],
)
def test_what_cannot_be_streamed_is_refused_at_once(speak, recordings, inputs, options, message):
    with pytest.raises((ValueError, OSError), match=message):
        speak(recordings[0] if inputs is None else inputs, **STREAMED | options)


def text_model(num_units: int, seed: int = 0) -> tuple[SpeechLMForCausalLM, SpeechTextTokenizer]:
    """A model of letters and units, with random weights. As in Llama 3 and Qwen, id 0 is `!`, and pads."""
    letters = {letter: index for index, letter in enumerate("! abcdefghijklmnopqrstuvwxyz.")}
    backend = Tokenizer(BPE({**letters, "</s>": len(letters)}, []))
    backend.decoder = Fuse()
    text_tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    tokenizer = SpeechTextTokenizer.from_text_tokenizer(text_tokenizer, num_units)
    base_config = Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    torch.manual_seed(seed)
    config = SpeechLMConfig(
        base_config=base_config.to_dict(),
        vocab_size=len(tokenizer),
        num_units=num_units,
        tokenizer_class="SpeechTextTokenizer",
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return SpeechLMForCausalLM(config).eval(), tokenizer


@pytest.fixture(scope="module")
def speak_and_write(tmp_path_factory, tiny_codec) -> AudioToAudioPipeline:
    """A pipeline whose model knows text and speech."""
    folder = tmp_path_factory.mktemp("interleaved")
    tiny_codec.save_pretrained(folder / "codec")
    model, tokenizer = text_model(num_units=50)
    model.save_pretrained(folder / "model")
    codec = type(tiny_codec).from_pretrained(folder / "codec")
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    SpeechLMProcessor(feature_extractor, tokenizer, codec).save_pretrained(folder / "model")
    return pipeline("audio-to-audio", model=folder / "model")


SPEECH, TEXT = 80, 81  # the ids of <speech> and <text>, after 30 of text and 50 of units
CONTINUE = {"do_sample": False, "max_new_tokens": 12, "repetition_penalty": 1.0, "prompt_duration": 0.5}


def text_ids(text: str) -> list[int]:
    return ["! abcdefghijklmnopqrstuvwxyz.".index(letter) for letter in text]


@pytest.mark.parametrize("output", ["speech", "text"])
@pytest.mark.parametrize("given", ["speech", "text", "both"])
def test_each_modality_is_continued_in_each(speak_and_write, tiny_codec, recordings, given, output):
    waveform = torch.from_numpy(load_audio(recordings[0], 16_000)[:8_000])
    units = tiny_codec.deduplicate(tiny_codec.encode(waveform[None]).audio_codes[0, 0])[0]
    speech_ids = [SPEECH, *(units + 30).tolist()]
    prompt, prompt_ids, text = {
        "speech": (recordings[0], speech_ids, ""),
        "text": ({"text": "he said!"}, [TEXT, *text_ids("he said!")], "he said!"),
        "both": (
            [{"text": "he"}, recordings[0], {"type": "text", "text": " and i"}],
            [TEXT, *text_ids("he"), *speech_ids, TEXT, *text_ids(" and i")],
            "he and i",
        ),
    }[given]
    ids = torch.tensor([[*prompt_ids, {"speech": SPEECH, "text": TEXT}[output]]])
    allowed = range(30, 80) if output == "speech" else range(30)
    banned = [i for i in range(82) if i not in allowed and i != 29]
    options = {"max_new_tokens": 12, "min_new_tokens": 12 if output == "speech" else None, "do_sample": False}
    options |= {"attention_mask": torch.ones_like(ids), "suppress_tokens": banned}
    expected = speak_and_write.model.lm.generate(ids, **options)[0, ids.shape[1] :]
    expected = expected[: expected.tolist().index(29)] if 29 in expected else expected
    assert len(set(expected.tolist())) > 2

    result = speak_and_write([prompt], output_modality=output, **CONTINUE)[0]
    assert result["prompt_units"].tolist() == (units.tolist() if given != "text" else [])
    if output == "speech":
        assert result["units"].tolist() == (expected - 30).tolist()
        heard = torch.cat([units if given != "text" else units[:0], expected - 30])
        assert np.array_equal(result["audio"], tiny_codec.decode(heard[None]).audio_values[0, 0].numpy())
        assert result["sampling_rate"] == 16_000
    else:
        continuation = "".join("! abcdefghijklmnopqrstuvwxyz."[i] for i in expected)
        assert result.keys() == {"generated_text", "input_text", "prompt_units"}
        assert (result["generated_text"], result["input_text"]) == (text + continuation, text)
        new = speak_and_write([prompt], output_modality=output, return_full_text=False, **CONTINUE)[0]
        assert new["generated_text"] == continuation


def test_speech_alone_is_continued_without_a_modality_token(speak_and_write, recordings):
    shown = {}
    forward = speak_and_write.model.lm.forward
    speak_and_write.model.lm.forward = lambda *args, **kwargs: (
        shown.setdefault("ids", kwargs["input_ids"]) is None or (forward(*args, **kwargs))
    )
    try:
        result = speak_and_write(recordings[0], **CONTINUE)
    finally:
        speak_and_write.model.lm.forward = forward
    assert shown["ids"][0].tolist() == (result["prompt_units"] + 30).tolist()
    assert len(result["units"]) == 12


@pytest.mark.parametrize("output", [None, "speech", "text", "speech on a GPU"])
def test_a_batch_of_prompts_of_both_modalities_gives_what_each_gives_alone(
    speak_and_write, recordings, output, request
):
    if output == "speech on a GPU":
        output, _ = "speech", request.getfixturevalue("encoded")
    prompts = [
        {"text": "i!"},
        recordings[0],
        [{"text": "once upon a time there was "}, recordings[1]],
        [recordings[1], {"text": "!!"}],
    ]
    options = {**CONTINUE, "output_modality": output}
    alone = [speak_and_write([prompt], **options)[0] for prompt in prompts]
    for one, other in zip(alone, speak_and_write(prompts, batch_size=4, **options), strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_padding_after_the_end_of_a_text_is_not_text(speak_and_write):
    prompts = [{"text": "abc"}, {"text": "once upon a time"}, {"text": "xyz"}]
    options = {**CONTINUE, "output_modality": "text", "return_full_text": False}
    texts = [speak_and_write(prompt, **options)["generated_text"] for prompt in prompts]
    # A letter that one of the texts has early, and another one late or never.
    ends = {letter: [(text + letter).index(letter) for text in texts] for letter in "".join(texts)}
    end = max(ends, key=lambda letter: max(ends[letter]) - min(ends[letter]))
    assert max(ends[end]) - min(ends[end]) > 4
    expected = [text.partition(end)[0] for text in texts]
    ended = speak_and_write(prompts, batch_size=3, eos_token_id=text_ids(end)[0], **options)
    assert [result["generated_text"] for result in ended] == expected
    stopped = speak_and_write(prompts, batch_size=3, stop_strings=[end], **options)
    with_end = [text[: len(part) + 1] for text, part in zip(texts, expected, strict=True)]
    assert [result["generated_text"] for result in stopped] == with_end


@pytest.mark.parametrize("return_full_text", [True, False])
@pytest.mark.parametrize("ends", [{}, {"stop_strings": ["e"]}, {"eos_token_id": 9}])
def test_a_stream_of_text_joins_to_the_result(speak_and_write, recordings, return_full_text, ends):
    prompt = [[{"text": "once upon"}, recordings[0]]]
    options = {**CONTINUE, "output_modality": "text", "return_full_text": return_full_text, **ends}
    result = speak_and_write(prompt, **options)[0]
    chunks = list(speak_and_write(prompt, stream=True, **options))
    assert "".join(chunk["generated_text"] for chunk in chunks) == result["generated_text"]
    assert {*chain.from_iterable(chunks)} <= {"generated_text"}


def test_a_text_can_be_continued_in_a_stream_of_speech(speak_and_write):
    options = {**CONTINUE, "output_modality": "speech"}
    result = speak_and_write({"text": "abc"}, **options)
    chunks = list(speak_and_write({"text": "abc"}, stream=True, **options))
    assert np.concatenate([chunk["units"] for chunk in chunks]).tolist() == result["units"].tolist()
    np.testing.assert_allclose(np.concatenate([chunk["audio"] for chunk in chunks]), result["audio"], atol=1e-6)


def test_several_texts_of_one_prompt(speak_and_write):
    options = {"output_modality": "text", "num_return_sequences": 3, "seed": 0, "max_new_tokens": 9}
    results = speak_and_write([{"text": "abc"}, {"text": "x"}], batch_size=2, **options)
    assert [len(texts) for texts in results] == [3, 3]
    assert all(result["generated_text"].startswith("abc") for result in results[0])
    assert len({result["generated_text"] for result in results[0]}) > 1


@pytest.mark.parametrize("output", ["speech", "text"])
def test_rows_that_pad_a_vocabulary_of_text_are_not_generated(speak_and_write, output):
    options = {**CONTINUE, "output_modality": output}
    expected = speak_and_write({"text": "abc"}, **options)
    padded = copy.deepcopy(speak_and_write)
    padded.model.resize_token_embeddings(pad_to_multiple_of=64)
    with torch.no_grad():
        padded.model.get_output_embeddings().weight[82:] = 3 * padded.model.get_output_embeddings().weight[:46]
    result = padded({"text": "abc"}, **options)
    assert all(np.array_equal(result[name], expected[name]) for name in expected)


def test_tokens_that_the_caller_suppresses_stay_suppressed(speak_and_write):
    options = {**CONTINUE, "output_modality": "text", "return_full_text": False}
    text = speak_and_write({"text": "abc"}, **options)["generated_text"]
    other = speak_and_write({"text": "abc"}, suppress_tokens=text_ids(text[0]), **options)["generated_text"]
    assert text[0] not in other


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ({"text": "he said"}, None),
        ([[{"text": "he said"}, "clip"]], None),
        ("clip", "text"),
        ([["clip", "clip"]], None),
    ],
)
def test_a_model_of_units_alone_takes_and_gives_no_text(speak, recordings, inputs, output):
    as_recording = {"clip": recordings[0]}
    if isinstance(inputs, list):
        inputs = [[part if isinstance(part, dict) else as_recording[part] for part in prompt] for prompt in inputs]
    elif isinstance(inputs, str):
        inputs = as_recording[inputs]
    with pytest.raises(ValueError, match="a vocabulary of units alone: it takes and gives speech"):
        speak(inputs, output_modality=output, **GREEDY)


def test_a_codec_with_another_number_of_units_than_a_model_of_text_is_refused(checkpoint):
    model, tokenizer = text_model(num_units=40)
    processor = SpeechLMProcessor(EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000), tokenizer)
    with pytest.raises(ValueError, match="The codec .* has 50 units and the model 40"):
        AudioToAudioPipeline(model=model, processor=processor, codec=checkpoint.parent / "codec")
    with pytest.raises(ValueError, match="This model of 40 units names no codec"):
        AudioToAudioPipeline(model=model, processor=processor)


def test_a_transcript_beside_a_recording_is_not_the_prompt(speak_and_write, recordings):
    row = {"audio": {"path": str(recordings[0])}, "text": "a transcript"}
    result = speak_and_write(row, **CONTINUE)
    assert len(result["prompt_units"]) > 3


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "A prompt needs a text or speech, and this one is empty"),
        ({"text": "he <speech>"}, "The text of part 0 holds <speech>, which stands for speech"),
        ([{"text": "he"}, "missing.flac"], "missing.flac"),
    ],
)
def test_bad_prompts_are_refused(speak_and_write, prompt, message):
    with pytest.raises((ValueError, OSError), match=message):
        speak_and_write([prompt], **CONTINUE)
    with pytest.raises(ValueError, match="`output_modality` is 'speech' or 'text', and not 'audio'"):
        speak_and_write({"text": "a"}, output_modality="audio")
