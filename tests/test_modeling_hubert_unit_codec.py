import itertools
import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.overrides import TorchFunctionMode
from transformers import AutoFeatureExtractor, AutoModel, HubertConfig, HubertModel

from slam_hf import HubertUnitCodec, HubertUnitCodecConfig, modeling_hubert_unit_codec
from slam_hf.configuration_hubert_unit_codec import UnitHifiGanConfig
from slam_hf.modeling_unit_hifigan import UnitHifiGan


FIXTURES = Path(__file__).parent / "fixtures"
REFERENCE = json.loads((FIXTURES / "hubert-25hz" / "reference.json").read_text())
KERNELS_AND_STRIDES = {
    25: ((10, 3, 3, 3, 3, 2, 2, 2), (5, 2, 2, 2, 2, 2, 2, 2)),
    50: ((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)),
}
VARIANTS = [
    pytest.param(
        rate, norm, stable, batch_norm, id=f"{rate}hz-{norm}-norm{'-stable' * stable}{'-batch-norm' * batch_norm}"
    )
    for rate, norm, stable, batch_norm in itertools.product((25, 50), ("group", "layer"), (False, True), (False, True))
]


def make_hubert(
    frame_rate: int = 25, feat_extract_norm: str = "group", stable: bool = False, batch_norm: bool = True
) -> HubertModel:
    """A tiny HuBERT of three layers whose states differ from frame to frame as those of a trained one do."""
    torch.manual_seed(0)
    kernels, strides = KERNELS_AND_STRIDES[frame_rate]
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=[16] * len(kernels),
        conv_kernel=kernels,
        conv_stride=strides,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm=feat_extract_norm,
        do_stable_layer_norm=stable,
        conv_pos_batch_norm=batch_norm,
        initializer_range=0.2,
    )
    hubert = HubertModel(config).eval()
    if batch_norm:
        statistics = hubert.encoder.pos_conv_embed.batch_norm
        statistics.running_mean.normal_()
        statistics.running_var.uniform_(0.5, 2)
    return hubert


def make_clips(*num_samples: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(length, generator=generator) for length in num_samples]


def hidden_states(hubert: HubertModel, clip: torch.Tensor, layer: int) -> torch.Tensor:
    with torch.no_grad():
        padded = torch.nn.functional.pad(clip[None], (40, 40))
        return hubert(padded, output_hidden_states=True).hidden_states[layer][0]


