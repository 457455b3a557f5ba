#!/bin/bash
# Label with many machines that share a file system and no cluster software but Slurm:
#     sbatch --array=0-15 configs/beam/slurm-array.sh my.yaml
# Task K takes the blocks K, K+16, K+32, ... A task that is preempted is queued again and goes on where
# it was. When all are done, one run of the whole finds everything labelled and writes the index:
#     sbatch --dependency=singleton --job-name=whisper-label --wrap 'whisper-pipeline run --config my.yaml'
# Name teacher.engine and teacher.dtype (float16 for GPUs) in my.yaml: `auto` is settled on each machine, and the
# last run, on one without a GPU, would find labels with another number format and make its own.
# On machines without Slurm, start the same command on each with its own --shard.
#SBATCH --job-name=whisper-label
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=24G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
set -euo pipefail

config=${1:?"give the configuration: sbatch --array=0-15 $0 my.yaml"}
exec srun whisper-pipeline run --config "$config" \
    --num_shards "${SLURM_ARRAY_TASK_COUNT:?start this with sbatch --array=0-15}" \
    --shard "${SLURM_ARRAY_TASK_ID}"
