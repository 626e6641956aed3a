torchrun pretrain_gpt.py --save "runs
