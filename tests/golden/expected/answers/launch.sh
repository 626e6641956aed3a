#!/usr/bin/env bash
# Starts the run answers. Written by sftc 0.1.0 for Megatron-Core 0.19;
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
environment=(
  PYTHONSAFEPATH=1  # import installed packages only, no folder that lies here
  PYTHONUNBUFFERED=1  # the logs are complete when a rank dies
  OMP_NUM_THREADS=1  # one compute thread per rank: the same sums on every machine, no stalls on a busy one
)
prepare=(python3 -m sftc.runtime prepare "$build_dir")
preflight=(python3 -m sftc.runtime preflight "$build_dir")
train=(
  python3 -m sftc.runtime watch "$build_dir" --
  torchrun
  --nnodes=1
  --nproc-per-node=1
  --standalone
  --max-restarts=0
  --log-dir=runs/answers/logs
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
