"""Checks the rows of corpora of speech, of text and of both, and encodes them as documents of ids."""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset, Features, IterableDataset, List, Value

from ..corpora.interleaving import draw_speech_words, find_problem, interleave_words, interleaved_string
from ..corpora.schema import UNIT_CORPUS_FEATURES
from ..tokenization_hubert_unit import HubertUnitTokenizer, UnitTokenizer
from ..tokenization_speech_text import SpeechTextTokenizer
from .arguments import CorpusConfig
from .packing import ROWS_TOGETHER, AnyDataset, map_processes, split


FEATURES = {
    "speech": Features({"units": List(Value("uint16"))}),
    "text": Features({"text": Value("string")}),
    "interleaved": Features({name: UNIT_CORPUS_FEATURES[name] for name in ("units", "durations", "aligned_text")}),
}
"""Columns of the documents of each modality."""

HINTS = {
    "text": " Name its column of text: `text_column`.",
    "interleaved": " `slam-hf align-text` adds the times of words.",
}

NOT_TEXT = "a text that holds a token of speech"


@dataclass(frozen=True)
class Interleaving:
    r"""
    How to mix speech and text within utterances.

    Args:
        method (`str`), span (`float`), share (`float`):
            Which words are speech, see [`~corpora.interleaving.draw_speech_words`].
        seconds_per_frame (`float`):
            Duration of a frame of the codec.
        seed (`int`):
            Seed of the choice. It also depends on the utterance and on the pass over the corpus, and on nothing else:
            neither on processes and workers nor on interruptions.
    """

    method: str
    span: float
    share: float
    seconds_per_frame: float
    seed: int

    def __call__(
        self,
        units: Sequence[int],
        durations: Sequence[int],
        words: Sequence[Mapping[str, Any]],
        epoch: int,
        tokenizer: SpeechTextTokenizer,
    ) -> str:
        """Returns an utterance as text in which speech and text take turns, for the pass `epoch` over the corpus."""
        utterance = zlib.crc32(np.asarray(units, dtype=np.uint16).tobytes())
        generator = np.random.default_rng([self.seed, epoch, utterance])
        is_speech = draw_speech_words(len(words), generator, self.method, self.span, self.share)
        spans = interleave_words(words, is_speech, units, durations, self.seconds_per_frame)
        return interleaved_string(spans, tokenizer)


def check_documents(
    rows: AnyDataset,
    corpus: CorpusConfig,
    tokenizer: UnitTokenizer,
    interleaving: Interleaving | None = None,
    num_proc: int | None = None,
) -> AnyDataset:
    r"""
    Check the rows of a corpus, and keep the columns of its modality.

    Rows without text, or without usable word times in an interleaved corpus, are left out and counted. A stream prints
    each count when it reaches a power of ten, because its size is not known.

    Raises:
        ValueError: a column is missing, a unit is outside the vocabulary, or no row can be used.
    """
    modality, features = corpus.modality, FEATURES[corpus.modality]
    names = [corpus.text_column] if modality == "text" else list(features)
    columns = rows.column_names or list(next(iter(rows), {}))
    missing = [name for name in names if name not in columns]
    if missing:
        kind = "a tokenised corpus" if "units" in missing else f"a corpus of {modality} data"
        raise ValueError(
            f"'{corpus.path}' is not {kind}: it has the columns {columns}, and {_listing(missing)} missing."
            + (HINTS.get(modality, "") if kind != "a tokenised corpus" else "")
        )
    if modality == "speech":
        check = partial(_check_units, num_units=tokenizer.num_units, corpus=corpus.path)
    else:
        speech_tokens = map(re.escape, tokenizer.convert_ids_to_tokens(range(len(tokenizer.text_ids), len(tokenizer))))
        not_text = re.compile("|".join(speech_tokens))
        features = Features({**features, "problem": Value("string")})
        if modality == "text":
            check = partial(_check_text, column=corpus.text_column, corpus=corpus.path, not_text=not_text)
        else:
            check = partial(
                _check_words,
                num_units=tokenizer.num_units,
                corpus=corpus.path,
                not_text=not_text,
                seconds_per_frame=interleaving.seconds_per_frame,
            )
    checked = (
        rows.select_columns(names)
        .with_format("arrow")
        .map(
            check,
            batched=True,
            with_indices=True,
            remove_columns=[name for name in names if name not in features],
            features=features,
            **map_processes(rows, num_proc),
        )
        .with_format(None)
    )
    return checked if modality == "speech" else _leave_out(checked, corpus)


