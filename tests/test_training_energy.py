import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from training_utils import logged, make_trainer
from transformers import TrainerCallback, TrainerState

from slam_hf.training import energy
from slam_hf.training.energy import EnergyCallback, NvmlCounter, RaplCounter
from slam_hf.training.process_setup import put_before_reporters


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    """Two processors, of which one has a part with a counter of its own, and the whole machine."""
    folder = tmp_path / "powercap"
    for zone, name in {"": "package-0", ":0": "core"}.items():
        write(folder / f"intel-rapl:0{zone}", name=name, energy_uj=900, max_energy_range_uj=1_000)
    write(folder / "intel-rapl:1", name="package-1", energy_uj=50, max_energy_range_uj=2_000)
    write(folder / "intel-rapl:2", name="psys", energy_uj=50, max_energy_range_uj=2_000)
    monkeypatch.setattr(energy, "POWERCAP", folder)
    return folder


def write(zone, **values):
    zone.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (zone / name).write_text(f"{value}\n")


def test_processors_are_added_up_and_their_counters_begin_again(powercap):
    counter = RaplCounter(powercap)
    assert counter.since_last() == 0
    write(powercap / "intel-rapl:0", energy_uj=100)
    write(powercap / "intel-rapl:1", energy_uj=1_050)
    assert counter.since_last() == pytest.approx(1_200e-6)
    assert counter.since_last() == 0


@pytest.fixture
def pynvml(monkeypatch):
    """An NVML whose GPU `GPU-abc` counts millijoules."""
    module = ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.millijoules = 10_000
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = lambda uuid: {"GPU-abc": "handle"}[uuid]
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: {"handle": module.millijoules}[handle]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
    return module


def test_a_gpu_is_read_by_its_own_number(pynvml):
    counter = NvmlCounter(torch.device("cuda"))
    pynvml.millijoules += 2_500
    assert (counter.since_last(), counter.since_last()) == (2.5, 0)

    def refuse(handle):
        raise pynvml.NVMLError("Not Supported")

    pynvml.nvmlDeviceGetTotalEnergyConsumption = refuse
    for read in (counter.since_last, lambda: NvmlCounter(torch.device("cuda"))):
        with pytest.raises(OSError, match="NVML: Not Supported"):
            read()


def train(output_dir, powercap, **settings):
    class Consume(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            used = int((powercap / "intel-rapl:1" / "energy_uj").read_text())
            write(powercap / "intel-rapl:1", energy_uj=(used + 720) % 2_000)

    measured = EnergyCallback()
    trainer = make_trainer(output_dir, [measured], save_strategy="steps", save_steps=4, logging_steps=2, **settings)
    put_before_reporters(trainer, Consume(), measured)
    return trainer


def test_the_energy_of_all_parts_of_a_run_is_logged_and_nothing_that_is_not_measured(tmp_path, powercap):
    write(powercap / "intel-rapl:1", energy_uj=0)
    trainer = train(tmp_path / "run", powercap, max_steps=4)
    trainer.train()
    step = 720e-6 / 3.6e6
    assert logged(trainer, "energy_kwh_rapl") == pytest.approx([2 * step, 4 * step])
    trainer = train(tmp_path / "run", powercap, max_steps=6)
    trainer.train(resume_from_checkpoint=True)
    assert logged(trainer, "energy_kwh_rapl")[-1] == pytest.approx(6 * step)
    assert not any("energy_kwh_nvml" in log for log in trainer.state.log_history)


def test_a_run_of_an_earlier_version_is_measured_from_where_it_continues(tmp_path, powercap):
    write(powercap / "intel-rapl:1", energy_uj=0)
    make_trainer(tmp_path / "run", save_strategy="steps", save_steps=4, max_steps=4).train()
    trainer = train(tmp_path / "run", powercap, max_steps=8)
    trainer.train(resume_from_checkpoint=True)
    assert logged(trainer, "energy_kwh_rapl")[-1] == pytest.approx(4 * 720e-6 / 3.6e6)
    assert (tmp_path / "run" / "checkpoint-8").is_dir()


def test_training_goes_on_where_a_counter_is_lost(tmp_path, powercap, capsys):
    class Lose(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                (powercap / "intel-rapl:1" / "energy_uj").unlink()

    measured = EnergyCallback()
    trainer = make_trainer(tmp_path / "run", [measured], max_steps=4, logging_steps=2)
    put_before_reporters(trainer, Lose(), measured)
    trainer.train()
    assert [log["step"] for log in trainer.state.log_history if "energy_kwh_rapl" in log] == [2]
    assert "The energy is no longer measured: [Errno 2]" in capsys.readouterr().out


def test_without_counters_there_is_no_energy(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nothing")
    trainer = make_trainer(tmp_path, [EnergyCallback()], max_steps=2)
    trainer.train()
    assert not any("energy" in name for log in trainer.state.log_history for name in log)


def test_energy_that_one_process_cannot_measure_is_left_out(powercap, monkeypatch):
    args = SimpleNamespace(device=torch.device("cpu"), local_process_index=1)
    control, callback = None, EnergyCallback()
    callback.on_train_begin(args, TrainerState(stateful_callbacks=[callback]), control)
    assert callback.counters == [None, None]  # the first process of the machine reads it
    state = TrainerState(log_history=[{}])
    for num_missing, logs in ((0.0, {"loss": 1.0, "energy_kwh_rapl": 1.0}), (1.0, {"loss": 1.0})):
        total = torch.tensor([[0.0, 2.0], [3.6e6, num_missing]])
        monkeypatch.setattr(energy, "reduce", lambda measured, reduction, total=total: total)
        log = {"loss": 1.0}
        callback.kwh["energy_kwh_rapl"] = 0.0
        callback.on_log(args, state, control, log)
        assert log == logs
