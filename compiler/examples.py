"""An example of what each code refuses, and of what to write instead; tests/unit/test_examples.py proves both.

A recipe's example is the part of a recipe that matters. Lines that start with `$ ` are typed into a shell, in a
directory in which `recipes/quickstart.yaml` is a good recipe whose rows and tokenizer are there; `$ cat FILE` shows a
file. An import's example is the part of the source that matters.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """`bad` gets the code, `good` gets no report at all. Both end in a line feed."""

    bad: str
    good: str


_DIGEST = "sha256:" + "0123456789abcdef" * 4

# SFTC210 has none: the recipe schema has no key of alternative forms.
_ROWS: dict[str, tuple[str, str]] = {
    "SFTC101": (
        "$ sftc validate recipes/quickstart.yml\n",
        "$ sftc validate recipes/quickstart.yaml\n",
    ),
    "SFTC102": (
        "$ sftc validate recipes\n",
        "$ sftc validate recipes/quickstart.yaml\n",
    ),
    "SFTC103": (
        "$ printf 'name: caf\\351\\n' > recipe.yaml\n$ sftc validate recipe.yaml\n",
        "$ printf 'name: caf\\303\\251\\n' > recipe.yaml\n$ sftc validate recipe.yaml\n",
    ),
    "SFTC104": (
        r'description: "first\u200eSecond"' "\n",
        'description: "first second"\n',
    ),
    "SFTC105": (
        "$ seq 100000 > train.yaml\n$ sftc validate train.yaml\n",
        "$ sftc validate recipes/quickstart.yaml\n",
    ),
    "SFTC106": (
        "launch:\n  environment: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[deep]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
        "launch:\n  environment:\n    NCCL_DEBUG: WARN\n",
    ),
    "SFTC107": (
        "# name: my-run\n",
        "name: my-run\n",
    ),
    "SFTC108": (
        "- name: my-run\n",
        "name: my-run\n",
    ),
    "SFTC110": (
        "name: my-run\n  description: indented too far\n",
        "name: my-run\ndescription: below the name\n",
    ),
    "SFTC111": (
        "train:\n\tlr: 1e-5\n",
        "train:\n  lr: 1e-5\n",
    ),
    "SFTC112": (
        "name: first\n---\nname: second\n",
        "name: first\n",
    ),
    "SFTC113": (
        "%YAML 1.1\n---\nname: my-run\n",
        "name: my-run\n",
    ),
    "SFTC114": (
        "train:\n  lr: 1e-5\n  lr: 2e-5\n",
        "train:\n  lr: 2e-5\n",
    ),
    "SFTC115": (
        "launch:\n  environment:\n    1: one\n",
        "launch:\n  environment:\n    ONE: one\n",
    ),
    "SFTC116": (
        "train:\n  lr_decay_iters: &length 1000\n  train_iters: *length\n",
        "train:\n  lr_decay_iters: 1000\n  train_iters: 1000\n",
    ),
    "SFTC117": (
        "train:\n  <<: {lr: 1e-5}\n",
        "train:\n  lr: 1e-5\n",
    ),
    "SFTC118": (
        "train:\n  lr: !!float 1e-5\n",
        "train:\n  lr: 1e-5\n",
    ),
    "SFTC120": (
        "parallel:\n  sequence_parallel: no\n",
        "parallel:\n  sequence_parallel: false\n",
    ),
    "SFTC121": (
        "train:\n  clip_grad: .inf\n",
        "train:\n  clip_grad: 1.0\n",
    ),
    "SFTC122": (
        "model:\n  vocab_size: 128_256\n",
        "model:\n  vocab_size: 128256\n",
    ),
    "SFTC123": (
        "train:\n  seed: 0042\n",
        "train:\n  seed: 42\n",
    ),
    "SFTC124": (
        "launch:\n  launcher: slurm\n  slurm:\n    time: 12:00:00\n",
        'launch:\n  launcher: slurm\n  slurm:\n    time: "12:00:00"\n',
    ),
    "SFTC125": (
        "description: 2025-01-31\n",
        'description: "2025-01-31"\n',
    ),
    "SFTC131": (
        "$ cat first.yaml\n"
        "base: second.yaml\n"
        "name: first\n"
        "$ cat second.yaml\n"
        "base: first.yaml\n"
        "$ sftc validate first.yaml\n",
        "$ cat first.yaml\nbase: recipes/quickstart.yaml\nname: first\n$ sftc validate first.yaml\n",
    ),
    "SFTC132": (
        "base: /recipes/quickstart.yaml\nname: my-run\n",
        "base: recipes/quickstart.yaml\nname: my-run\n",
    ),
    "SFTC201": (
        "train:\n  learning_rate: 1e-5\n",
        "train:\n  lr: 1e-5\n",
    ),
    "SFTC202": (
        "train:\n  lr: small\n",
        "train:\n  lr: 1e-5\n",
    ),
    "SFTC203": (
        "train:\n  train_iters: 1e3\n",
        "train:\n  train_iters: 1000\n",
    ),
    "SFTC204": (
        'train:\n  lr: "1e-5"\n',
        "train:\n  lr: 1e-5\n",
    ),
    "SFTC205": (
        "train:\n  lr_decay_style: cos\n",
        "train:\n  lr_decay_style: cosine\n",
    ),
    "SFTC206": (
        "train:\n  lr: 0\n",
        "train:\n  lr: 1e-5\n",
    ),
    "SFTC207": (
        "train:\n  train_iters: 1000\n  global_batch_size: 64\n  seq_length: 4096\n",
        "train:\n  train_iters: 1000\n  global_batch_size: 64\n  seq_length: 4096\n  lr: 1e-5\n",
    ),
    "SFTC208": (
        "name: my run\n",
        "name: my-run\n",
    ),
    "SFTC209": (
        "data:\n  sources: []\n",
        "data:\n  sources:\n    - path: data/math.jsonl\n",
    ),
    "SFTC301": (
        "name: my-run\n",
        "name: my-run\ntask:\n  is_instruction_dataset: true\n",
    ),
    "SFTC302": (
        "task:\n  is_instruction_dataset: true\n  is_sft: false\n",
        "task:\n  is_instruction_dataset: true\n",
    ),
    "SFTC303": (
        "task:\n  kind: pretrain\n  is_instruction_dataset: true\n",
        "task:\n  kind: sft\n  is_instruction_dataset: true\n",
    ),
    "SFTC304": (
        "task:\n  kind: sft\n",
        "task:\n  kind: sft\n  is_instruction_dataset: true\n",
    ),
    "SFTC305": (
        "task:\n  is_instruction_dataset: false\n",
        "task:\n  is_instruction_dataset: true\n",
    ),
    "SFTC401": (
        "model:\n  hidden_size: 1000\n  num_attention_heads: 16\n",
        "model:\n  hidden_size: 1024\n  num_attention_heads: 16\n",
    ),
    "SFTC402": (
        "model:\n  num_attention_heads: 16\n  num_query_groups: 5\n",
        "model:\n  num_attention_heads: 16\n  num_query_groups: 4\n",
    ),
    "SFTC403": (
        "model:\n  ffn_hidden_size: 4095\nparallel:\n  tensor_model_parallel_size: 2\n",
        "model:\n  ffn_hidden_size: 4096\nparallel:\n  tensor_model_parallel_size: 2\n",
    ),
    "SFTC404": (
        "model:\n  num_layers: 9\nparallel:\n  pipeline_model_parallel_size: 2\n",
        "model:\n  num_layers: 8\nparallel:\n  pipeline_model_parallel_size: 2\n",
    ),
    "SFTC405": (
        "model:\n  moe_router_topk: 2\n",
        "model:\n  num_experts: 8\n  moe_router_topk: 2\n",
    ),
    "SFTC406": (
        "model:\n  max_position_embeddings: 2048\ntrain:\n  seq_length: 4096\n",
        "model:\n  max_position_embeddings: 4096\ntrain:\n  seq_length: 4096\n",
    ),
    "SFTC407": (
        "megatron:\n  args:\n    apply_layernorm_1p: true\n",
        "model:\n  transformer_impl: transformer_engine\nmegatron:\n  args:\n    apply_layernorm_1p: true\n",
    ),
    "SFTC408": (
        "model:\n  preset: llama-3.2-1b\n  hf: models/llama\n",
        "model:\n  preset: llama-3.2-1b\n",
    ),
    "SFTC409": (
        "model:\n  hf: models/gemma/config.json\n",
        "model:\n  hf: models/llama/config.json\n",
    ),
    "SFTC410": (
        'model:\n  num_layers: 8\n  num_experts: 4\nmegatron:\n  args:\n    moe_layer_freq: "([0]*2+[1]*4)"\n',
        'model:\n  num_layers: 8\n  num_experts: 4\nmegatron:\n  args:\n    moe_layer_freq: "([0]*2+[1]*6)"\n',
    ),
    "SFTC411": (
        "launch:\n  nproc_per_node: 6\nparallel:\n  tensor_model_parallel_size: 4\n",
        "launch:\n  nproc_per_node: 8\nparallel:\n  tensor_model_parallel_size: 4\n",
    ),
    "SFTC412": (
        "parallel:\n  sequence_parallel: true\n",
        "parallel:\n  sequence_parallel: true\n  tensor_model_parallel_size: 2\n",
    ),
    "SFTC413": (
        "train:\n  seq_length: 2050\nparallel:\n  context_parallel_size: 2\n",
        "train:\n  seq_length: 2048\nparallel:\n  context_parallel_size: 2\n",
    ),
    "SFTC414": (
        "parallel:\n  num_virtual_stages_per_pipeline_rank: 2\n",
        "parallel:\n  num_virtual_stages_per_pipeline_rank: 2\n  pipeline_model_parallel_size: 2\n",
    ),
    "SFTC415": (
        "train:\n  optimizer: sgd\nparallel:\n  use_distributed_optimizer: true\n",
        "train:\n  optimizer: adam\nparallel:\n  use_distributed_optimizer: true\n",
    ),
    "SFTC416": (
        "train:\n  calculate_per_token_loss: false\nparallel:\n  context_parallel_size: 2\n",
        "train:\n  calculate_per_token_loss: true\nparallel:\n  context_parallel_size: 2\n",
    ),
    "SFTC421": (
        "train:\n  global_batch_size: 60\nlaunch:\n  nproc_per_node: 8\n",
        "train:\n  global_batch_size: 64\nlaunch:\n  nproc_per_node: 8\n",
    ),
    "SFTC422": (
        "train:\n  train_iters: 1000\n  lr_warmup_iters: 2000\n",
        "train:\n  train_iters: 1000\n  lr_warmup_iters: 50\n",
    ),
    "SFTC423": (
        "train:\n  train_iters: 1000\n  lr_decay_iters: 500\n",
        "train:\n  train_iters: 1000\n  lr_decay_iters: 1000\n",
    ),
    "SFTC424": (
        "train:\n  lr: 1e-5\n  min_lr: 1e-4\n",
        "train:\n  lr: 1e-5\n  min_lr: 1e-6\n",
    ),
    "SFTC425": (
        "train:\n  recompute_granularity: full\n",
        "train:\n  recompute_granularity: full\n  recompute_method: uniform\n  recompute_num_layers: 1\n",
    ),
    "SFTC426": (
        "train:\n  train_iters: 1000\n  epochs: 3\n",
        "train:\n  train_iters: 1000\n",
    ),
    "SFTC427": (
        "train:\n  fused_linear_cross_entropy: true\nmegatron:\n  args:\n    cross_entropy_loss_fusion: true\n",
        "train:\n  fused_linear_cross_entropy: true\n",
    ),
    "SFTC428": (
        "train:\n  optimizer: sgd\n  fused_adam: true\n",
        "train:\n  optimizer: adam\n  fused_adam: true\n",
    ),
    "SFTC429": (
        "model:\n  transformer_impl: transformer_engine\ntrain:\n  torch_compile: true\n",
        "model:\n  transformer_impl: local\ntrain:\n  torch_compile: true\n",
    ),
    "SFTC431": (
        "data:\n  format: text\n",
        "data:\n  format: messages\n",
    ),
    "SFTC432": (
        "data:\n  valid_data_path: data/valid.jsonl\n",
        "data:\n  valid_data_path: data/valid.jsonl\neval:\n  eval_interval: 100\n",
    ),
    "SFTC433": (
        "train:\n  train_iters: 1000\ndata:\n  valid_data_path: data/valid.jsonl\neval:\n  eval_interval: 5000\n",
        "train:\n  train_iters: 1000\ndata:\n  valid_data_path: data/valid.jsonl\neval:\n  eval_interval: 100\n",
    ),
    "SFTC434": (
        "data:\n"
        "  train_data_path: data/train.jsonl\n"
        "  valid_data_path: data/train.jsonl\n"
        "eval:\n"
        "  eval_interval: 100\n",
        "data:\n  train_data_path: data/train.jsonl\n  valid_fraction: 0.01\neval:\n  eval_interval: 100\n",
    ),
    "SFTC436": (
        "data:\n  packing: true\ntrain:\n  micro_batch_size: 4\n",
        "data:\n  packing: true\ntrain:\n  micro_batch_size: 1\n",
    ),
    "SFTC437": (
        "data:\n  train_data_path: data/train.jsonl\n  sources:\n    - path: data/math.jsonl\n",
        "data:\n  sources:\n    - path: data/train.jsonl\n    - path: data/math.jsonl\n",
    ),
    "SFTC438": (
        "data:\n  sources:\n    - path: data/math.jsonl\n      weight: 2\n    - path: data/chat.jsonl\n",
        "data:\n"
        "  sources:\n"
        "    - path: data/math.jsonl\n"
        "      weight: 2\n"
        "    - path: data/chat.jsonl\n"
        "      weight: 1\n",
    ),
    "SFTC439": (
        "data:\n  packing: true\n  padding: longest\n",
        "data:\n  packing: true\n",
    ),
    "SFTC441": (
        "model:\n  num_layers: 8\n",
        "model:\n  num_layers: 8\n  load: hf:models/llama\n",
    ),
    "SFTC442": (
        "model:\n  init: random\ncheckpoint:\n  no_load_optim: true\n",
        "model:\n  load: checkpoints/base\ncheckpoint:\n  no_load_optim: true\n",
    ),
    "SFTC443": (
        "train:\n  train_iters: 1000\ncheckpoint:\n  save_interval: 5000\n",
        "train:\n  train_iters: 1000\ncheckpoint:\n  save_interval: 100\n",
    ),
    "SFTC444": (
        "model:\n  load: hf:models/llama\ncheckpoint:\n  finetune: false\n",
        "model:\n  load: hf:models/llama\n",
    ),
    "SFTC445": (
        "model:\n  load: hf:models/llama\nlora:\n  rank: 16\n  targets: [q_proj, v_proj]\n",
        "model:\n  load: hf:models/llama\nlora:\n  rank: 16\n  targets: [linear_qkv]\n",
    ),
    "SFTC446": (
        "model:\n  hidden_size: 1024\n  load: hf:models/llama\nlora:\n  rank: 2048\n",
        "model:\n  hidden_size: 1024\n  load: hf:models/llama\nlora:\n  rank: 16\n",
    ),
    "SFTC447": (
        "model:\n  init: random\nlora:\n  rank: 16\n",
        "model:\n  load: hf:models/llama\nlora:\n  rank: 16\n",
    ),
    "SFTC451": (
        "launch:\n  launcher: torchrun\n  slurm:\n    partition: gpu\n",
        "launch:\n  launcher: slurm\n  slurm:\n    partition: gpu\n",
    ),
    "SFTC452": (
        "train:\n  precision: fp16\nlaunch:\n  device: cpu\n",
        "train:\n  precision: bf16\nlaunch:\n  device: cpu\n",
    ),
    "SFTC453": (
        "launch:\n  environment:\n    WANDB_API_KEY: 0123456789abcdef\n",
        "launch:\n  environment:\n    WANDB_MODE: offline\n",
    ),
    "SFTC454": (
        "tokenizer:\n  path: ~/tokenizers/llama\n",
        "tokenizer:\n  path: tokenizers/llama\n",
    ),
    "SFTC455": (
        'tokenizer:\n  path: "tokenizers/\\nllama"\n',
        "tokenizer:\n  path: tokenizers/llama\n",
    ),
    "SFTC456": (
        'launch:\n  environment:\n    WORLD_SIZE: "8"\n',
        "launch:\n  nproc_per_node: 8\n",
    ),
    "SFTC457": (
        "checkpoint:\n  async_save: true\nlaunch:\n  max_inprocess_restarts: 2\n",
        "checkpoint:\n  async_save: true\nlaunch:\n  max_restarts: 2\n",
    ),
    "SFTC461": (
        "tokenizer:\n  chat_template: no/such/file.jinja\n",
        "tokenizer:\n  path: tokenizers/llama\n",
    ),
    "SFTC462": (
        "$ cat weighted.py\n"
        "from my_weights import weigh\n"
        "\n"
        "def loss(losses, loss_mask, batch):\n"
        "    return weigh(losses, loss_mask)\n"
        "$ touch my_weights.py\n"
        "$ cat my-run.yaml\n"
        "base: recipes/quickstart.yaml\n"
        "name: my-run\n"
        "hooks:\n"
        "  loss: weighted.py:loss\n"
        "$ sftc validate my-run.yaml\n",
        "$ cat weighted.py\n"
        "def loss(losses, loss_mask, batch):\n"
        "    return (losses * loss_mask).sum(), loss_mask.sum()\n"
        "$ cat my-run.yaml\n"
        "base: recipes/quickstart.yaml\n"
        "name: my-run\n"
        "hooks:\n"
        "  loss: weighted.py:loss\n"
        "$ sftc validate my-run.yaml\n",
    ),
    "SFTC463": (
        "$ cat weighted.py\n"
        "def loss(losses, loss_mask):\n"
        "    return (losses * loss_mask).sum(), loss_mask.sum()\n"
        "$ cat my-run.yaml\n"
        "base: recipes/quickstart.yaml\n"
        "name: my-run\n"
        "hooks:\n"
        "  loss: weighted.py:loss\n"
        "$ sftc validate my-run.yaml\n",
        "$ cat weighted.py\n"
        "def loss(losses, loss_mask, batch):\n"
        "    return (losses * loss_mask).sum(), loss_mask.sum()\n"
        "$ cat my-run.yaml\n"
        "base: recipes/quickstart.yaml\n"
        "name: my-run\n"
        "hooks:\n"
        "  loss: weighted.py:loss\n"
        "$ sftc validate my-run.yaml\n",
    ),
    "SFTC464": (
        "hooks:\n  datasets_provider: my_package.data:datasets\neval:\n  eval_interval: 100\n",
        "hooks:\n  datasets_provider: my_package.data:datasets\neval:\n  eval_interval: 100\n  eval_iters: 10\n",
    ),
    "SFTC471": (
        'launch:\n  launcher: slurm\n  slurm:\n    array: "1-5"\n',
        'launch:\n  launcher: slurm\n  slurm:\n    array: "1-5%1"\n',
    ),
    "SFTC472": (
        "launch:\n  nnodes: 4\n  launcher: slurm\n  slurm:\n    groups: [{nnodes: 1}, {nnodes: 2}]\n",
        "launch:\n  nnodes: 4\n  launcher: slurm\n  slurm:\n    groups: [{nnodes: 2}, {nnodes: 2}]\n",
    ),
    "SFTC473": (
        'launch:\n  launcher: slurm\n  slurm:\n    time: "5"\n',
        'launch:\n  launcher: slurm\n  stop_seconds: 60\n  slurm:\n    time: "5"\n    signal_seconds: 60\n',
    ),
    "SFTC474": (
        "launch:\n  device: cpu\n  launcher: slurm\n  slurm:\n    gpu_type: h100\n",
        "launch:\n  device: cuda\n  launcher: slurm\n  slurm:\n    gpu_type: h100\n",
    ),
    "SFTC475": (
        "launch:\n  container:\n    engine: docker\n    image: registry.example.com/sftc:1.0\n",
        f"launch:\n  container:\n    engine: docker\n    image: registry.example.com/sftc@{_DIGEST}\n",
    ),
    "SFTC476": (
        f"launch:\n  container:\n    engine: pyxis\n    image: registry.example.com/sftc@{_DIGEST}\n",
        "launch:\n"
        "  launcher: slurm\n"
        "  container:\n"
        "    engine: pyxis\n"
        f"    image: registry.example.com/sftc@{_DIGEST}\n",
    ),
    "SFTC477": (
        "tokenizer:\n"
        "  path: /models/llama\n"
        "launch:\n"
        "  container:\n"
        "    engine: docker\n"
        f"    image: registry.example.com/sftc@{_DIGEST}\n"
        "    mounts: [/other:/models]\n",
        "tokenizer:\n"
        "  path: /models/llama\n"
        "launch:\n"
        "  container:\n"
        "    engine: docker\n"
        f"    image: registry.example.com/sftc@{_DIGEST}\n"
        "    mounts: [/other:/other]\n",
    ),
    "SFTC478": (
        f"launch:\n  container:\n    engine: apptainer\n    image: registry.example.com/sftc@{_DIGEST}\n",
        f"launch:\n  container:\n    engine: apptainer\n    image: docker://registry.example.com/sftc@{_DIGEST}\n",
    ),
    "SFTC481": (
        "model:\n  preset: llama-2-7b\nlaunch:\n  nproc_per_node: 8\n  hardware: H100\n",
        "model:\n"
        "  preset: llama-2-7b\n"
        "parallel:\n"
        "  use_distributed_optimizer: true\n"
        "launch:\n"
        "  nproc_per_node: 8\n"
        "  hardware: H100\n",
    ),
    "SFTC485": (
        "eval:\n  generate:\n    samples: 64\n",
        "data:\n  valid_data_path: data/better.jsonl\neval:\n  eval_interval: 100\n  generate:\n    samples: 64\n",
    ),
    "SFTC486": (
        "data:\n  valid_data_path: data/better.jsonl\neval:\n  eval_interval: 100\n  generate:\n    samples: 64\n"
        "    top_p: 0.9\n",
        "data:\n  valid_data_path: data/better.jsonl\neval:\n  eval_interval: 100\n  generate:\n    samples: 64\n"
        "    temperature: 0.7\n    top_p: 0.9\n",
    ),
    "SFTC487": (
        "data:\n  valid_data_path: data/better.jsonl\neval:\n  eval_interval: 100\n  generate:\n    samples: 64\n"
        "    answer_pattern: '(####|Answer:) ([0-9]+)'\n",
        "data:\n  valid_data_path: data/better.jsonl\neval:\n  eval_interval: 100\n  generate:\n    samples: 64\n"
        "    answer_pattern: '(?:####|Answer:) ([0-9]+)'\n",
    ),
    "SFTC488": (
        "data:\n  valid_data_path: data/better.jsonl\neval:\n  eval_interval: 100\n  generate:\n    samples: 64\n"
        "    max_new_tokens: 4096\n",
        "data:\n  valid_data_path: data/better.jsonl\neval:\n  eval_interval: 100\n  generate:\n    samples: 64\n"
        "    max_new_tokens: 256\n",
    ),
    "SFTC491": (
        "$ echo '{}' > recipes/quickstart.lock\n$ sftc validate recipes/quickstart.yaml\n",
        "$ sftc lock recipes/quickstart.yaml\n$ sftc validate recipes/quickstart.yaml\n",
    ),
    "SFTC492": (
        "$ sftc lock recipes/quickstart.yaml\n"
        "$ sed -i s/train.jsonl/better.jsonl/ recipes/quickstart.yaml\n"
        "$ sftc validate recipes/quickstart.yaml\n",
        "$ sftc lock recipes/quickstart.yaml\n"
        "$ sed -i s/train.jsonl/better.jsonl/ recipes/quickstart.yaml\n"
        "$ sftc lock recipes/quickstart.yaml\n"
        "$ sftc validate recipes/quickstart.yaml\n",
    ),
    "SFTC501": (
        "megatron:\n  args:\n    manual_gcc: true\n",
        "megatron:\n  args:\n    manual_gc: true\n",
    ),
    "SFTC502": (
        "megatron:\n  args:\n    lr: 1e-5\n",
        "train:\n  lr: 1e-5\n",
    ),
    "SFTC503": (
        "megatron:\n  args:\n    manual_gc_interval: often\n",
        "megatron:\n  args:\n    manual_gc_interval: 100\n",
    ),
    "SFTC601": (
        "$ mkdir build && echo mine > build/launch.sh\n$ sftc compile recipes/quickstart.yaml -o build\n",
        "$ sftc compile recipes/quickstart.yaml -o build/quickstart\n",
    ),
    "SFTC602": (
        "$ sftc compile recipes/quickstart.yaml -o build\n"
        "$ echo '--lr 1.0' >> build/megatron.args\n"
        "$ sftc compile recipes/quickstart.yaml -o build\n",
        "$ sftc compile recipes/quickstart.yaml -o build\n"
        "$ echo '--lr 1.0' >> build/megatron.args\n"
        "$ sftc compile recipes/quickstart.yaml -o build --force\n",
    ),
    "SFTC603": (
        "$ touch build\n$ sftc compile recipes/quickstart.yaml -o build/quickstart\n",
        "$ mkdir build\n$ sftc compile recipes/quickstart.yaml -o build/quickstart\n",
    ),
    "SFTC701": (
        "$ cat train.sh\ntorchrun pretrain_gpt.py --lr $LR\n$ sftc import megatron train.sh --task sft\n",
        "$ cat train.sh\ntorchrun pretrain_gpt.py --lr $LR\n$ sftc import megatron train.sh --task sft --env LR=1e-5\n",
    ),
    "SFTC702": (
        "$ cat experiment.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      stage: sft\n"
        "      lr: 1.0e-5\n"
        "      peft: dora\n"
        "$ sftc import primus experiment.yaml\n",
        "$ cat experiment.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      stage: sft\n"
        "      lr: 1.0e-5\n"
        "$ sftc import primus experiment.yaml\n",
    ),
    "SFTC703": (
        "$ cat train.sh\ntorchrun pretrain_gpt.py --lr 1e-5\n$ sftc import megatron train.sh\n",
        "$ cat train.sh\ntorchrun pretrain_gpt.py --lr 1e-5\n$ sftc import megatron train.sh --task sft\n",
    ),
    "SFTC704": (
        "$ cat experiment.yaml\n"
        "modules:\n"
        "  pre_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      is_instruction_dataset: true\n"
        "      lr: 1.0e-5\n"
        "$ sftc import primus experiment.yaml\n",
        "$ cat experiment.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      is_instruction_dataset: true\n"
        "      lr: 1.0e-5\n"
        "$ sftc import primus experiment.yaml\n",
    ),
    "SFTC705": (
        "$ cat experiment.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      stage: sft\n"
        "      lr: 1.0e-5\n"
        "      finetune_lr: 2.0e-5\n"
        "$ sftc import primus experiment.yaml\n",
        "$ cat experiment.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      stage: sft\n"
        "      finetune_lr: 2.0e-5\n"
        "$ sftc import primus experiment.yaml\n",
    ),
    "SFTC706": (
        "$ cat experiment.yaml\n"
        "extends:\n"
        "  - house.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      stage: sft\n"
        "      lr: 1.0e-5\n"
        "$ sftc import primus experiment.yaml\n",
        "$ cat house.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    overrides:\n"
        "      clip_grad: 0.5\n"
        "$ cat experiment.yaml\n"
        "extends:\n"
        "  - house.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      stage: sft\n"
        "      lr: 1.0e-5\n"
        "$ sftc import primus experiment.yaml\n",
    ),
    "SFTC707": (
        "$ cat experiment.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    clip_grad: 0.5\n"
        "    overrides:\n"
        "      stage: sft\n"
        "      lr: 1.0e-5\n"
        "$ sftc import primus experiment.yaml\n",
        "$ cat experiment.yaml\n"
        "modules:\n"
        "  post_trainer:\n"
        "    framework: megatron\n"
        "    overrides:\n"
        "      stage: sft\n"
        "      lr: 1.0e-5\n"
        "      clip_grad: 0.5\n"
        "$ sftc import primus experiment.yaml\n",
    ),
    "SFTC708": (
        "$ cat train.sh\n"
        "RUN=$(date +%F)\n"
        "torchrun pretrain_gpt.py --lr 1e-5 --save runs/$RUN\n"
        "$ sftc import megatron train.sh --task sft\n",
        "$ cat train.sh\n"
        "RUN=$(date +%F)\n"
        "torchrun pretrain_gpt.py --lr 1e-5 --save runs/$RUN\n"
        "$ sftc import megatron train.sh --task sft --env RUN=first\n",
    ),
    "SFTC709": (
        "$ cat train.sh\n"
        "torchrun pretrain_gpt.py --lr 1e-5\n"
        "torchrun pretrain_gpt.py --lr 1e-6\n"
        "$ sftc import megatron train.sh --task sft\n",
        "$ cat train.sh\ntorchrun pretrain_gpt.py --lr 1e-5\n$ sftc import megatron train.sh --task sft\n",
    ),
    "SFTC710": (
        "$ cat train.sh\n"
        "torchrun --nproc_per_node 8 pretrain_gpt.py \\\n"
        "  --num-layers 8 --hidden-size 1024 --num-attention-heads 16 \\\n"
        "  --vocab-size 32000 --max-position-embeddings 4096 \\\n"
        "  --train-iters 1000 --global-batch-size 64 --seq-length 4096 --lr 1e-5\n"
        "$ sftc import megatron train.sh --task sft\n",
        "$ cat train.sh\n"
        "torchrun --nproc_per_node 8 pretrain_gpt.py \\\n"
        "  --num-layers 8 --hidden-size 1024 --num-attention-heads 16 \\\n"
        "  --vocab-size 32000 --max-position-embeddings 4096 \\\n"
        "  --train-iters 1000 --global-batch-size 64 --seq-length 4096 --lr 1e-5\n"
        "$ sftc import megatron train.sh --task sft --set model.load=hf:models/llama"
        " --set tokenizer.path=tokenizer --set data.train_data_path=data/train.jsonl\n",
    ),
}

EXAMPLES: dict[str, Example] = {code: Example(bad=bad, good=good) for code, (bad, good) in _ROWS.items()}
