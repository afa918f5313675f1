"""Audio or text in chunks, while a speech language model generates.

```
thread of generate() ──put──▶ tokens, at most `max_pending` ──▶ loop of the caller: units ──StreamingDecoder──▶ audio
```
"""

import math
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from transformers.generation.streamers import BaseStreamer, TextStreamer

from .modeling_hubert_unit_codec import HubertUnitCodec
from .modeling_unit_hifigan import Voice
from .processing_speech_lm import SpeechLMProcessor
from .tokenization_hubert_unit import UnitTokenizer


_STEP = 64
"""Maximum number of units that are looked at together: a long prompt costs as much per unit as a short one."""


class StreamingDecoder:
    r"""
    [`HubertUnitCodec.decode`] in chunks, for units that come one after the other.

    A unit's duration depends on the units around it, and a sample on the frames around it. Both contexts follow from
    the vocoder's configuration ([`UnitHifiGanConfig`]). A chunk is made as soon as it and its contexts are complete.
    Joined, the chunks are what `decode` makes of all units at once, up to the rounding of float32, also at both ends
    and between chunks. Each chunk costs the vocoder its own frames and those of its contexts; memory does not grow.

    Args:
        codec ([`HubertUnitCodec`]):
            The codec, with a vocoder that predicts durations.
        chunk_duration (`float`, *optional*, defaults to 0.5):
            Duration of a chunk, in seconds. A chunk ends with the unit that completes it; the last one may be shorter.
        speaker_id, style_id (`int` or `str`, *optional*):
            As for [`HubertUnitCodec.decode`].

    Raises:
        ValueError: the codec has no vocoder that predicts durations, the vocoder lacks the speaker or the style, or
            `chunk_duration` is not positive.
    """

    def __init__(
        self,
        codec: HubertUnitCodec,
        chunk_duration: float = 0.5,
        speaker_id: Voice | None = None,
        style_id: Voice | None = None,
    ):
        codec.check_vocoder(with_durations=True)
        [self.speaker_id], [self.style_id] = codec.find_voices(speaker_id, style_id, count=1)
        if not 0 < chunk_duration < math.inf:
            raise ValueError(f"`chunk_duration` is in seconds and must be positive, got {chunk_duration}.")
        self.codec = codec
        self.chunk_frames = math.ceil(round(chunk_duration * codec.frame_rate, 6))
        self._context = codec.config.vocoder_config.context
        self._duration_context = codec.config.vocoder_config.duration_context
        self._units: list[int] = []  # from the context of the next chunk on
        self._durations: list[int] = []  # of the first of them
        self._start = 0  # where the next chunk begins

    @property
    def max_lookahead(self) -> int:
        """`int`: Maximum number of units between the beginning of a chunk and its audio. Each lasts at least a frame,
        so that most chunks need fewer."""
        return self.chunk_frames + self._context[1] + self._duration_context[1]

    def __call__(self, units: list[int], is_end: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        r"""
        Take the next units, and make the chunks that are complete by then.

        Args:
            units (`list[int]`):
                The next units.
            is_end (`bool`, *optional*, defaults to `False`):
                Whether they are the last ones.

        Yields:
            The waveform of a chunk, float32 of shape `(samples,)`; its units, of shape `(units,)`; and how many frames
            each of them lasts.
        """
        for first in range(0, len(units), _STEP):
            self._units += units[first : first + _STEP]
            self._predict_durations(len(self._units) - self._duration_context[1])
            while (size := self._complete()) is not None:
                yield self._decode(size)
        if is_end:
            self._predict_durations(len(self._units))
            while self._start < len(self._units):
                ends = list(accumulate(self._durations[self._start :]))
                yield self._decode(min(bisect_left(ends, self.chunk_frames) + 1, len(ends)))

    def _predict_durations(self, stop: int) -> None:
        """Predict the durations of the units up to `stop`."""
        known = len(self._durations)
        if stop > known:
            first = max(0, known - self._duration_context[0])
            durations = self.codec.predict_durations(torch.tensor(self._units[first:])).tolist()
            self._durations += durations[known - first : stop - first]

    def _complete(self) -> int | None:
        """Number of units of the next chunk, if the frames after it are known too."""
        ends = list(accumulate(self._durations[self._start :]))
        size = bisect_left(ends, self.chunk_frames) + 1
        is_complete = size <= len(ends) and ends[-1] - ends[size - 1] >= self._context[1]
        return size if is_complete else None

    def _decode(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Make a chunk of `size` units, and forget what is not the context of the next one."""
        stop = self._start + size
        chunk = slice(self._start, stop)
        after = list(accumulate(self._durations[stop:]))
        end = min(stop + bisect_left(after, self._context[1]) + 1, len(self._durations))
        units, durations = torch.tensor(self._units[:end]), torch.tensor(self._durations[:end])
        audio = self.codec.decode(
            units[None], durations[None], self.speaker_id, self.style_id, batched=False
        ).audio_values[0, 0]
        hop_length = self.codec.config.hop_length
        num_before, num_samples = (int(durations[part].sum()) * hop_length for part in (slice(self._start), chunk))
        samples = audio[num_before : num_before + num_samples].float().cpu().numpy()
        before = list(accumulate(reversed(self._durations[:stop])))
        kept = max(bisect_left(before, self._context[0]) + 1, self._duration_context[0])
        forgotten = max(0, stop - kept)
        del self._units[:forgotten], self._durations[:forgotten]
        self._start = stop - forgotten
        return samples.copy(), units[chunk].numpy(), durations[chunk].numpy()


class StreamClosed(RuntimeError):
    """Ends a `generate()` whose streamer was closed."""


class _Streamer(BaseStreamer):
    """Hands the tokens of one `generate()` to another thread, which makes chunks of them in `_chunks`."""

    def __init__(self, max_pending: int | None, timeout: float | None):
        self.max_pending, self.timeout = max_pending, timeout
        self._pending: deque[list[int]] = deque()  # the prompt, and then each new token
        self._has_prompt = self._is_ended = self._is_closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._chunks()
        finally:
            self.close()

    def put(self, value: torch.Tensor) -> None:
        """As `generate()` calls it: first with the prompt, then with each new token. It waits while `max_pending`
        tokens are pending, and raises [`StreamClosed`] after [`~_Streamer.close`]."""
        if value.ndim > 1 and len(value) > 1:
            raise ValueError(f"A stream has one sequence, and this is a batch of {len(value)}: generate them in turn.")
        ids = value.flatten().tolist()
        limit = math.inf if self.max_pending is None else self.max_pending
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._pending) < limit)
            if self._is_closed:
                raise StreamClosed("The iterator of this stream was closed.")
            self._pending += [[token] for token in ids] if self._has_prompt else [ids]
            self._has_prompt = True
            self._changed.notify_all()

    def end(self) -> None:
        """As `generate()` calls it after the last token."""
        self._end(None)

    def close(self) -> None:
        """Stop the generation at its next token, and the loop over the chunks."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def run(self, generate: Callable[..., Any]) -> Generator[dict[str, Any]]:
        r"""
        Generate in a thread, and yield the chunks. When the iterator is closed or deleted, as after a `break`,
        generation stops at its next token and the thread ends. What `generate` raises is raised here.

        Args:
            generate (`Callable`):
                Calls `model.generate` with the `streamer` that it is given, such as
                `functools.partial(model.generate, **prompt, do_sample=True)`.
        """

        def work() -> None:
            try:
                generate(streamer=self)
            except BaseException as error:
                self._end(error)
            else:
                self._end(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield from self
        finally:
            self.close()
            if thread is not threading.current_thread():  # in which the garbage may be collected
                thread.join()

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._is_ended, self._error = True, error
            self._changed.notify_all()

    def _tokens(self) -> Iterator[list[int]]:
        """The ids of the prompt, and then each new one."""
        while True:
            with self._changed:
                is_awake = self._changed.wait_for(
                    lambda: self._pending or self._is_ended or self._is_closed, self.timeout
                )
                if not is_awake:
                    raise TimeoutError(f"No token was generated in {self.timeout} seconds.")
                if self._is_closed or not self._pending:
                    error, self._error = self._error, None
                    if error is not None and not self._is_closed:
                        raise error
                    return
                ids = self._pending.popleft()
                self._changed.notify_all()
            yield ids


class AudioIteratorStreamer(_Streamer):
    r"""
    Streamer that makes audio of what `generate()` puts out, for a loop in another thread: what
    [`~transformers.TextIteratorStreamer`] is for text. The `stream=True` of [`AudioToAudioPipeline`] uses it.

    ```python
    >>> from functools import partial

    >>> streamer = AudioIteratorStreamer(processor)
    >>> prompt = processor(waveform, 16_000)
    >>> for chunk in streamer.run(partial(model.generate, **prompt, do_sample=True)):
    ...     play(chunk["audio"], chunk["sampling_rate"])
    ```

    In place of `run`, `generate(..., streamer=streamer)` may run in a thread of yours, and the loop goes over the
    streamer itself. A streamer serves one call of `generate`.

    Args:
        processor ([`SpeechLMProcessor`]):
            The processor of the model, with a codec that has a vocoder.
        skip_prompt (`bool`, *optional*, defaults to `False`):
            Whether to leave out the audio of the prompt.
        chunk_duration (`float`, *optional*, defaults to 0.5):
            Minimum duration of a chunk, in seconds. See [`StreamingDecoder`].
        max_pending (`int`, *optional*, defaults to 100):
            Maximum number of tokens that wait for the loop: generation waits then. `None` for no maximum.
        timeout (`float`, *optional*):
            How many seconds to wait for the next token before a `TimeoutError`.
        speaker_id, style_id (`int` or `str`, *optional*):
            As for [`HubertUnitCodec.decode`].

    Yields:
        `dict`: a chunk of whole units.

        - **audio** (`np.ndarray` of shape `(samples,)`, float32) -- The waveform.
        - **sampling_rate** (`int`) -- Its sampling rate, in Hz.
        - **units** (`np.ndarray` of shape `(units,)`) -- The new units in the chunk.
        - **prompt_units** (`np.ndarray` of shape `(units,)`) -- The units of the prompt, which come before them.
        - **durations** (`np.ndarray` of shape `(units,)`) -- How many frames each of them lasts.

    Raises:
        ValueError: the processor's codec is missing or does not fit its tokenizer; or as for [`StreamingDecoder`].
    """

    def __init__(
        self,
        processor: SpeechLMProcessor,
        skip_prompt: bool = False,
        chunk_duration: float = 0.5,
        max_pending: int | None = 100,
        timeout: float | None = None,
        speaker_id: Voice | None = None,
        style_id: Voice | None = None,
    ):
        super().__init__(max_pending, timeout)
        self.tokenizer, self.skip_prompt = processor.tokenizer, skip_prompt
        self.decoder = StreamingDecoder(processor.require_codec(), chunk_duration, speaker_id, style_id)
        self._num_prompt = 0  # units of the prompt that are still to come

    def _chunks(self) -> Iterator[dict[str, Any]]:
        for audio, units, durations in self._decode():
            num_prompt = min(len(units), self._num_prompt)
            self._num_prompt -= num_prompt
            yield {
                "audio": audio,
                "sampling_rate": self.decoder.codec.sampling_rate,
                "units": units[num_prompt:],
                "prompt_units": units[:num_prompt],
                "durations": durations,
            }

    def _decode(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for number, ids in enumerate(self._tokens()):
            if number > 0 or not self.skip_prompt:
                units = self.tokenizer.decode_units(ids).tolist()
                self._num_prompt += len(units) if number == 0 else 0
                yield from self.decoder(units)
        if not self._is_closed:
            yield from self.decoder([], is_end=True)


class TextChunkStreamer(_Streamer):
    r"""
    [`~transformers.TextIteratorStreamer`] for the pipeline: its chunks, `{"generated_text"}`, join to the text of the
    call without `stream`. Generation waits for the loop and ends with it, as with [`AudioIteratorStreamer`].

    Args:
        tokenizer ([`SpeechTextTokenizer`]):
            The tokenizer.
        end_ids (`set[int]`):
            The tokens that end a text and are not part of it.
        skip_prompt (`bool`, *optional*, defaults to `False`):
            Whether to leave out the text of the prompt.
        max_pending, timeout (*optional*):
            As for [`AudioIteratorStreamer`].
    """

    def __init__(
        self,
        tokenizer: UnitTokenizer,
        end_ids: set[int],
        skip_prompt: bool = False,
        max_pending: int | None = 100,
        timeout: float | None = None,
    ):
        super().__init__(max_pending, timeout)
        self.tokenizer, self.end_ids, self.skip_prompt = tokenizer, end_ids, skip_prompt
        self._num_skipped = 0  # characters of the prompt that are still to come

    def _chunks(self) -> Iterator[dict[str, str]]:
        for text in self._texts():
            new, self._num_skipped = text[self._num_skipped :], max(0, self._num_skipped - len(text))
            if new:
                yield {"generated_text": new}

    def _texts(self) -> Iterator[str]:
        texts: list[str] = []
        streamer = TextStreamer(self.tokenizer, skip_special_tokens=True)
        streamer.on_finalized_text = lambda text, stream_end=False: texts.append(text)
        for number, ids in enumerate(self._tokens()):
            if number == 0:
                ids = [token for token in ids if token < self.tokenizer.text_ids.stop]
                if self.skip_prompt:  # after it was decoded, as some tokenizers leave out a space at the beginning
                    self._num_skipped = len(self.tokenizer.decode(ids, skip_special_tokens=True))
            elif ids[0] in self.end_ids:
                break
            streamer.put(torch.tensor(ids, dtype=torch.long))
            yield texts.pop()
        if not self._is_closed:
            streamer.end()
            yield texts.pop()
