python pretrain_gpt.py --num-layers 2 --hidden-size 64 --finetune --load /models/base