def _listing(names: list[str]) -> str:
    return f"{' and '.join(f'`{name}`' for name in names)} {'is' if len(names) == 1 else 'are'}"


def _check_units(documents: pa.Table, rows: list[int], num_units: int, corpus: str) -> pa.Table:
    units = documents["units"].combine_chunks()
    if not pa.types.is_nested(units.type) or not pa.types.is_integer(getattr(units.type, "value_type", units.type)):
        raise ValueError(f"'{corpus}', row {rows[0]}: `units` must be a list of whole numbers, got {units.type}.")
    values = units.flatten().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~((values >= 0) & (values < num_units)))
    if wrong.size > 0:
        row = rows[pc.list_parent_indices(units)[wrong[0]].as_py()]
        raise ValueError(
            f"'{corpus}', row {row}: unit {values[wrong[0]]} is outside the vocabulary of units 0 to {num_units - 1}."
        )
    if units.null_count > 0:
        raise ValueError(f"'{corpus}', row {rows[pc.index(units.is_null(), True).as_py()]}: `units` is null.")
    return pa.table({"units": units.cast(pa.list_(pa.uint16()))})


def _check_text(documents: pa.Table, rows: list[int], column: str, corpus: str, not_text: re.Pattern) -> pa.Table:
    texts = documents[column]
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type) or pa.types.is_null(texts.type)):
        raise ValueError(f"'{corpus}', row {rows[0]}: `{column}` must be text, got {texts.type}.")
    texts = texts.cast(pa.string())
    problems = [
        "no text" if text is None or not text.strip() else NOT_TEXT if not_text.search(text) else None
        for text in texts.to_pylist()
    ]
    return pa.table({"text": texts, "problem": pa.array(problems, pa.string())})


def _check_words(
    documents: pa.Table,
    rows: list[int],
    num_units: int,
    corpus: str,
    not_text: re.Pattern,
    seconds_per_frame: float,
) -> pa.Table:
    columns = {"units": _check_units(documents, rows, num_units, corpus)["units"]}
    for name in ("durations", "aligned_text"):
        wanted = FEATURES["interleaved"].arrow_schema.field(name).type
        try:
            columns[name] = documents[name].cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise ValueError(
                f"'{corpus}', row {rows[0]}: `{name}` must be {wanted}, got {documents[name].type}."
            ) from error
    table = pa.table(columns)
    problems = []
    for row, document in zip(rows, table.to_pylist(), strict=True):
        durations, words = document["durations"], document["aligned_text"]
        if durations is None or len(durations) != len(document["units"]):
            raise ValueError(f"'{corpus}', row {row}: there must be as many `durations` as `units`.")
        # Less than a frame of audio follows the last frame.
        problem = find_problem(words, (sum(durations) + 1) * seconds_per_frame)
        if problem is None and not_text.search("".join(word["word"] for word in words)):
            problem = NOT_TEXT
        problems.append(problem)
    return table.append_column("problem", pa.array(problems, pa.string()))


def _leave_out(checked: AnyDataset, corpus: CorpusConfig) -> AnyDataset:
    """Leave out the rows that have a problem, and print how many there are of each kind."""
    is_stream = isinstance(checked, IterableDataset)
    problems: Counter[str | None] = Counter()
    if not is_stream:
        problems.update(checked["problem"])
        num_usable = problems.pop(None, 0)
        counts = ", ".join(f"{count:,} × {problem}" for problem, count in problems.most_common())
        if num_usable == 0:
            raise ValueError(f"'{corpus.path}': no row can be used: {counts}.{HINTS[corpus.modality]}")
        if problems:
            total = f"{problems.total():,} of {len(checked):,} rows"
            PartialState().print(f"'{corpus.path}', {corpus.modality}: {total} are left out: {counts}.")

    def is_usable(problem: str | None) -> bool:
        if is_stream and problem is not None:
            problems[problem] += 1
            if str(problems[problem]).strip("0") == "1":
                print(f"'{corpus.path}', {corpus.modality}: left out so far: {problems[problem]:,} × {problem}.")
        return problem is None

    return checked.filter(is_usable, input_columns="problem").remove_columns("problem")


