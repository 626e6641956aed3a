MODE=fp8
DATA=$(ls -d /data/*)
if [[ "$MODE" == "fp8" ]]; then
    PRECISION_ARGS=(--fp8-format hybrid)
fi
for size in 8 16; do
    BATCH=$size
done
[ -d /scratch ] && SAVE=/scratch || SAVE=/tmp
torchrun --nproc_per_node $GPUS --nnodes 1:4 pretrain_gpt.py \
    --num-layers 2 --hidden-size 64 --swiglu \
    ${PRECISION_ARGS[@]} \
    --global-batch-size $BATCH \
    --tensorboard-dir ${DATA}/tb \
    --save $SAVE \
    --lr 1e-5 --lr 2e-5 \
    --train-iters many \
    --wombat 3 --num-expert 4 --checkpoint-activations
