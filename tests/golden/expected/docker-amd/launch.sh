#!/usr/bin/env bash
# Starts the run docker-amd. Written by sftc 0.1.0 for Megatron-Core 0.19;
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
nnodes=2
[[ ${NNODES:-$nnodes} == "$nnodes" ]] || fail "NNODES is $NNODES, and the plan has launch.nnodes: $nnodes"
# Names only: the ranks inherit the values from whoever starts this.
secrets=(WANDB_API_KEY TEAM_TOKEN)
for secret in "${secrets[@]}"; do
  [[ ${1-} == --dry-run || -n $(printenv -- "$secret") ]] ||
    fail "$secret is not exported, and launch.secrets names it"
done
# Where the nodes meet: MASTER_ADDR is the host name of the first one. The parts of a heterogeneous job share its id.
[[ ${1-} == --dry-run || -n ${MASTER_ADDR-} ]] || fail "MASTER_ADDR is not set; it is the host name of the first node"
job=${SLURM_JOB_ID_HET_GROUP_0:-${SLURM_JOB_ID-}}

# Outside: what is needed inside is mounted, and this same script goes on there.
if [[ -z ${SFTC_IN_CONTAINER-} ]]; then
  # One mount, as CSV: a path may hold blanks, commas and quotes.
  bind() { printf 'type=bind,"source=%s","destination=%s"' "${1//\"/\"\"}" "${2//\"/\"\"}"; }
  root=$(cd -- "$root" && pwd -P)
  reads=(
    "$build_dir"  # read: this build dir
    /models/llama  # read: tokenizer.path, model.load
    "$root"/data/valid.jsonl  # read: data.valid_data_path
    "$root"/'data/first, "best" rows.jsonl'  # read: data.sources.0.path
    "$root"/data/tokens  # read: data.sources.1.path
  )
  writes=(
    "$root"/runs/docker-amd  # written: logging.run_path, logging.tensorboard_dir
    /checkpoints/docker-amd  # written: checkpoint.save
    "$root"/runs/store  # written: data.store_path
  )
  mounts=()
  for path in "${reads[@]}"; do mounts+=(--mount="$(bind "$path" "$path"),ro"); done
  for path in "${writes[@]}"; do mounts+=(--mount="$(bind "$path" "$path")"); done
  mounts+=(--mount="$(bind '/scratch/my cache' /cache)")  # launch.container.mounts.0
  mounts+=(--mount="$(bind "$root"/certificates /etc/team),ro")  # launch.container.mounts.1
  passed=(MASTER_ADDR MASTER_PORT NNODES NODE_RANK SFTC_PREFLIGHT_WAIT SLURM_JOB_ID SLURM_JOB_ID_HET_GROUP_0 SLURM_RESTART_COUNT SLURM_PROCID SLURM_NTASKS SLURMD_NODENAME CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES USER WANDB_API_KEY WANDB_BASE_URL WANDB_MODE TEAM_TOKEN)
  mapfile -d '' -t groups < <(id --zero --groups)
  infiniband=
  [[ ! -d /dev/infiniband ]] || infiniband=--device=/dev/infiniband
  container=(
    docker run
    --rm  # nothing stays behind but what is mounted
    --init  # passes signals on to the supervisor, also while the data is prepared, and takes in orphans
    --stop-timeout=310  # launch.stop_seconds
    --ipc=host  # the data loader and NCCL share memory, of which a container has 64 MB
    --network=host  # the nodes meet at a port of the host, and NCCL picks its interfaces
    --uts=host  # torchrun compares the name of the host with MASTER_ADDR
    --ulimit=memlock=-1  # NCCL pins memory
    --device=/dev/kfd  # the compute interface of all AMD GPUs
    --device=/dev/dri  # the AMD GPUs
    ${infiniband:+"$infiniband"}  # NCCL reaches the other nodes over InfiniBand, where there is one
    --user="$(id -u):$(id -g)"  # what the run writes belongs to the caller
    "${groups[@]/#/--group-add=}"  # what the caller reads and uses through a group is open inside too
    --env=SFTC_IN_CONTAINER=1  # this script goes on inside
    "${passed[@]/#/--env=}"  # by name: values stand in no command line
    "${mounts[@]}"  # what is read and written, and nothing else
    --workdir="$root"  # relative paths start here
    --entrypoint=bash  # launch.sh runs, and nothing of the image before it
    registry.example.com:5000/team/sftc@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  # launch.container.image
    "$build_dir/launch.sh"
  )
  if [[ $* == --dry-run ]]; then
    printf 'mkdir -p --'; printf ' %q' "${writes[@]}"; printf '\n'
    printf '%q ' "${container[@]}"; printf '\n'
    exit 0
  fi
  command -v docker > /dev/null || fail docker "is not on PATH (launch.container.engine)"
  for path in "${reads[@]}"; do [[ -e $path ]] || fail "$path does not exist, and the container is to read it"; done
  mkdir -p -- "${writes[@]}"
  exec "${container[@]}" "$@"
fi

environment=(
  PYTHONSAFEPATH=1  # import installed packages only, no folder that lies here
  PYTHONUNBUFFERED=1  # the logs are complete when a rank dies
  HOME=/tmp  # the caller's home is not in the container, and caches need one
  GPU_MAX_HW_QUEUES=2  # two queues for compute and two for RCCL: four are what the hardware serves best (launch.hardware)
  TORCH_NCCL_HIGH_PRIORITY=1  # RCCL's streams get a high priority, or they overlap badly with compute (launch.hardware)
  OMP_NUM_THREADS=1  # one compute thread per rank: the same sums on every machine, no stalls on a busy one
)
prepare=(python3 -m sftc.runtime prepare "$build_dir")
preflight=(python3 -m sftc.runtime preflight "$build_dir")
train=(
  python3 -m sftc.runtime watch "$build_dir" --
  torchrun
  --nnodes=2
  --nproc-per-node=8
  --rdzv-backend=c10d
  --max-restarts=0
  --log-dir=runs/docker-amd/logs
  --redirects=1
  --rdzv-endpoint "${MASTER_ADDR:-MASTER_ADDR}:${MASTER_PORT:-26150}"
  --rdzv-id docker-amd"${job:+-$job-${SLURM_RESTART_COUNT:-0}}"
  ${NODE_RANK:+--node-rank "$NODE_RANK"}
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
