import copy
import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import (
    AutoModelForAudioTokenization,
    AutoProcessor,
    DacModel,
    EncodecFeatureExtractor,
    PreTrainedTokenizerFast,
)

import slam_hf  # noqa: F401 (registers the Auto classes)
from slam_hf import HubertUnitTokenizer, SpeechLMProcessor, SpeechTextTokenizer, load_audio
from slam_hf.processing_speech_lm import check_codec_reference, load_codec


@pytest.fixture
def processor(tiny_codec) -> SpeechLMProcessor:
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    return SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50), tiny_codec)


@pytest.fixture(scope="module")
def reference(request) -> dict:
    """Units of four clips, as the reference toolkit gives them."""
    return json.loads((request.path.parent / "fixtures" / "hubert-25hz" / "reference.json").read_text())


def test_audio_becomes_the_reference_prompts(processor, reference, recordings):
    waveforms = {path.stem: load_audio(path, 16_000) for path in recordings}
    clips = [waveforms[name][start:end] for name, start, end in reference["clips"]]
    batch = processor(clips, sampling_rate=16_000)
    for ids, mask, expected in zip(batch["input_ids"], batch["attention_mask"], reference["reference"], strict=True):
        assert ids[mask.bool()].tolist() == expected["ids"][:-1]
        assert (ids[~mask.bool()] == 0).all()
    assert processor(clips[0], sampling_rate=16_000)["input_ids"][0].tolist() == reference["reference"][0]["ids"][:-1]


def test_ids_become_audio(processor, tiny_codec):
    ids = torch.tensor([[1, 5, 9, 30, 1, 0], [1, 12, 7, 8, 9, 1]])
    expected = [
        tiny_codec.decode(torch.tensor([units])).audio_values[0, 0].numpy() for units in ([3, 7, 28], [10, 5, 6, 7])
    ]
    for waveform, reference in zip(processor.batch_decode(ids), expected, strict=True):
        assert waveform.dtype == np.float32
        assert np.array_equal(waveform, reference)
    assert processor.decode([1, 1]).shape == (0,)


def test_each_sequence_may_have_a_voice(processor, voices_codec):
    processor = copy.copy(processor)
    processor.audio_tokenizer = voices_codec
    units = [[3, 7, 28], [], [10, 5]]
    ids = [[unit + 2 for unit in sequence] for sequence in units]
    waveforms = processor.batch_decode(ids, speaker_id=["ben", "anna", 0], style_id="loud")
    for waveform, sequence, speaker in zip(waveforms, units, (1, 0, 0), strict=True):
        if sequence:
            durations = voices_codec.vocoder.predict_durations(torch.tensor([sequence]))
            expected = voices_codec.vocoder(torch.tensor([sequence]), durations, speaker, 1)[0]
            assert np.array_equal(waveform, expected.detach().numpy())
    assert len(waveforms[1]) == 0
    assert np.array_equal(processor.decode(ids[0], "ben", "loud"), waveforms[0])
    assert not np.array_equal(processor.decode(ids[0]), waveforms[0])
    with pytest.raises(ValueError, match="one of 'anna', 'ben'; got 'carla'"):
        processor.decode(ids[0], "carla")


def test_processor_names_its_codec(processor, tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "codec")
    processor.audio_tokenizer = AutoModelForAudioTokenization.from_pretrained(tmp_path / "codec")
    processor.save_pretrained(tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.safetensors"))
    loaded = AutoProcessor.from_pretrained(tmp_path / "model")
    assert isinstance(loaded, SpeechLMProcessor)
    waveform = 0.1 * np.random.default_rng(0).standard_normal(16_000, dtype=np.float32)
    expected = processor(waveform, sampling_rate=16_000)["input_ids"]
    assert torch.equal(loaded(waveform, sampling_rate=16_000)["input_ids"], expected)


def test_the_codec_of_the_package_is_named_as_on_every_machine(recordings, tmp_path):
    codec = load_codec("quickstart:codec")
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    processor = SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=500), codec)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    for folder in (tmp_path, tmp_path / "again"):
        saved = json.loads((folder / "processor_config.json").read_text())
        assert saved["codec"] == {"name_or_path": "quickstart:codec", "revision": None}
    waveform = load_audio(recordings[0], 16_000)[:32_000]
    expected = processor(waveform, sampling_rate=16_000)["input_ids"]
    assert torch.equal(loaded(waveform, sampling_rate=16_000)["input_ids"], expected)