def make_codec(hubert: HubertModel, layer: int = 2, num_units: int = 20) -> HubertUnitCodec:
    """A codec whose centroids are states of the HuBERT, so that it uses all of its units."""
    states = hidden_states(hubert, make_clips(60_000)[0], layer)
    return HubertUnitCodec.from_parts(
        hubert=hubert, kmeans=states[:: len(states) // num_units][:num_units], layer=layer
    )


def pad(clips: list[torch.Tensor], padding_value: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = pad_sequence(clips, batch_first=True, padding_value=padding_value)
    return batch, torch.arange(batch.shape[1]) < lengths[:, None]


def encode_alone(codec: HubertUnitCodec, clip: torch.Tensor) -> list[int]:
    return codec.encode(clip[None]).audio_codes[0, 0].tolist()


def encode_together(
    codec: HubertUnitCodec, clips: list[torch.Tensor], padding_value: float = 0.0, batched: bool = False
) -> list[list[int]]:
    encoded = codec.encode(*pad(clips, padding_value), batched=batched)
    return [codes[0, :length].tolist() for codes, length in zip(encoded.audio_codes, encoded.lengths, strict=True)]


@pytest.fixture(scope="module")
def reference_clips() -> list[torch.Tensor]:
    clips = []
    for name, start, end in REFERENCE["clips"]:
        audio, _ = soundfile.read(FIXTURES / "librispeech-clips" / f"{name}.flac", dtype="float32")
        clips.append(torch.from_numpy(audio[start:end]))
    return clips


@pytest.fixture(scope="module")
def codec() -> HubertUnitCodec:
    return make_codec(make_hubert())


@pytest.mark.parametrize("index", range(4))
def test_reference_units_of_a_clip_alone(tiny_codec, reference_clips, index):
    expected = REFERENCE["reference"][index]
    raw = tiny_codec.encode(reference_clips[index][None, None]).audio_codes[0, 0]
    units, durations = tiny_codec.deduplicate(raw)
    assert raw.tolist() == expected["raw"]
    assert units.tolist() == expected["units"]
    assert durations.tolist() == expected["durations"]


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of 6 s on an accelerator: several of one length, and not all of them full."""
    monkeypatch.setattr(modeling_hubert_unit_codec, "_BATCH_SECONDS", 6)


@pytest.mark.parametrize(("size", "batched"), [(2, False), (3, False), (4, False), (4, True)])
def test_reference_units_in_every_batch(tiny_codec, reference_clips, size, batched, small_batches):
    for indices in itertools.permutations(range(4), size):
        expected = [REFERENCE["reference"][index]["raw"] for index in indices]
        clips = [reference_clips[index] for index in indices]
        assert encode_together(tiny_codec, clips, batched=batched) == expected


def test_plain_batching_would_change_reference_units(tiny_codec, reference_clips):
    batch, _ = pad(reference_clips)
    hubert = HubertModel.from_pretrained(FIXTURES / "hubert-25hz")
    with torch.no_grad():
        states = hubert(torch.nn.functional.pad(batch, (40, 40)), output_hidden_states=True).hidden_states[3]
    changed = total = 0
    for clip_states, expected in zip(states, REFERENCE["reference"], strict=True):
        distances = torch.cdist(clip_states, tiny_codec.codebook)
        plain = distances.argmin(dim=1)[: len(expected["raw"])]
        changed += (plain != torch.tensor(expected["raw"])).sum().item()
        total += len(expected["raw"])
    assert changed / total > 0.1


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("frame_rate", "norm", "stable", "batch_norm"), VARIANTS)
def test_units_do_not_depend_on_the_batch(frame_rate, norm, stable, batch_norm, batched, small_batches):
    codec = make_codec(make_hubert(frame_rate, norm, stable, batch_norm))
    lengths = np.random.default_rng(0).integers(640, 40_000, size=12)
    clips = make_clips(*lengths.tolist())
    alone = [encode_alone(codec, clip) for clip in clips]
    assert len(set(itertools.chain(*alone))) > 10
    assert encode_together(codec, clips, batched=batched) == alone
    assert encode_together(codec, clips[::-1], padding_value=0.5, batched=batched) == alone[::-1]
    assert encode_together(codec, clips[3:8], padding_value=float("nan"), batched=batched) == alone[3:8]


def test_clips_are_padded_to_few_lengths_by_at_most_a_quarter(codec):
    padded = {frames: codec.batch_shape(640 * frames, batched=True)[1] for frames in range(1, 1001)}
    assert all(640 * frames <= length < 640 * 1.25 * frames + 1 for frames, length in padded.items())
    assert len(set(padded.values())) == 36
    assert codec.batch_shape(640 * 300 + 1, batched=True) == (5, 640 * 320)


def test_a_batch_has_at_least_a_minute_of_audio_and_depends_on_the_length_alone(codec):
    lengths = (640, 160_000, 160_001, 163_840, 640_000, 960_000, 1_600_000)
    shapes = [codec.batch_shape(num_samples, batched=True) for num_samples in lengths]
    assert shapes == [(1600, 640), *[(7, 163_840)] * 3, (2, 655_360), (2, 983_040), (1, 1_638_400)]
    assert codec.batch_shape(160_001) == (1, 160_001)  # a clip at a time on a CPU


def test_the_codec_does_not_use_tf32_and_leaves_the_setting_alone(tiny_codec):
    convolutions, seen = torch.backends.cudnn.conv, []
    before = convolutions.fp32_precision
    modules = (tiny_codec.encoder, tiny_codec.vocoder.hifi_gan)
    hooks = [module.register_forward_hook(lambda *_: seen.append(convolutions.fp32_precision)) for module in modules]
    try:
        convolutions.fp32_precision = "tf32"
        encode_alone(tiny_codec, make_clips(2_000)[0])
        tiny_codec.decode(torch.tensor([[1, 2]]))
        assert (seen, convolutions.fp32_precision) == (["ieee", "ieee"], "tf32")
    finally:
        convolutions.fp32_precision = before
        for hook in hooks:
            hook.remove()


def test_threads_that_overlap_compute_without_tf32_and_restore_the_setting(tiny_codec, monkeypatch):
    convolutions, barrier, seen = torch.backends.mkldnn.conv, threading.Barrier(2, timeout=30), []
    before = convolutions.fp32_precision
    forward = tiny_codec.vocoder.forward

    def wait(*arguments):
        barrier.wait()  # both threads are inside
        if threading.current_thread().name == "second":
            first.join()
        seen.append(convolutions.fp32_precision)
        return forward(*arguments)

    monkeypatch.setattr(tiny_codec.vocoder, "forward", wait)
    units = torch.tensor([[1, 2, 3]])
    first, second = (
        threading.Thread(target=tiny_codec.decode, args=(units,), name=name) for name in ("first", "second")
    )
    try:
        convolutions.fp32_precision = "tf32"
        for thread in (first, second):
            thread.start()
        for thread in (first, second):
            thread.join()
        assert (seen, convolutions.fp32_precision) == (["ieee", "ieee"], "tf32")
    finally:
        convolutions.fp32_precision = before


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_older_setting_of_tf32_agrees_with_the_newer_one(tiny_codec, precision):
    """Where the two differ, PyTorch raises an error at the first matrix product on a GPU."""
    matmul, seen = torch.backends.cuda.matmul, []
    hook = tiny_codec.encoder.register_forward_hook(lambda *_: seen.append((matmul.allow_tf32, matmul.fp32_precision)))
    try:
        torch.set_float32_matmul_precision(precision)
        encode_alone(tiny_codec, make_clips(2_000)[0])
        assert seen == [(False, "ieee")]
        assert torch.get_float32_matmul_precision() == precision
        assert matmul.allow_tf32 is (precision != "highest")
    finally:
        torch.set_float32_matmul_precision("highest")
        hook.remove()


@pytest.mark.parametrize(("frame_rate", "norm", "stable", "batch_norm"), VARIANTS)
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_units_are_the_centroids_nearest_to_the_hidden_states_of_the_layer(
    frame_rate, norm, stable, batch_norm, layer
):
    hubert = make_hubert(frame_rate, norm, stable, batch_norm)
    codec = make_codec(hubert, layer)
    (clip,) = make_clips(20_000)
    distances = torch.cdist(hidden_states(hubert, clip, layer).double(), codec.codebook.double())
    assert encode_alone(codec, clip) == distances.argmin(dim=1).tolist()
    assert len(codec.encoder.encoder.layers) == codec.config.layer == layer


def test_units_agree_with_scikit_learn(codec):
    cluster = pytest.importorskip("sklearn.cluster")
    kmeans = cluster.KMeans(codec.codebook_size, n_init=1, max_iter=1).fit(codec.codebook.numpy())
    kmeans.cluster_centers_ = codec.codebook.numpy()
    states = hidden_states(codec.encoder, make_clips(200_000)[0], 2)
    assert codec._nearest_centroids(states).tolist() == kmeans.predict(states.numpy()).tolist()


def test_chunks_of_frames_do_not_change_units(codec, monkeypatch):
    (clip,) = make_clips(50_000)
    expected = encode_alone(codec, clip)
    monkeypatch.setattr(modeling_hubert_unit_codec, "_CHUNK_FRAMES", 7)
    assert encode_alone(codec, clip) == expected


@pytest.mark.parametrize("frame_rate", [25, 50])
def test_number_of_frames_is_samples_by_hop_length(frame_rate):
    codec = make_codec(make_hubert(frame_rate))
    hop_length = codec.config.hop_length
    assert (codec.frame_rate, codec.config.pad, hop_length) == (frame_rate, 40, 16_000 // frame_rate)
    for num_samples in (hop_length, 2 * hop_length - 1, 2 * hop_length, 7 * hop_length + 13):
        assert len(encode_alone(codec, torch.zeros(num_samples))) == num_samples // hop_length


def test_codes_are_padded_with_minus_one(codec):
    encoded = codec.encode(*pad(make_clips(640 * 2, 640 * 4)))
    assert encoded.audio_codes.shape == (2, 1, 4)
    assert encoded.audio_codes.dtype == torch.int64
    assert encoded.audio_codes[0, 0, 2:].tolist() == [-1, -1]
    assert encoded.lengths.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("input_values", "padding_mask", "message"),
    [
        (torch.zeros(1, 16_000, dtype=torch.int16), None, "floating point samples"),
        (torch.zeros(16_000), None, "must have shape"),
        (torch.zeros(0, 16_000), None, "must have shape"),
        (torch.zeros(1, 2, 16_000), None, "2 channels"),
        (torch.zeros(2, 639), None, "Clip 0 has 639 samples; a single frame takes 640"),
        (torch.zeros(2, 16_000), torch.arange(16_000) < torch.tensor([[16_000], [0]]), "Clip 1 has 0 samples"),
        (torch.zeros(3, 16_000).index_fill(0, torch.tensor([2]), torch.nan), None, "Clip 2 holds NaN"),
        (torch.zeros(2, 16_000).index_fill(0, torch.tensor([1]), torch.inf), None, "Clip 1 holds NaN or infinite"),
        (torch.zeros(2, 16_000), torch.ones(2, 100), "`padding_mask` must have shape"),
        (torch.zeros(2, 16_000), torch.arange(16_000) >= torch.tensor([[0], [9]]), "`padding_mask` of clip 1"),
    ],
)
def test_encode_refuses_bad_input(codec, input_values, padding_mask, message):
    with pytest.raises(ValueError, match=message):
        codec.encode(input_values, padding_mask)


def test_encoder_stays_in_evaluation_mode(codec):
    (clip,) = make_clips(20_000)
    expected = encode_alone(codec, clip)
    statistics = codec.encoder.encoder.pos_conv_embed.batch_norm.running_mean.clone()
    try:
        assert encode_alone(codec.train(), clip) == expected
    finally:
        codec.eval()
    assert torch.equal(codec.encoder.encoder.pos_conv_embed.batch_norm.running_mean, statistics)


def test_what_is_made_of_arrays_and_lists_is_that_of_tensors(tiny_codec):
    clips = [torch.rand(n, generator=torch.Generator().manual_seed(n)) - 0.5 for n in (4_000, 2_600)]
    expected = tiny_codec.encode(clips).audio_codes
    for same in ([clip.numpy() for clip in clips], tuple(clip.tolist() for clip in clips)):
        assert torch.equal(tiny_codec.encode(same).audio_codes, expected)
        assert all(map(torch.equal, tiny_codec.hidden_states(same), tiny_codec.hidden_states(clips)))
    decoded = tiny_codec.decode(torch.tensor([[4, 0, 7], [4, 9, -1]]))
    for same in ([[4, 0, 7], [4, 9]], [np.array([4, 0, 7], np.uint16), np.array([4, 9], np.uint16)]):
        assert torch.equal(tiny_codec.decode(same).audio_values, decoded.audio_values)
        assert torch.equal(tiny_codec.decode(same, decoded.durations.numpy()).audio_values, decoded.audio_values)
        assert torch.equal(tiny_codec.predict_durations(same[0]), decoded.durations[0])


def test_units_of_a_prediction_of_durations_are_checked(tiny_codec):
    with pytest.raises(ValueError, match="must hold units from 0 to 49"):
        tiny_codec.predict_durations([4, 50])
    with pytest.raises(ValueError, match=re.escape("`units` must have shape (num_units,), got (2, 1).")):
        tiny_codec.predict_durations([[4], [5]])


@pytest.mark.parametrize(
    "units", [[4, 4, 0], np.array([4, 4, 0], np.uint16), torch.tensor([4, 4, 0]).to(torch.uint16)]
)
def test_deduplicate_takes_integers_of_any_kind(units):
    assert [part.tolist() for part in HubertUnitCodec.deduplicate(units)] == [[4, 0], [2, 1]]


def test_deduplicate():
    units, durations = HubertUnitCodec.deduplicate(torch.tensor([4, 4, 4, 0, 7, 7, 4]))
    assert units.tolist() == [4, 0, 7, 4]
    assert durations.tolist() == [3, 1, 2, 1]


@pytest.mark.parametrize("units", [torch.tensor([3, 3, -1]), torch.tensor([[3, 3, 4]])])
def test_deduplicate_refuses_padding_and_batches(units):
    with pytest.raises(ValueError, match="one clip without padding"):
        HubertUnitCodec.deduplicate(units)


@pytest.fixture(scope="module")
def reference_waveforms() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    with np.load(FIXTURES / "unit-hifigan" / "reference.npz") as arrays:
        codes = [torch.from_numpy(arrays[f"codes_{i}"]) for i in range(2)]
        return codes, [torch.from_numpy(arrays[f"wav_{i}"]) for i in range(2)]


@pytest.mark.parametrize("batched", [False, True])
def test_reference_waveforms_in_every_batch(tiny_codec, reference_waveforms, batched, small_batches):
    codes, expected = reference_waveforms
    decoded = tiny_codec.decode(pad_sequence(codes, batch_first=True, padding_value=-1)[:, None], batched=batched)
    assert decoded.lengths.tolist() == [len(waveform) for waveform in expected]
    for units, waveform, reference in zip(codes, decoded.audio_values[:, 0], expected, strict=True):
        alone = tiny_codec.decode(units[None]).audio_values[0, 0]
        torch.testing.assert_close(alone, reference, atol=1e-4, rtol=0)
        torch.testing.assert_close(waveform[: len(alone)], alone, atol=1e-5 if batched else 0, rtol=0)
        assert not waveform[len(alone) :].any()


VOCODERS = {
    "plain": {},
    "speakers and styles": {"num_speakers": 3, "num_styles": 2},
    "type 2": {"resblock_type": 2},
    "even kernels": {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 2]]},
}


@pytest.mark.parametrize("settings", VOCODERS.values(), ids=VOCODERS)
def test_waveforms_in_a_batch_are_those_of_the_sequence_alone(settings, small_batches):
    torch.manual_seed(0)
    config = UnitHifiGanConfig(
        num_units=20,
        unit_embed_dim=8,
        upsample_initial_channel=32,
        duration_hidden_dim=10,
        initializer_range=0.2,
        **settings,
    )
    vocoder = UnitHifiGan(config).eval()
    torch.nn.init.constant_(vocoder.duration_predictor.proj.bias, 1.0)
    codec = HubertUnitCodec.from_parts(make_hubert(), np.ones((20, 32)), layer=1, vocoder=vocoder)
    generator = torch.Generator().manual_seed(1)
    lengths = [5, 1, 30, 17, 31, 2, 9, 30]
    sequences = [torch.randint(20, (length,), generator=generator) for length in lengths]
    speakers = styles = [None] * len(lengths)
    if settings.get("num_speakers"):
        speakers, styles = [0, 1, 2, 0, 2, 1, 1, 0], [1, 0, 0, 1, 1, 0, 1, 0]
    for with_durations, order in itertools.product((False, True), (range(8), range(7, -1, -1), (2, 3, 0))):
        durations = [1 + units % 3 for units in sequences] if with_durations else [None] * len(lengths)
        together = codec.decode(
            pad_sequence([sequences[i] for i in order], batch_first=True, padding_value=-1),
            pad_sequence([durations[i] for i in order], batch_first=True) if with_durations else None,
            torch.tensor([speakers[i] for i in order]) if speakers[0] is not None else None,
            torch.tensor([styles[i] for i in order]) if styles[0] is not None else None,
            batched=True,
        )
        for i, waveform, length in zip(order, together.audio_values[:, 0], together.lengths, strict=True):
            given = durations[i][None] if with_durations else None
            alone = codec.decode(sequences[i][None], given, speakers[i], styles[i]).audio_values[0, 0]
            assert length == len(alone)
            assert alone.std() > 1e-3
            torch.testing.assert_close(waveform[:length], alone, rtol=0, atol=1e-5)
            assert not waveform[length:].any()


def test_a_waveform_does_not_depend_on_its_neighbours_in_a_batch(tiny_codec, small_batches):
    units = torch.randint(50, (4, 12))
    waveforms = []
    for position in range(4):
        batch = torch.randint(50, (4, 12))
        batch[position] = units[0]
        waveforms.append(
            tiny_codec.decode(batch, durations=torch.ones_like(batch), batched=True).audio_values[position]
        )
    assert all(torch.equal(waveforms[0], other) for other in waveforms[1:])


def test_given_durations_stand_for_repeated_units(tiny_codec):
    units, durations = torch.tensor([[3, 9, 4], [7, 1, -1]]), torch.tensor([[2, 1, 3], [4, 1, 0]])
    decoded = tiny_codec.decode(units, durations=durations)
    assert decoded.lengths.tolist() == [6 * 640, 5 * 640]
    frames = torch.tensor([[3, 3, 9, 4, 4, 4], [7, 7, 7, 7, 1, -1]])
    repeated = tiny_codec.decode(frames, durations=torch.ones_like(frames))
    assert torch.equal(decoded.audio_values, repeated.audio_values)


@pytest.mark.parametrize(
    ("audio_codes", "durations", "message"),
    [
        (torch.tensor([1, 2]), None, "must have shape"),
        (torch.zeros(1, 2, 5, dtype=torch.long), None, "one codebook"),
        (torch.zeros(1, 5), None, "must be integers"),
        (torch.tensor([[1, 2], [-1, -1]]), None, "Sequence 1 has no units"),
        (torch.tensor([[1, 2], [3, 50]]), None, "Sequence 1 must hold units from 0 to 49"),
        (torch.tensor([[1, -1, 2]]), None, "Sequence 0 must hold units"),
        (torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2]]), "`durations` must be integers of shape"),
        (torch.tensor([[1, 2, 3]]), torch.tensor([[1, 0, 2]]), "lasts no frame"),
    ],
)
def test_decode_refuses_bad_input(tiny_codec, audio_codes, durations, message):
    with pytest.raises(ValueError, match=message):
        tiny_codec.decode(audio_codes, durations)


def test_decode_without_a_vocoder_says_how_to_get_one(codec):
    with pytest.raises(ValueError, match="vocoder=..., vocoder_config=..."):
        codec.decode(torch.tensor([[1, 2]]))


def test_forward_is_the_way_through_units_and_back(tiny_codec, reference_clips):
    inputs = pad(reference_clips[1:2] + reference_clips[3:])
    output = tiny_codec(*inputs)
    assert torch.equal(output.audio_codes, tiny_codec.encode(*inputs).audio_codes)
    units, durations = tiny_codec.deduplicate(output.audio_codes[0, 0])
    expected = tiny_codec.decode(units[None], durations=durations[None]).audio_values
    assert torch.equal(output.audio_values[:1], expected)


def test_saved_codec_needs_nothing_else(tiny_codec, reference_clips, tmp_path):
    tiny_codec.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".py"} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, HubertUnitCodec)
    for name, tensor in tiny_codec.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    feature_extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = feature_extractor([clip.numpy() for clip in reference_clips], sampling_rate=16_000, return_tensors="pt")
    encoded = loaded.encode(**inputs)
    expected = tiny_codec.encode(*pad(reference_clips))
    assert torch.equal(encoded.audio_codes, expected.audio_codes)
    assert torch.equal(
        loaded.decode(encoded.audio_codes[:, :, :9]).audio_values,
        tiny_codec.decode(expected.audio_codes[:, :, :9]).audio_values,
    )


def test_saved_codec_keeps_a_weight_normed_positional_convolution(tmp_path):
    codec = make_codec(make_hubert(batch_norm=False))
    codec.save_pretrained(tmp_path)
    loaded = HubertUnitCodec.from_pretrained(tmp_path)
    (clip,) = make_clips(30_000)
    assert encode_alone(loaded, clip) == encode_alone(codec, clip)
    assert torch.equal(
        loaded.encoder.encoder.pos_conv_embed.conv.weight, codec.encoder.encoder.pos_conv_embed.conv.weight
    )


class CountWaits(TorchFunctionMode):
    """Counts calls for which the host waits for a GPU: it has to know their result, or its size."""

    NAMES = {"tolist", "item", "__bool__", "__int__", "__float__", "__index__", "numpy", "cpu", "equal"}
    NAMES |= {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"}

    def __enter__(self):
        self.calls = []
        return super().__enter__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        indices = args[1] if name in ("__getitem__", "__setitem__") else ()
        indices = indices if isinstance(indices, tuple) else (indices,)
        has_mask = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
        has_unknown_size = name == "repeat_interleave" and "output_size" not in kwargs
        if name in self.NAMES or has_mask or has_unknown_size:
            self.calls.append(name)
        return func(*args, **kwargs)


def test_waits_are_counted():
    numbers = torch.arange(3)
    with CountWaits() as waits:
        if numbers.min() < 0 or numbers[0].item() == 1:
            numbers = numbers[numbers > 0]
        numbers = numbers[numbers > 0].repeat_interleave(torch.tensor([1, 2])).tolist()
    assert waits.calls == ["__bool__", "item", "__getitem__", "repeat_interleave", "tolist"]


@pytest.mark.parametrize("count", [1, 12])
def test_the_host_waits_once_to_check_a_batch_and_not_for_each_clip(tiny_codec, count, small_batches):
    batch, mask = pad(make_clips(*range(2_000, 2_000 + 3_000 * count, 3_000)))
    with CountWaits() as waits:
        tiny_codec.encode(batch, mask, batched=True)
    assert waits.calls == ["tolist"]


@pytest.mark.parametrize("count", [1, 12])
def test_the_host_waits_to_check_units_and_for_their_durations_once(tiny_codec, count, small_batches):
    units = torch.randint(50, (count, 30))
    units[-1, 20:] = -1
    with CountWaits() as waits:
        tiny_codec.decode(units, batched=True)
    assert waits.calls == ["tolist"] * 2
    with CountWaits() as waits:
        tiny_codec.decode(units, durations=torch.ones_like(units), batched=True)
    assert waits.calls == ["tolist"] * 3  # durations are checked, too


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codebook_stays_in_float32(tiny_codec, reference_clips, tmp_path, dtype):
    tiny_codec.save_pretrained(tmp_path)
    half = HubertUnitCodec.from_pretrained(tmp_path, dtype=dtype, device_map="cpu")
    assert half.encoder.dtype == half.vocoder.dtype == dtype
    assert {weight.dtype for weight in half.vocoder.duration_predictor.parameters()} == {torch.float32}
    assert torch.equal(half.codebook, tiny_codec.codebook)
    alone = [encode_alone(half, clip) for clip in reference_clips]
    assert encode_together(half, reference_clips) == alone
    assert alone[0][:3] == REFERENCE["reference"][0]["raw"][:3]
    with pytest.raises(ValueError, match="which changes the units"):
        half.to(dtype).encode(reference_clips[0][None])


def test_fresh_codec_is_initialised():
    config = HubertUnitCodecConfig(encoder_config=make_hubert().config, num_units=5)
    codec = HubertUnitCodec(config)
    assert codec.vocoder is None
    assert 0.5 < codec.codebook.std() < 2


def test_from_parts_leaves_the_hubert_alone():
    hubert = make_hubert()
    before = {name: tensor.clone() for name, tensor in hubert.state_dict().items()}
    codec = make_codec(hubert, layer=1)
    codec.encoder.feature_projection.projection.weight.data.zero_()
    assert hubert.config.num_hidden_layers == len(hubert.encoder.layers) == 3
    for name, tensor in hubert.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_from_parts_takes_a_vocoder_in_memory():
    vocoder = UnitHifiGan(UnitHifiGanConfig(num_units=20, unit_embed_dim=8, upsample_initial_channel=32)).eval()
    hubert = make_hubert()
    codec = HubertUnitCodec.from_parts(hubert=hubert, kmeans=np.ones((20, 32)), layer=3, vocoder=vocoder)
    units = torch.tensor([[3, 1, 4]])
    expected = vocoder(units, vocoder.predict_durations(units))
    assert torch.equal(codec.decode(units).audio_values[0], expected)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"layer": 0}, "`layer` must be from 1 to 3"),
        ({"layer": 4}, "`layer` must be from 1 to 3"),
        ({"kmeans": np.ones((20, 48))}, r"shape \(20, 48\) and HuBERT's states 32"),
        ({"kmeans": np.ones(32)}, r"shape \(32,\)"),
        ({"vocoder": "vocoder.pt"}, "pass `vocoder_config`"),
        ({"vocoder": {"num_units": 21}}, "embeddings for 21 units and the codebook holds 20"),
        ({"vocoder": {"upsample_rates": [5, 4, 4, 2, 2]}}, "320 samples at 16000 Hz of a frame"),
        ({"vocoder": {"sampling_rate": 24_000}}, "640 samples at 24000 Hz of a frame"),
    ],
)
def test_from_parts_refuses_parts_that_do_not_fit(parts, message):
    if isinstance(parts.get("vocoder"), dict):
        settings = {"num_units": 20, "unit_embed_dim": 8, "upsample_initial_channel": 32, **parts["vocoder"]}
        parts = {"vocoder": UnitHifiGan(UnitHifiGanConfig(**settings))}
    with pytest.raises(ValueError, match=message):
        HubertUnitCodec.from_parts(**{"hubert": make_hubert(), "kmeans": np.ones((20, 32)), "layer": 2, **parts})


@pytest.mark.parametrize("batched", [False, True])
def test_units_and_durations_do_not_depend_on_autocast(tiny_codec, reference_clips, batched, small_batches):
    clip = reference_clips[0][None]
    states = hidden_states(tiny_codec.encoder, clip[0], 3)
    expected = tiny_codec.encode(clip, batched=batched).audio_codes
    units = torch.unique_consecutive(expected[0, 0])[None]
    durations = tiny_codec.vocoder.predict_durations(units)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tiny_codec.encode(clip, batched=batched).audio_codes, expected)
        assert torch.equal(tiny_codec._nearest_centroids(states), expected[0, 0])
        assert tiny_codec.decode(units, batched=batched).lengths.tolist() == [640 * durations.sum()]
        assert torch.equal(tiny_codec.vocoder.predict_durations(units), durations)
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_waveforms_in_16_bits_are_encoded_as_their_values(tiny_codec, reference_clips, dtype):
    clip = reference_clips[0][None].to(dtype)
    assert torch.equal(tiny_codec.encode(clip).audio_codes, tiny_codec.encode(clip.float()).audio_codes)


def test_the_type_of_a_clip_does_not_change_its_neighbours(tiny_codec, reference_clips):
    clip = reference_clips[0]
    (expected,) = tiny_codec.hidden_states([clip], batched=True)
    _, states = tiny_codec.hidden_states([clip.half(), clip], batched=True)
    assert torch.equal(states, expected)


@pytest.mark.parametrize("name", ["codebook", "vocoder.hifi_gan.conv_pre.bias", "encoder.encoder.layer_norm.weight"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_codec_with_weights_that_are_not_finite_is_refused(tiny_codec, tmp_path, name, value):
    tiny_codec.save_pretrained(tmp_path)
    codec = HubertUnitCodec.from_pretrained(tmp_path)
    with torch.no_grad():
        codec.get_parameter_or_buffer(name).view(-1)[0] = value
    codec.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path.name}': {name} holds NaN or infinite weights"):
        HubertUnitCodec.from_pretrained(tmp_path)


def test_a_changed_number_of_units_is_refused_before_a_codec_is_built(tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path)
    config = HubertUnitCodecConfig.from_pretrained(tmp_path, num_units=60)
    with pytest.raises(ValueError, match="embeddings for 50 units and the codebook holds 60"):
        HubertUnitCodec(config)


def test_a_configuration_leaves_that_of_the_caller_alone(tiny_codec):
    encoder_config = HubertConfig(**tiny_codec.config.encoder_config.to_diff_dict())
    config = HubertUnitCodecConfig(encoder_config=encoder_config, num_units=50)
    HubertUnitCodec._from_config(config, attn_implementation="eager", dtype=torch.bfloat16)
    assert encoder_config.dtype != torch.bfloat16 and encoder_config._attn_implementation is None


@pytest.mark.parametrize("pad", [-5, 10**12])
def test_more_padding_than_a_frame_sees_is_refused(tiny_codec, pad):
    with pytest.raises(ValueError, match="`pad` must be from 0 to"):
        HubertUnitCodecConfig(encoder_config=tiny_codec.config.encoder_config, num_units=50, pad=pad)
