"""Speech language models on the Hugging Face stack.

Importing this package registers its classes with the Auto classes and the pipelines of transformers, and its dataset
builders with `load_dataset`.
"""

from .audio_streamer import AudioIteratorStreamer
from .audio_utils import load_audio
from .auto import register_all, register_names
from .configuration_hubert_unit_codec import HubertUnitCodecConfig
from .configuration_speech_lm import SpeechLMConfig
from .continuation_plot import plot_continuation
from .corpora.builders import register_builders
from .modeling_hubert_unit_codec import HubertUnitCodec
from .modeling_speech_lm import SpeechLMForCausalLM
from .pipeline_audio_to_audio import AudioToAudioPipeline
from .processing_speech_lm import SpeechLMProcessor
from .tokenization_hubert_unit import HubertUnitTokenizer
from .tokenization_speech_text import SpeechTextTokenizer


__version__ = "0.1.0"

__all__ = [
    "AudioIteratorStreamer",
    "AudioToAudioPipeline",
    "HubertUnitCodec",
    "HubertUnitCodecConfig",
    "HubertUnitTokenizer",
    "SpeechLMConfig",
    "SpeechLMForCausalLM",
    "SpeechLMProcessor",
    "SpeechTextTokenizer",
    "load_audio",
    "plot_continuation",
]

register_all()
register_names()
register_builders()
