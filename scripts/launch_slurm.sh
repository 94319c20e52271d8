#!/usr/bin/env bash
# Trains on a Slurm cluster, one process a GPU:
#
#   sbatch --nodes 4 --gpus-per-node 8 --ntasks-per-node 8 scripts/launch_slurm.sh --config configs/olmo_1b.py --mesh 4,8,1
#
# Options of lmdyn train follow the script's name (--hosts auto is added: Slurm tells the processes how to meet). Submit from the
# repository, which all nodes must see, with lmdyn installed in .venv (or PYTHON=/path/to/python). On nodes without GPUs,
# leave out --gpus-per-node and give --ntasks-per-node 1.
#
# Two minutes before the time limit, or on preemption, Slurm sends SIGTERM: the run saves and ends, and the job is
# queued again, where it resumes from that checkpoint. A lost node ends the job's step with exit code 75, and it is
# queued again, too. Any other failure is left for you to read. `scancel` ends it for good.
#SBATCH --job-name=lmdyn
#SBATCH --output=lmdyn-%j.log
#SBATCH --open-mode=append
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "error: to be submitted: sbatch scripts/launch_slurm.sh --config FILE [options of lmdyn train]" >&2
  exit 2
fi
if [ $# -eq 0 ]; then
  echo "error: no options; give at least --config FILE" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
python=${PYTHON:-$PWD/.venv/bin/python}
[ -x "$python" ] || { echo "error: $python is not there; install lmdyn into .venv, or set PYTHON" >&2 && exit 2; }
export PYTHONUNBUFFERED=1

# --kill-on-bad-exit: when one process fails, the others are ended rather than left waiting for it.
srun --kill-on-bad-exit=1 --wait=60 --label "$python" -m lmdyn train "$@" --hosts auto &
step=$!
asked=
trap 'asked=1; scancel --signal TERM "$SLURM_JOB_ID.0" 2>/dev/null || kill -TERM "$step"' TERM
while kill -0 "$step" 2>/dev/null; do # a signal ends the waiting, not the step
  wait "$step" || true
done
code=0
wait "$step" || code=$?

if { [ -n "$asked" ] && [ "$code" -eq 0 ]; } || [ "$code" -eq 75 ]; then
  echo "queued again: the run resumes from its last checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
