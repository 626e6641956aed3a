#!/bin/bash
# A run as people start it: arrays, defaults, arithmetic.
set -euo pipefail
export CUDA_DEVICE_MAX_CONNECTIONS=1
export HF_TOKEN=abc

GPUS_PER_NODE=8
NUM_NODES=${NNODES:-2}
WORLD_SIZE=$(($GPUS_PER_NODE * NUM_NODES))
CHECKPOINTS=${1:-"runs/one"}
TP=2

DISTRIBUTED_ARGS=(
    --nproc_per_node $GPUS_PER_NODE
    --nnodes $NUM_NODES
    --node_rank ${NODE_RANK:-0}
    --master_addr=localhost
)

MODEL_ARGS=(
    --num-layers 16
    --hidden-size 2048
    --ffn-hidden-size 8192
    --num-attention-heads 32
    --group-query-attention
    --num-query-groups 8      # grouped
    --max-position-embeddings 8192
    --position-embedding-type rope
    # --rotary-base 10000
    --rotary-base 500000
    --swiglu
    --normalization RMSNorm
    --disable-bias-linear
    --untie-embeddings-and-output-weights
    --vocab-size 128256
    --no-rope-fusion
)

TRAINING_ARGS=(
    --micro-batch-size 1
    --global-batch-size $((WORLD_SIZE * 4))
    --seq-length 4096
    --train-samples 64000
    --lr-warmup-samples 1280
    --lr "1.0e-5"
    --min-lr=1e-6
    --weight-decay .1
    --lr-decay-style cosine
    --bf16
    --calculate-per-token-loss
)
TRAINING_ARGS+=(--adam-beta2 0.95 --manual-gc --manual-gc-interval 100)

CHECKPOINT_ARGS="
    --save $CHECKPOINTS \
    --load $CHECKPOINTS \
    --pretrained-checkpoint /models/base \
    --finetune \
    --save-interval 100 \
"

torchrun "${DISTRIBUTED_ARGS[@]}" pretrain_gpt.py \
    "${MODEL_ARGS[@]}" \
    ${TRAINING_ARGS[@]} \
    $CHECKPOINT_ARGS \
    --sft \
    --tensor-model-parallel-size $TP \
    --sequence-parallel \
    --data-path 'data/a b' \
    --tokenizer-type HuggingFaceTokenizer \
    --tokenizer-model meta/llama \
    --split 99,1,0 \
    --moe-router-topk 2 \
    --eval-interval 100 \
    "$@" 2>&1 | tee log.txt
