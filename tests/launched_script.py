"""Runs the script that its arguments name, and disturbs the training as the environment says: every step takes
`STEP_SECONDS` longer; after step `KILLED_AT` the process is killed; after step `PAUSED_AT` it waits for ever."""

import os
import runpy
import signal
import sys
import time

import torch.distributed
import transformers.trainer
from accelerate.state import DistributedType, PartialState
from torch.distributed.fsdp import FSDPModule


class Disturb(transformers.TrainerCallback):
    def on_train_begin(self, args, state, control, model=None, **kwargs):
        assert isinstance(model, FSDPModule) == ("ACCELERATE_USE_FSDP" in os.environ)

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(float(os.environ.get("STEP_SECONDS", 0)))
        if state.global_step == int(os.environ.get("KILLED_AT", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        if state.global_step == int(os.environ.get("PAUSED_AT", -1)):
            print("It pauses.", flush=True)
            time.sleep(3600)


def take_cpus_for_gpus() -> None:
    """accelerate has no FSDP for processes on the CPU, and is told that they are GPUs."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


if __name__ == "__main__":
    if "ACCELERATE_USE_FSDP" in os.environ:
        take_cpus_for_gpus()
    transformers.trainer.DEFAULT_CALLBACKS.append(Disturb)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
