#!/bin/bash
# One training on several machines of a SLURM cluster, which share the checkout. The suite's key `processes` is the number of all tasks:
#
#   sbatch --nodes 2 --ntasks-per-node 4 --gpus-per-node 4 --time 24:00:00 \
#     workflow/slurm/several-nodes.sh params/paper.yaml cifar10-vp-indm-nll-s0
#
# A job that is preempted, or that loses a machine, is put back in the queue, and continues where it stopped.
#SBATCH --requeue --open-mode=append
# This script runs on the first of the machines, as does the first process.
MASTER_ADDR=$(hostname)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000)) WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
# Once one has ended, the others have a minute: the first may still be saving, and without one of them none ends well.
exec srun --wait 60 bash -c \
  'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec python -m indm train --suite "$1" --run "$2"' train "$1" "$2"
