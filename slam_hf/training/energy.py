"""Measures the energy of a run by the counters of its hardware."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState


POWERCAP = Path("/sys/class/powercap")

JOULES_PER_KWH = 3.6e6


class RaplCounter:
    """Joules of the processors of this machine, without its memory, by RAPL. An `OSError` says that there is no such
    counter, or that it may not be read: on most machines, only by root."""

    def __init__(self, folder: Path | None = None):
        folder = POWERCAP if folder is None else folder
        zones = sorted(folder.glob("intel-rapl:*"))  # of AMD too
        self.packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
        if not self.packages:
            raise FileNotFoundError(f"'{folder}' has no RAPL.")
        self.ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self.packages]
        self.last = self._read()

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self.packages]

    def since_last(self) -> float:
        """Joules since the last call. The counters begin again after minutes: call it more often."""
        last, now = self.last, self._read()
        self.last = now
        return sum((new - old) % size for new, old, size in zip(now, last, self.ranges, strict=True)) / 1e6


class NvmlCounter:
    """Joules of a GPU, by NVML. An `OSError` says that it has no such counter, and an `ImportError` that
    `nvidia-ml-py` is not installed."""

    def __init__(self, device: torch.device):
        import pynvml

        self.nvml = pynvml
        with self._errors():
            pynvml.nvmlInit()
            self.gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        self.last = self._read()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self.nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error

    def _read(self) -> int:
        with self._errors():
            return self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.gpu)

    def since_last(self) -> float:
        """Joules since the last call."""
        last, self.last = self.last, self._read()
        return (self.last - last) / 1e3


class EnergyCallback(TrainerCallback, ExportableState):
    """
    Adds to the logs of training how much energy the run has taken so far, in kWh, over all its processes and parts:
    `energy_kwh_nvml`, of its GPUs, where `nvidia-ml-py` is installed, and `energy_kwh_rapl`, of the processors of its
    machines, with whatever else they do. What is not measured in each process or machine is left out.
    """

    def __init__(self):
        self.kwh = {"energy_kwh_nvml": 0.0, "energy_kwh_rapl": 0.0}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        # A checkpoint of an earlier version has none.
        saved = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self.kwh = dict(saved["attributes"]["kwh"])
        self.joules = [0.0, 0.0]
        self.counters: list[NvmlCounter | RaplCounter | None] = [None, None]
        if args.device.type == "cuda":
            with suppress(ImportError, OSError):
                self.counters[0] = NvmlCounter(args.device)
        if args.local_process_index == 0:
            with suppress(OSError):
                self.counters[1] = RaplCounter()
        # One process counts for the processors of its machine.
        self.is_missing = [self.counters[0] is None, self.counters[1] is None and args.local_process_index == 0]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        for index, counter in enumerate(self.counters):
            if counter is not None:
                try:
                    self.joules[index] += counter.since_last()
                except OSError as error:  # a driver or a container may lose it, and training goes on
                    print(f"The energy is no longer measured: {error}")
                    self.counters[index], self.is_missing[index] = None, True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs
    ) -> None:
        if "loss" not in logs:
            return
        measured = torch.tensor([*zip(self.joules, self.is_missing, strict=True)], device=args.device)
        self.joules = [0.0, 0.0]
        for name, (joules, num_missing) in zip(self.kwh, reduce(measured, "sum").tolist(), strict=True):
            self.kwh[name] += joules / JOULES_PER_KWH
            if not num_missing:
                logs[name] = self.kwh[name]
                state.log_history[-1][name] = self.kwh[name]

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"kwh": self.kwh}}
