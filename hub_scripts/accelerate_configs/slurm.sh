#!/bin/bash
# Trains on several machines of a Slurm cluster, with a process for each of their GPUs:
#   sbatch --nodes 4 --gpus-per-node 8 hub_scripts/accelerate_configs/slurm.sh fsdp hub_scripts/pretrain.py --config ...
# Its first argument is ddp or fsdp. Submit it in the clone, with the environment active; all machines must see both.
# If it is preempted, and before its time ends, the job saves a checkpoint and is queued again, to continue from it.
#SBATCH --job-name=slam-hf
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300

config=hub_scripts/accelerate_configs/$1.yaml
shift
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240 # seconds from SIGTERM to SIGKILL: the step and the checkpoint must fit

stopped=
stop() {
    stopped=1
    scancel --signal=TERM "$SLURM_JOB_ID" # the tasks, not this script
}
trap stop USR1 TERM

# Slurm sends signals to the tasks alone, so each must be accelerate itself (exec), which passes them on.
srun --kill-on-bad-exit=0 --wait=0 bash -c 'exec accelerate launch --machine_rank "$SLURM_NODEID" "$@"' launch \
    --config_file "$config" \
    --num_machines "$SLURM_JOB_NUM_NODES" \
    --num_processes $((SLURM_JOB_NUM_NODES * ${SLURM_GPUS_ON_NODE:-1})) \
    --main_process_ip "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)" \
    --main_process_port $((20000 + SLURM_JOB_ID % 10000)) \
    "$@" --enable_jit_checkpoint True --resume_from_checkpoint latest &
wait $!
status=$?
if [ -n "$stopped" ]; then
    wait $! # a signal ends the first one
    status=$?
    [ $status -eq 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