def test_a_codec_that_has_moved_is_missed_only_where_audio_is(processor, tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "codec")
    processor.audio_tokenizer = AutoModelForAudioTokenization.from_pretrained(tmp_path / "codec")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "codec").rename(tmp_path / "moved")
    loaded = AutoProcessor.from_pretrained(tmp_path / "model")
    assert loaded.tokenizer.encode_units([3, 7])["input_ids"] == [1, 5, 9]
    with pytest.raises(OSError, match=f"names the codec '{tmp_path / 'codec'}', which cannot be loaded. Pass `codec="):
        loaded.decode([1, 5, 9])
    loaded.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "processor_config.json").read_text())
    assert saved["codec"] == {"name_or_path": str(tmp_path / "codec"), "revision": None}
    loaded.audio_tokenizer = AutoModelForAudioTokenization.from_pretrained(tmp_path / "moved")
    assert np.array_equal(loaded.decode([1, 5, 9]), processor.decode([1, 5, 9]))
    loaded.audio_tokenizer = None
    assert loaded.audio_tokenizer is None and "codec" not in loaded.to_dict()


def test_published_checkpoint_has_a_processor_without_processor_files(published_checkpoint):
    processor = AutoProcessor.from_pretrained(published_checkpoint)
    assert isinstance(processor, SpeechLMProcessor)
    assert (processor.tokenizer.num_units, processor.feature_extractor.sampling_rate) == (500, 16_000)
    with pytest.raises(ValueError, match="no unit codec, which audio needs"):
        processor(np.zeros(16_000, np.float32), sampling_rate=16_000)


@pytest.fixture
def interleaved_processor(interleaved_checkpoint) -> SpeechLMProcessor:
    return AutoProcessor.from_pretrained(
        interleaved_checkpoint, text_tokenizer=interleaved_checkpoint / "text-tokenizer"
    )


def test_interleaved_checkpoint_has_a_processor(interleaved_processor, interleaved_checkpoint, tmp_path):
    assert isinstance(interleaved_processor, SpeechLMProcessor)
    assert isinstance(interleaved_processor.tokenizer, SpeechTextTokenizer)
    interleaved_processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded.tokenizer, SpeechTextTokenizer)
    assert loaded.tokenizer.num_units == 40
    with pytest.raises(OSError, match="text_tokenizer="):
        AutoProcessor.from_pretrained(interleaved_checkpoint)


def test_texts_become_prompts(interleaved_processor):
    batch = interleaved_processor(text=["The old", "a"])
    assert batch["input_ids"].tolist() == [[0, 421, 295, 272, 274], [0, 421, 66, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert interleaved_processor(text="a", output_modality="speech")["input_ids"].tolist() == [[0, 421, 66, 420]]
    assert interleaved_processor(["a", ["a", "a"]], return_tensors=None)["input_ids"] == [
        [0, 421, 66, 0],
        [0, 421, 66, 66],
    ]
    with pytest.raises(ValueError, match="one of the two"):
        interleaved_processor()


def test_lists_of_text_and_audio_become_prompts(tiny_codec):
    tokenizer = SpeechTextTokenizer.from_text_tokenizer(
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0, "b": 1}, []))), num_units=50
    )
    processor = SpeechLMProcessor(EncodecFeatureExtractor(1, 16_000), tokenizer, tiny_codec)
    waveforms = [0.1 * np.random.default_rng(n).standard_normal(n, dtype=np.float32) for n in (8_000, 16_000)]
    first, second = (
        (tiny_codec.deduplicate(tiny_codec.encode(torch.from_numpy(waveform)[None]).audio_codes[0, 0])[0] + 2).tolist()
        for waveform in waveforms
    )
    batch = processor([[waveforms[0], "ab", waveforms[1]], "b", waveforms[1]], 16_000, return_tensors=None)
    mask = batch["attention_mask"]
    rows = [ids[: sum(row)] for ids, row in zip(batch["input_ids"], mask, strict=True)]
    assert rows == [[52, *first, 53, 0, 1, 52, *second], [53, 1], second]
    assert processor(waveforms[0].tolist(), 16_000)["input_ids"].tolist() == [first]
    with pytest.raises(ValueError, match="Pass `sampling_rate`"):
        processor(waveforms[0])


