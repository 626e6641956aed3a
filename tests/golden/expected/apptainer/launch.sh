#!/usr/bin/env bash
# Starts the run apptainer. Written by sftc 0.1.0 for Megatron-Core 0.19;
# plan.json holds every value with its origin.
#
#   bash launch.sh                  check these files, prepare the data, check this machine, train; or go on
#   bash launch.sh --no-preflight   the same without checking the machine
#   bash launch.sh --dry-run        check these files, then print the commands instead of running them
#
# Run-time paths are relative to the directory in which this is started, or to SFTC_ROOT.
set -euo pipefail

build_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=${SFTC_ROOT:-$PWD}

# What was reviewed is what runs: an edited or missing file is named here, and nothing starts.
if ! (cd -- "$build_dir" && sha256sum --check --strict --quiet SHA256SUMS) >&2; then
  echo "launch.sh: the files named above are not what was compiled; compile the recipe again" >&2
  exit 3
fi

fail() { echo "launch.sh: $*" >&2; exit 1; }
nnodes=1
[[ ${NNODES:-$nnodes} == "$nnodes" ]] || fail "NNODES is $NNODES, and the plan has launch.nnodes: $nnodes"
# Names only: the ranks inherit the values from whoever starts this.
secrets=(HF_TOKEN)
for secret in "${secrets[@]}"; do
  [[ ${1-} == --dry-run || -n $(printenv -- "$secret") ]] ||
    fail "$secret is not exported, and launch.secrets names it"
done

# Outside: what is needed inside is mounted, and this same script goes on there.
if [[ -z ${SFTC_IN_CONTAINER-} ]]; then
  # One mount, as CSV: a path may hold blanks, commas and quotes.
  bind() { printf 'type=bind,"source=%s","destination=%s"' "${1//\"/\"\"}" "${2//\"/\"\"}"; }
  root=$build_dir  # every path of the plan is absolute
  reads=(
    "$build_dir"  # read: this build dir
    /models/tokenizer  # read: tokenizer.path
    /data/train.jsonl  # read: data.train_data_path
    /models/base  # read: model.load
  )
  writes=(
    /scratch/runs/apptainer  # written: logging.run_path, checkpoint.save, logging.tensorboard_dir
    /scratch/store  # written: data.store_path
  )
  mounts=()
  for path in "${reads[@]}"; do mounts+=(--mount="$(bind "$path" "$path"),ro"); done
  for path in "${writes[@]}"; do mounts+=(--mount="$(bind "$path" "$path")"); done
  passed=(MASTER_ADDR MASTER_PORT NNODES NODE_RANK SFTC_PREFLIGHT_WAIT SLURM_JOB_ID SLURM_JOB_ID_HET_GROUP_0 SLURM_RESTART_COUNT SLURM_PROCID SLURM_NTASKS SLURMD_NODENAME CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES USER HF_TOKEN)
  pass_on() { for name in "$@"; do [[ -z ${!name+x} ]] || export APPTAINERENV_"$name=${!name}"; done; }
  image=/images/sftc.sif
  container=(
    apptainer exec
    --cleanenv  # of the caller's environment only the names above go in
    --no-eval  # values are what they are, also with a `$` in them
    '--no-mount=home,cwd'  # no packages out of ~/.local, no files that the plan does not name
    --env=SFTC_IN_CONTAINER=1  # this script goes on inside
    "${mounts[@]}"  # what is read and written
    --pwd="$root"  # relative paths start here
    "$image"  # launch.container.image
    bash
    "$build_dir/launch.sh"
  )
  if [[ $* == --dry-run ]]; then
    printf 'mkdir -p --'; printf ' %q' "${writes[@]}"; printf '\n'
    declare -f pass_on; printf 'pass_on'; printf ' %q' "${passed[@]}"; printf '\n'
    printf '%q ' "${container[@]}"; printf '\n'
    exit 0
  fi
  command -v apptainer > /dev/null || fail apptainer "is not on PATH (launch.container.engine)"
  [[ $(sha256sum < "$image") == 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" "* ]] ||
    fail "$image is not what launch.container.image_sha256 says"
  for path in "${reads[@]}"; do [[ -e $path ]] || fail "$path does not exist, and the container is to read it"; done
  mkdir -p -- "${writes[@]}"
  pass_on "${passed[@]}"
  exec "${container[@]}" "$@"
fi

environment=(
  PYTHONSAFEPATH=1  # import installed packages only, no folder that lies here
  PYTHONUNBUFFERED=1  # the logs are complete when a rank dies
  HOME=/tmp  # the caller's home is not in the container, and caches need one
  OMP_NUM_THREADS=1  # one compute thread per rank: the same sums on every machine, no stalls on a busy one
)
prepare=(python3 -m sftc.runtime prepare "$build_dir")
preflight=(python3 -m sftc.runtime preflight "$build_dir")
train=(
  python3 -m sftc.runtime watch "$build_dir" --
  torchrun
  --nnodes=1
  --nproc-per-node=2
  --standalone
  --max-restarts=0
  --log-dir=/scratch/runs/apptainer/logs
  --redirects=1
  -m sftc.runtime train "$build_dir"
)

case "$*" in
  "") ;;
  --no-preflight) preflight=(echo "launch.sh: no preflight, as --no-preflight asks") ;;
  --dry-run)
    printf 'cd -- %q\n' "$root"
    printf 'export'; printf ' %q' "${environment[@]}"; printf '\n'
    printf '%q ' "${prepare[@]}"; printf '\n'
    printf '%q ' "${preflight[@]}"; printf '\n'
    printf '%q ' "${train[@]}"; printf '\n'
    exit 0 ;;
  *)
    echo "usage: bash launch.sh [--dry-run | --no-preflight]" >&2
    exit 2 ;;
esac

command -v torchrun > /dev/null ||
  fail "torchrun is not on PATH; activate the environment in which sftc[runtime] is installed"
cd -- "$root"
export "${environment[@]}"
"${prepare[@]}"
"${preflight[@]}" >&2
exec "${train[@]}"
