"""Nothing in the tests reaches the network: what speaks to a Hub speaks to one on the loopback, in its own process."""

import hashlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import dill
import fsspec
import pytest
import torch


# Read when the libraries are imported, which the test modules do.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TRACKIO_DIR", os.path.join(tempfile.gettempdir(), "trackio-of-tests"))

FIXTURES = Path(__file__).parent / "fixtures"


def pytest_terminal_summary(terminalreporter):
    """Prints the figures of the attacks that nothing was lost in."""
    passed = terminalreporter.getreports("passed")
    lines = Counter(line for report in passed for name, line in report.user_properties if name == "attack")
    if lines:
        terminalreporter.section("attacks")
        terminalreporter.write("".join(f"{count} × {line}\n" for line, count in sorted(lines.items())))


@pytest.fixture(autouse=True)
def _one_thread():
    """Two test processes share two cores; and a child forked where threads have run would wait for them for ever."""
    torch.set_num_threads(1)


@pytest.fixture
def published_checkpoint() -> Path:
    """A tiny checkpoint in the published format, with the reference toolkit's outputs for it."""
    return FIXTURES / "published-checkpoint"


@pytest.fixture(scope="session")
def interleaved_checkpoint() -> Path:
    """
    A tiny checkpoint of text and speech in the published format, its text tokenizer in a subfolder, with the
    reference toolkit's outputs for it.
    """
    return FIXTURES / "interleaved-checkpoint"


@pytest.fixture(scope="session")
def tiny_codec():
    """A codec of 50 units: a tiny HuBERT at 25 Hz with random weights, its k-means, and a matching unit HiFi-GAN."""
    from slam_hf import HubertUnitCodec

    return HubertUnitCodec.from_parts(
        hubert=FIXTURES / "hubert-25hz",
        kmeans=FIXTURES / "hubert-25hz" / "kmeans.bin",
        layer=3,
        vocoder=FIXTURES / "unit-hifigan" / "g_00500000",
        vocoder_config=FIXTURES / "unit-hifigan" / "config.json",
    )


@pytest.fixture(scope="session")
def voices_codec(tiny_codec):
    """`tiny_codec` with an untrained vocoder of the speakers anna and ben, who speak in the styles calm and loud."""
    from slam_hf import HubertUnitCodec
    from slam_hf.modeling_unit_hifigan import UnitHifiGan

    config = type(tiny_codec.config.vocoder_config)(
        **tiny_codec.config.vocoder_config.to_dict()
        | {"num_speakers": 2, "speaker_names": ["anna", "ben"], "num_styles": 2, "style_names": ["calm", "loud"]}
        | {"initializer_range": 0.3}
    )
    torch.manual_seed(0)
    return HubertUnitCodec.from_parts(tiny_codec.encoder, tiny_codec.codebook, layer=3, vocoder=UnitHifiGan(config))


@pytest.fixture(scope="session")
def tiny_model():
    """A speech language model over the units of `tiny_codec`, with random weights."""
    from transformers import Qwen2Config

    from slam_hf import SpeechLMConfig, SpeechLMForCausalLM

    torch.manual_seed(0)
    base_config = Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,  # or a greedy continuation repeats one unit
    )
    return SpeechLMForCausalLM(SpeechLMConfig(base_config=base_config.to_dict(), vocab_size=52)).eval()


@pytest.fixture
def tiny_processor():
    """A processor for `tiny_model`, which names no codec."""
    from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
    from slam_hf.configuration_hubert_unit_codec import make_feature_extractor

    return SpeechLMProcessor(make_feature_extractor(), HubertUnitTokenizer(num_units=50))


@pytest.fixture
def checkpoint(tmp_path, tiny_model, tiny_codec) -> Path:
    """A folder with `model`, which names no codec, and `codec`."""
    from slam_hf import HubertUnitTokenizer

    tiny_model.save_pretrained(tmp_path / "model")
    HubertUnitTokenizer(num_units=50).save_pretrained(tmp_path / "model")
    tiny_codec.save_pretrained(tmp_path / "codec")
    return tmp_path


@pytest.fixture(scope="session")
def recordings() -> list[Path]:
    """Two LibriSpeech recordings, 14.1 and 15.9 seconds long."""
    return [FIXTURES / "librispeech-clips" / name for name in ("audio1.flac", "audio2.flac")]


@pytest.fixture
def dnsmos(monkeypatch) -> ModuleType:
    """A stand-in for DNSMOS, which says how loud and how long a clip is."""
    import numpy as np

    from slam_hf.judging import sound

    module = ModuleType("speechmos.dnsmos")

    def run(clip, rate):
        assert rate == 16_000 and clip.dtype == np.float32 and np.abs(clip).max() <= 1
        names = ("ovrl_mos", "sig_mos", "bak_mos", "p808_mos")
        return dict(zip(names, (len(clip) / rate, float(clip.max()), 3.0, 4.0), strict=True))

    module.run = run
    package = ModuleType("speechmos")
    package.dnsmos = module
    monkeypatch.setitem(sys.modules, "speechmos", package)
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", module)
    monkeypatch.setattr(sound.metadata, "version", lambda name: f"{name} 1")
    return module


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """A bucket of an object store on the loopback, as a URL. Its server only answers while the session lasts."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "loopback")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("recordings")
        yield "s3://recordings"
    server.stop()


@pytest.fixture
def bucket_folder(object_store, request) -> str:
    """An empty folder of the object store, as a URL."""
    return f"{object_store}/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster whose `sbatch` keeps each script with its arguments, and whose `srun` runs a task here."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    commands = {
        "sbatch": f"""
            number=$(ls {folder}/*.args 2>/dev/null | wc -l)
            echo "$@" > {folder}/$number.args
            cp "${{@: -1}}" {folder}/$number.sh
            echo Submitted batch job $((40 + number))""",
        "srun": 'shift 3; exec "$@"',  # -l -n 1
        "scontrol": "echo node1",
    }
    for name, command in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{command}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def hub_jobs(monkeypatch):
    """Hugging Face Jobs that run in this process when they are asked for; the calls, and the jobs that fail."""
    service = SimpleNamespace(calls=[], failing=set())

    def run_uv_job(script, **call):
        assert script.endswith("launch_pickled_pipeline.py")
        service.calls.append(call)
        with monkeypatch.context() as job, fsspec.open(call["script_args"][0], "rb") as file:
            for name, value in call["env"].items():
                job.setenv(name, value)
            stage = "ERROR" if len(service.calls) in service.failing else "COMPLETED"
            if stage == "COMPLETED":
                dill.load(file).run()
        return SimpleNamespace(id=stage, url="")

    def inspect_job(job_id, **call):
        return SimpleNamespace(status=SimpleNamespace(stage=job_id))

    monkeypatch.setattr("huggingface_hub.run_uv_job", run_uv_job)
    monkeypatch.setattr("huggingface_hub.inspect_job", inspect_job)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    return service


@pytest.fixture
def ray_cluster(monkeypatch):
    """Two nodes of one CPU on the loopback, and a function that kills the second."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield lambda: cluster.remove_node(node, allow_graceful=False)
    ray.shutdown()
    cluster.shutdown()
