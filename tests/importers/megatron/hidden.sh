if [ -n "$SLURM_JOB_ID" ]; then
    torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 2
fi
