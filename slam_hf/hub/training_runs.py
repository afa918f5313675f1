"""How the records of training runs are written in cards."""

from collections.abc import Iterator

from ..run_record import CorpusRecord, Hardware, RunRecord
from .markdown import Markdown, code, format_duration, format_number, format_value, link


def describe_corpus(corpus: CorpusRecord) -> Markdown:
    """The name of a dataset, with a link, and what is known of it."""
    figures = (
        ("modality", code, corpus.modality),
        ("configuration", code, corpus.config),
        ("split", code, corpus.split),
        ("weight", format_value, corpus.weight),
        ("rows", format_number, corpus.num_rows),
        ("units", format_number, corpus.num_units),
        ("codec", code, corpus.codec),
        ("SHA-256 of the rows", code, corpus.fingerprint),
    )
    known = [f"{name}: {write(value)}" for name, write, value in figures if value]
    return Markdown(", ".join([link(corpus.source, "datasets/"), *known]))


def run_rows(record: RunRecord) -> Iterator[tuple[str, str]]:
    """The known figures of a run, with their names."""
    if record.hardware is not None:
        yield "hardware", describe_hardware(record)
    if record.seconds is not None:
        yield "duration", format_duration(record.seconds)
    if record.num_steps is not None:
        yield "steps", f"{record.num_steps:,}"
    if record.num_tokens is not None:
        padding = "" if record.padding is None else f", and {100 * record.padding:.1f} % of the batches padding"
        yield "tokens seen", format_number(record.num_tokens) + padding
    if record.tokens_per_second is not None:
        yield "speed", f"{record.tokens_per_second:,.0f} tokens a second, {100 * record.mfu:.1f} % MFU (medians)"
    if record.emissions is not None:
        energy, duration = f"{record.emissions.energy:.3g} kWh", format_duration(record.emissions.seconds)
        countries = " and ".join(record.emissions.countries)
        yield "energy", f"{energy}, as codecarbon measured it over {duration}"
        yield "emissions", f"{record.emissions.co2:.3g} kg CO₂eq, if the electricity is from {countries}"
    for name, (first, last) in record.validation.items():
        first_step, last_step = record.validation_steps
        start = f"{first:.3f} (step {first_step:,}) → " if first_step < last_step else ""
        yield name, f"{start}{last:.3f} (step {last_step:,})"
    for name, value in record.measurements.items():
        yield name, f"{value:.3g}"
    if record.packages:
        yield "software", ", ".join(f"{name} {version}" for name, version in record.packages.items())


def describe_hardware(record: RunRecord) -> str:
    """The GPUs or the processor of a run, and how many, in all its parts."""
    return "; in another part of the run ".join(map(_describe_part, [record.hardware, *record.earlier_hardware]))


def _describe_part(hardware: Hardware) -> str:
    device, count, cpu = hardware.device, hardware.count, hardware.cpu
    if hardware.on_cpu:
        return f"{device}, {count} process" + ("es" if count > 1 else "")
    return f"{count} × {device}" + ("" if cpu is None else f", {cpu}")