def test_unit_models_take_no_text(processor):
    for arguments in ({"text": "a"}, {"audio": ["a"]}, {"audio": np.zeros(16_000), "output_modality": "text"}):
        with pytest.raises(ValueError, match="a vocabulary of units alone: it takes and gives speech"):
            processor(**arguments, sampling_rate=16_000)


def test_processor_without_codec_is_saved_without_one(published_checkpoint, tmp_path):
    AutoProcessor.from_pretrained(published_checkpoint).save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.audio_tokenizer is None
    assert loaded.tokenizer.num_units == 500


def test_codec_of_another_model_is_an_error(processor):
    processor.tokenizer = HubertUnitTokenizer(num_units=500)
    with pytest.raises(ValueError, match="The codec.* has 50 units and the model 500"):
        processor.decode([1, 2])


@pytest.mark.parametrize("audio", [np.ones(8_000, np.int16), torch.ones(8_000, dtype=torch.int16), [[1] * 8_000]])
def test_integer_samples_are_not_taken_for_full_scale_ones(processor, audio):
    with pytest.raises(ValueError, match="must be floating point samples between -1 and 1, got torch.int"):
        processor(audio, 16_000)


def test_a_sequence_is_not_a_batch(processor):
    with pytest.raises(ValueError, match="must be a list of sequences: decode a single one with `decode`"):
        processor.batch_decode([5, 9])
    with pytest.raises(ValueError, match=r"expected integers of shape \(ids,\), got int64 of shape \(1, 1, 2\)"):
        processor.decode(torch.tensor([[5, 9]]))


def test_other_sampling_rate_is_an_error(processor):
    with pytest.raises(ValueError, match="sampling rate"):
        processor(np.zeros(8_000, np.float32), sampling_rate=8_000)


@pytest.mark.parametrize(
    "codec",
    [
        "user/codec",
        {},
        {"name_or_path": None},
        {"name_or_path": ["user/codec"]},
        {"name_or_path": "user/codec", "use_safetensors": False},
        {"name_or_path": "user/codec", "revision": 1},
        {"name_or_path": "user/codec", "revision": "../main"},
        {"name_or_path": "user/codec", "revision": "-main"},
        {"name_or_path": "user/codec/part"},
        {"name_or_path": "user/../codec"},
        {"name_or_path": "codec"},
        {"name_or_path": "/etc"},
        {"name_or_path": "quickstart:../codec"},
        {"name_or_path": "user/codec\n"},
        {"name_or_path": "https://user/codec"},
    ],
)
def test_a_reference_from_elsewhere_is_a_name_and_a_revision(codec):
    with pytest.raises(ValueError, match="^user/model: "):
        check_codec_reference(codec, "user/model", is_local=False)


def test_a_folder_does_not_take_the_place_of_a_repository(tmp_path, monkeypatch):
    reference = {"name_or_path": "user/codec", "revision": "v1.0/a"}
    assert check_codec_reference(reference, "user/model", is_local=False) == reference
    (tmp_path / "user" / "codec").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'user/codec' on the Hub is hidden by the folder '.*user/codec'"):
        check_codec_reference(reference, "user/model", is_local=False)
    assert check_codec_reference(reference, "model", is_local=True) == reference


def test_a_file_does_not_choose_the_class_of_the_codec(checkpoint, monkeypatch):
    named = {"audio_tokenizer_class": "DacModel", "audio_tokenizer_name_or_path": str(checkpoint / "codec")}
    path = checkpoint / "model" / "processor_config.json"
    path.write_text(json.dumps({"processor_class": "SpeechLMProcessor", "audio_tokenizer": named}))
    loaded = []
    monkeypatch.setattr(DacModel, "from_pretrained", lambda *args, **kwargs: loaded.append(args))
    with pytest.raises(ValueError, match="names the class 'DacModel'"):
        SpeechLMProcessor.from_pretrained(checkpoint / "model")
    assert loaded == []