@dataclass(frozen=True)
class DocumentEncoder:
    r"""
    Encodes documents as ids.

    A document of a model of units alone is `<S> units <S>`. In a model of speech and text, a document begins with what
    the text tokenizer adds in front (a beginning of sequence, or nothing). Units or text follow without a modality
    token, or both in turn, each after the token of its modality.

    Args:
        tokenizer ([`HubertUnitTokenizer`] or [`SpeechTextTokenizer`]):
            The tokenizer of the model.
        modality (`str`, *optional*, defaults to `"speech"`):
            `"speech"`, `"text"` or `"interleaved"`.
        interleaving ([`Interleaving`], *optional*):
            How to mix interleaved documents.
    """

    tokenizer: UnitTokenizer
    modality: str = "speech"
    interleaving: Interleaving | None = None

    def __call__(self, batch: dict[str, list], epoch: int = 0) -> dict[str, list[list[int]]]:
        """Encode a batch with the columns of the modality in `FEATURES`, for the pass `epoch` over the corpus. A
        `ValueError` names a unit that is outside the vocabulary."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer, HubertUnitTokenizer):
            tokenizer = HubertUnitTokenizer(num_units=tokenizer.num_units, add_eos_token=True)
        if self.modality == "speech":
            return {"input_ids": tokenizer.encode_units(batch["units"])["input_ids"]}
        if self.modality == "text":
            return {"input_ids": tokenizer(batch["text"])["input_ids"]}
        columns = (batch[name] for name in FEATURES["interleaved"])
        texts = [self.interleaving(*row, epoch, tokenizer) for row in zip(*columns, strict=True)]
        return {"input_ids": tokenizer(texts)["input_ids"]}


def encode_documents(documents: AnyDataset, encode: DocumentEncoder, num_proc: int | None = None) -> AnyDataset:
    """Encode documents in the column `input_ids`. `num_proc` is not for an `IterableDataset`."""
    if isinstance(documents, IterableDataset):
        return IterableDataset.from_generator(_encoded, gen_kwargs={"parts": split(documents), "encode": encode})
    kept = list(FEATURES[encode.modality])
    id_type = "uint16" if len(encode.tokenizer) <= 2**16 else "uint32"
    return documents.select_columns(kept).map(
        encode,
        batched=True,
        remove_columns=kept,
        features=Features({"input_ids": List(Value(id_type))}),
        num_proc=num_proc,
    )


def encode_without_end(documents: AnyDataset, encode: DocumentEncoder, seed: int) -> IterableDataset:
    """Encode documents in endless passes. Each pass over an interleaved corpus chooses anew which words are speech,
    and each pass over a stored corpus has its own order."""
    kwargs = {"documents": documents, "encode": encode, "seed": seed}
    return IterableDataset.from_generator(_encoded_without_end, gen_kwargs=kwargs)


def _encoded(parts: list[AnyDataset], encode: DocumentEncoder, epoch: int = 0) -> Iterator[dict[str, list[int]]]:
    for documents in parts:
        for batch in documents.iter(ROWS_TOGETHER):
            for ids in encode(batch, epoch)["input_ids"]:
                yield {"input_ids": ids}


def _encoded_without_end(documents: AnyDataset, encode: DocumentEncoder, seed: int) -> Iterator[dict[str, list[int]]]:
    for epoch in count():
        in_order = documents.shuffle(seed=seed + epoch) if isinstance(documents, Dataset) else documents
        row = None
        for row in _encoded([in_order], encode, epoch):
            yield row
        if row is None:
            raise ValueError("A corpus has no row that can be used.")
