"""Every diagnostic code with a title and an explanation for the user who meets it.

1xx reading, YAML and bases, 2xx schema, 3xx task flag, 4xx cross-field rules and the lock, 5xx Megatron options,
6xx build dir.
A code, once released, keeps its meaning; a retired one is not given out again.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What a code stands for: `title` is a noun phrase, `explanation` says why it is refused and what to do."""

    title: str
    explanation: str


_ROWS: dict[str, tuple[str, str]] = {
    # 1xx: reading and YAML
    "SFTC101": (
        "a file that cannot be read",
        "The recipe does not exist, or its permissions keep sftc out. Check the path and where you started from.",
    ),
    "SFTC102": (
        "a directory in place of a recipe",
        "A recipe is one YAML file. Name the file inside the directory.",
    ),
    "SFTC103": (
        "a file that is not UTF-8",
        "Recipes are UTF-8 text, so that every machine reads the same characters. Save the file as UTF-8.",
    ),
    "SFTC104": (
        "a character that nobody can see",
        "Control characters, line separators other than the line feed and marks that turn the writing direction around "
        "make a text look different from what it says. Reviewed text has to be what is compiled.",
    ),
    "SFTC105": (
        "a recipe that is too large",
        "A recipe is a page or two of settings. A file of this size is usually data named by mistake.",
    ),
    "SFTC106": (
        "nesting that is too deep",
        "No recipe needs this many levels; the limit keeps hostile input from exhausting the reader.",
    ),
    "SFTC107": ("an empty recipe", "The file holds nothing but blanks or comments."),
    "SFTC108": (
        "a recipe that is not a mapping",
        "On its outermost level a recipe is `section:` with indented `key: value` lines below.",
    ),
    "SFTC110": ("text that is not YAML", "The reader could not make sense of the text from this place on."),
    "SFTC111": (
        "a tab where YAML wants spaces",
        "Editors disagree about the width of a tab, so YAML does not accept it in front of a key or a value.",
    ),
    "SFTC112": (
        "more than one document",
        "A recipe is a single YAML document; what follows a second `---` would be silently lost.",
    ),
    "SFTC113": (
        "a YAML directive",
        "`%YAML 1.1` changes how values are read and `%TAG` brings in types. Recipes are always read as YAML 1.2.",
    ),
    "SFTC114": (
        "a key given twice",
        "Most YAML readers keep the last value without a word. sftc does not choose between the two.",
    ),
    "SFTC115": (
        "a key that is not a word",
        "Keys are plain words. A number, `true`, `null`, a list or a mapping in the place of a key is refused.",
    ),
    "SFTC116": (
        "an anchor or an alias",
        "`&name` and `*name` copy values from elsewhere, so that a line no longer says what it means. "
        "Write the value where it is used.",
    ),
    "SFTC117": (
        "a merge key",
        "`<<` belongs to YAML 1.1 and takes keys from elsewhere. Write the keys where they are used.",
    ),
    "SFTC118": (
        "a YAML tag",
        "Tags such as `!include`, `!!str` or `!!python/object` change what a value is or run code. "
        "Recipes hold plain values only.",
    ),
    "SFTC120": (
        "a word that some YAML readers take for true or false",
        "`yes`, `no`, `on`, `off`, `y` and `n` are booleans in YAML 1.1 and words in YAML 1.2. "
        "Write `true` or `false`, or put quotes around the word.",
    ),
    "SFTC121": (
        "a number that a computer cannot hold",
        "`.nan`, `.inf`, integers beyond 64 bits and decimals beyond double precision are refused, because "
        "comparisons with limits say nothing about them.",
    ),
    "SFTC122": (
        "an underscore in a number",
        "`1_000` is a number in YAML 1.1 and a word in YAML 1.2. Write the digits only.",
    ),
    "SFTC123": (
        "a number in another base",
        "`010` is 8 to one YAML reader and 10 to another; `0o10` and `0b10` are numbers to some and words to others. "
        "Write it in decimal.",
    ),
    "SFTC124": (
        "a number in base 60",
        "`1:30:00` is 5400 in YAML 1.1 and a word in YAML 1.2. Put quotes around a duration.",
    ),
    "SFTC125": (
        "a bare date",
        "`2025-01-31` is a date to some YAML readers and a word to others. Put quotes around it.",
    ),
    "SFTC131": (
        "bases that go in a circle",
        "A recipe extends the recipe that its `base` names, that one its own base, and so on; the last one has none.",
    ),
    "SFTC132": (
        "a base by an absolute path",
        "A base is part of what is reviewed, so it lies where the recipe lies and is named relative to it.",
    ),
    # 2xx: schema
    "SFTC201": ("an unknown key", "Nothing reads this key. An unread key is a setting that its author believes in."),
    "SFTC202": ("a value of the wrong type", "The key needs another kind of value than the one given."),
    "SFTC203": (
        "a decimal number where an integer is meant",
        "Counts and sizes are integers: write `1`, not `1.0` or `1e0`.",
    ),
    "SFTC204": (
        "a number or boolean in quotes",
        "With quotes it is text. The quotes have to go.",
    ),
    "SFTC205": ("a value that is not on the menu", "The key takes one of a few values, all named in the message."),
    "SFTC206": ("a number outside its limits", "The message names the value and the limit that it breaks."),
    "SFTC207": ("a missing key", "The section cannot be compiled without this key, and no default would be safe."),
    "SFTC208": ("text of the wrong form", "The text breaks the pattern or the length that the key asks for."),
    "SFTC209": ("a list or mapping of the wrong size", "It has too few items, too many, or the same one twice."),
    "SFTC210": ("a value that fits none of the allowed forms", "The key takes several forms; this is none of them."),
    # 3xx: task flag
    "SFTC301": (
        "no SFT flag",
        "Instruction tuning and plain next-token training mask the loss differently, and nothing else in a recipe "
        "tells them apart: not `finetune_lr`, not `checkpoint.finetune`, not a data path. "
        "So the recipe says it itself: `task.is_instruction_dataset: true`.",
    ),
    "SFTC302": (
        "SFT markers that contradict each other",
        "`task.is_instruction_dataset` and `task.is_sft` say the same thing; one being true and the other false "
        "leaves open which loss is meant. Keep one of them.",
    ),
    "SFTC303": (
        "a task kind that contradicts the SFT flag",
        "`task.kind` may repeat what the flag says, never deny it.",
    ),
    "SFTC304": (
        "`kind: sft` without the SFT flag",
        "`task.kind: sft` does not stand in for the flag. Add `task.is_instruction_dataset: true`.",
    ),
    "SFTC305": (
        "a plain next-token step",
        "The recipe asks for no instruction tuning: no chat template, loss on every token but the padding. "
        "That is allowed, and said aloud because it is rarely what a recipe for SFT wants.",
    ),
    # 4xx: rules that span several keys
    "SFTC401": (
        "a hidden size that the heads do not divide",
        "Each head takes an equal share of the hidden size, unless `model.kv_channels` gives its width.",
    ),
    "SFTC402": (
        "query groups that do not divide the heads",
        "In grouped-query attention every group serves the same number of query heads.",
    ),
    "SFTC403": (
        "a size that tensor parallelism cannot split",
        "Each tensor-parallel rank holds an equal share of heads, groups, hidden size and feed-forward width.",
    ),
    "SFTC404": (
        "layers that the pipeline cannot split",
        "Each pipeline rank, and each of its virtual stages, holds the same number of layers, unless options of "
        "`megatron.args` deal them out.",
    ),
    "SFTC405": (
        "settings of a mixture of experts that do not fit",
        "Expert settings need `model.num_experts`, and every expert-parallel rank holds the same number of experts.",
    ),
    "SFTC406": (
        "sequences longer than the model's positions",
        "Beyond `model.max_position_embeddings` the model has no trained positions.",
    ),
    "SFTC407": (
        "layers that torch-native attention and norms do not have",
        "Sliding windows, attention sinks and norms around zero are computed by Transformer Engine only.",
    ),
    "SFTC408": (
        "sizes of the model from two places",
        "`model.preset` and `model.hf` exclude each other, and a line of the recipe that contradicts the config.json "
        "of `model.hf` is a slip in one of the two. Over a preset the recipe wins.",
    ),
    "SFTC409": (
        "a config.json that no recipe can say",
        "Other families, quantized weights and features that Megatron lacks would silently be another model.",
    ),
    "SFTC410": (
        "a pattern of layers that does not fit",
        "`moe_layer_freq` and `window_attn_skip_freq` take a number, or one 0 or 1 for each layer of the model.",
    ),
    "SFTC411": (
        "a world size that the layout does not divide",
        "Data parallelism is the world size divided by TP * PP * CP; it must be a whole number.",
    ),
    "SFTC412": (
        "sequence parallelism that cannot work",
        "It splits the sequence over the tensor-parallel ranks, so it needs more than one of them, and equal parts.",
    ),
    "SFTC413": (
        "a sequence that context parallelism cannot split",
        "Each context-parallel rank holds one slice from the front and one from the back: 2 * CP slices in all.",
    ),
    "SFTC414": (
        "virtual stages that do not fit the pipeline",
        "Interleaving needs at least two pipeline ranks, and hands micro-batches to them in groups of that many.",
    ),
    "SFTC415": (
        "a distributed optimizer or an overlap without what it needs",
        "Only the states of Adam are split over the ranks. "
        "Only the distributed optimizer gathers parameters, and hiding that needs the gradient reduction hidden too.",
    ),
    "SFTC416": (
        "a mean of micro-batches over split sequences",
        "The ranks of a context-parallel group hold unequal shares of the supervised tokens: averaging their means "
        "would weigh tokens by where in the sequence they stand. Only the sum over all tokens, divided once, does not.",
    ),
    "SFTC421": (
        "a global batch that the ranks do not divide",
        "Every data-parallel rank runs the same number of micro-batches in each iteration.",
    ),
    "SFTC422": (
        "a warm-up longer than the run or its schedule",
        "The learning rate would never reach its peak; Megatron refuses to start only in the second case.",
    ),
    "SFTC423": (
        "a schedule that ends before the run or after it",
        "After `lr_decay_iters` the learning rate stays at `min_lr`; a run that ends earlier never comes down to it.",
    ),
    "SFTC424": ("a final learning rate above the peak", "The schedule decays from `lr` to `min_lr`."),
    "SFTC425": (
        "recomputation that is half described",
        "`recompute_granularity: full` needs a method and a number of layers; the other settings read neither.",
    ),
    "SFTC426": (
        "a run whose length is said twice, or not at all",
        "A run has a number of iterations, or a number of epochs from which it follows; its warm-up is a number of "
        "iterations or a share of the schedule.",
    ),
    "SFTC427": (
        "a loss that is computed in two ways",
        "`train.fused_linear_cross_entropy` computes losses without the logits of all tokens, which the other option "
        "changes or keeps.",
    ),
    "SFTC428": (
        "a fused step where torch's AdamW takes none",
        "`train.fused_adam` is about the AdamW of torch. Transformer Engine's is fused without it; other optimizers, "
        "and those that split their work in ways of their own, do not read it.",
    ),
    "SFTC429": (
        "layers that are not compiled",
        "`train.torch_compile` hands a torch-native layer to torch's compiler as one piece. Transformer Engine has "
        "kernels of its own, and what talks to other ranks, chooses experts or is recorded in the midst of a layer "
        "cuts it.",
    ),
    "SFTC431": (
        "rows that do not suit the task",
        "Supervised fine-tuning reads conversations, pretraining reads text; a column is read only by its own format.",
    ),
    "SFTC432": (
        "an evaluation without rows, or rows without an evaluation",
        "Validation rows (`data.valid_data_path` or `data.valid_fraction`) and `eval.eval_interval` come together.",
    ),
    "SFTC433": (
        "an evaluation interval longer than the run",
        "The only evaluation is the one after the last iteration.",
    ),
    "SFTC434": ("an evaluation on the training rows", "A loss on rows that were trained on says nothing about others."),
    "SFTC436": (
        "packs in a micro-batch of several",
        "A pack is a sequence of its own, in which Megatron knows where each row ends (`packed_seq_params`); in this "
        "form it takes no second sequence beside it. The global batch is reached with more micro-batches.",
    ),
    "SFTC437": (
        "rows that are named twice, or not at all",
        "Training rows come from one path or from a list of sources; validation rows from a path, or from a share of "
        "the training rows.",
    ),
    "SFTC438": (
        "sources of which only some have a weight",
        "A weight is a share of the samples beside the shares of the others.",
    ),
    "SFTC439": (
        "padding that packs do not have, or that shared experts do not bear",
        "A pack is as long as any other. Ranks that share experts exchange their tokens in equal numbers.",
    ),
    "SFTC441": (
        "first weights left open",
        "Random weights are right for a test and wrong for fine-tuning; a recipe says which it wants.",
    ),
    "SFTC442": (
        "a start policy that does not apply",
        "`checkpoint.finetune` and the `no_load` keys are about the start from `model.load`. A resume loads all.",
    ),
    "SFTC443": (
        "a save interval longer than the run",
        "The only checkpoint is the one after the last iteration; a run that dies earlier starts again.",
    ),
    "SFTC444": (
        "Hugging Face weights that no run can start from",
        "`model.load: hf:DIR` takes the weights in DIR as a new run's first ones. A model's files hold nothing else.",
    ),
    "SFTC445": (
        "a LoRA target that the model does not have",
        "`lora.targets` are Megatron's names of linears: the last part, or a pattern for the whole name. In Megatron "
        "queries, keys and values are one linear, as are gate and up.",
    ),
    "SFTC446": (
        "a rank that is larger than a matrix",
        "An adapter is two matrices with `lora.rank` between them. From the smaller side of the matrix on, they say "
        "as much as the matrix itself.",
    ),
    "SFTC447": (
        "a setting that adapters do not go with",
        "Adapters learn beside weights that are loaded and stay as they are, and Megatron has to run the linears that "
        "they hang on.",
    ),
    "SFTC451": (
        "Slurm keys without Slurm",
        "Directives are rendered into launch.sbatch, which exists with `launch.launcher: slurm`.",
    ),
    "SFTC452": ("a setting that needs a GPU", "The CPU device knows bf16 and fp32, and torch-native layers."),
    "SFTC453": (
        "a secret in a recipe",
        "The build dir is reviewed and committed; values of `launch.environment` stand in it in clear.",
    ),
    "SFTC454": (
        "a path that starts with a tilde",
        "A home directory differs from person to person and from node to node, so no part of sftc expands `~`.",
    ),
    "SFTC455": (
        "a value that a generated file cannot hold",
        "megatron.args is read line by line, sbatch knows no escape for a double quote, and pyxis none for a comma, a "
        "colon or a blank in a path.",
    ),
    "SFTC456": (
        "a variable that is not the recipe's to set",
        "bash, torchrun or who starts launch.sh sets it; from the recipe it would fail or be without effect.",
    ),
    "SFTC457": (
        "a restart in the same processes that cannot be had",
        "What writes checkpoints beside the training would go on while the ranks begin again.",
    ),
    "SFTC461": (
        "a compile-time file that cannot be read",
        "Files that a recipe names for the compiler are relative to the recipe, and are copied into the build dir.",
    ),
    "SFTC462": (
        "a hook file that cannot be used",
        "It is copied into the build dir and loaded from there, so it has to be Python, and to stand alone.",
    ),
    "SFTC463": (
        "a hook that cannot be called",
        "The function has to be in the file, and to take the values that it is called with; see docs/hooks.md.",
    ),
    "SFTC464": (
        "a hook that leaves something open",
        "A hook that brings the samples decides what sftc would otherwise find out from the rows.",
    ),
    "SFTC471": (
        "an array of jobs that is no chain",
        "All tasks of an array share one save directory, so they may only run one after the other.",
    ),
    "SFTC472": (
        "groups of nodes that do not add up",
        "The groups of a heterogeneous job are all the nodes that the run has.",
    ),
    "SFTC473": (
        "a time limit that leaves no time to save",
        "Slurm asks for a checkpoint `launch.slurm.signal_seconds` before the time limit, and the ranks may take "
        "`launch.stop_seconds` for it.",
    ),
    "SFTC474": (
        "a Slurm key without effect",
        "No GPU is asked for on the CPU device, or where `launch.slurm.gpu_option` is none.",
    ),
    "SFTC475": (
        "an image that may be another one tomorrow",
        "A tag is moved to a new image whenever somebody likes; a digest is the image itself. An image file is held to "
        "the digest of `launch.container.image_sha256`, which launch.sh verifies.",
    ),
    "SFTC476": (
        "pyxis without Slurm",
        "pyxis adds options to srun, which only launch.sbatch calls.",
    ),
    "SFTC477": (
        "a mount in the way of another",
        "What the plan reads and writes is mounted under its own path, read-only or not as it has to be. Another mount "
        "at that place would hide it.",
    ),
    "SFTC478": (
        "something that the container's engine cannot do",
        "docker and podman take images in registries and decide about GPUs when they start; apptainer and singularity "
        "take files, and names with `docker://` before them.",
    ),
    "SFTC481": (
        "a run that does not fit its device",
        "By the formulas of docs/estimate.md the fullest rank holds more than the device that `launch.hardware` names "
        "has. It is an estimate, so it is a warning; the help names changes that were estimated to fit.",
    ),
    "SFTC485": (
        "answers with nothing to compare them with",
        "The model is asked what the validation rows ask, and its answers are compared with theirs. Which tokens are "
        "the answer is read off the loss mask.",
    ),
    "SFTC486": (
        "a setting about answers that has no effect",
        "Nothing reads it as the other keys stand. An unread key is a setting that its author believes in.",
    ),
    "SFTC487": (
        "an answer pattern that finds no answer",
        "`eval.generate.answer_pattern` is a regular expression as Python's `re` reads it. What its group finds, or "
        "all of it where it has none, is the answer that is compared.",
    ),
    "SFTC488": (
        "answers that leave no room for a question",
        "Question and answer together have at most `model.max_position_embeddings` tokens.",
    ),
    "SFTC491": (
        "a lock that cannot be used",
        "The `.lock` file beside a recipe is written by `sftc lock` and by nothing else. Write it again, or remove it "
        "to go on without one.",
    ),
    "SFTC492": (
        "a lock of other inputs",
        "The lock holds digests of other paths than the recipe names, so it would say nothing about what the run "
        "reads. Write it again with `sftc lock`, and review what has changed.",
    ),
    # 5xx: Megatron options
    "SFTC501": (
        "an option that the target does not have",
        "Options come and go between Megatron versions; the option table of the target is the reference.",
    ),
    "SFTC502": (
        "an option that sftc answers for",
        "Set through `megatron.args` it would contradict the plan. Use the recipe key named in the help.",
    ),
    "SFTC503": (
        "a value that an option does not take",
        "Type, number of values and choices are those of Megatron's own parser.",
    ),
    # 6xx: build dir
    "SFTC601": (
        "a file that sftc did not write",
        "What sftc did not write is never overwritten, not even with --force. Move it away, or use another directory.",
    ),
    "SFTC602": (
        "an edited artifact",
        "The file is not what was compiled. Put the change into the recipe; --force overwrites the edit.",
    ),
    "SFTC603": ("a build dir that cannot be written", "The path, the permissions or the disk do not allow it."),
    # 7xx: imports
    "SFTC701": (
        "a variable of a source",
        "An import looks at no environment: what a variable holds is said with `--env NAME=VALUE`, or by its default.",
    ),
    "SFTC702": (
        "a source that sftc cannot train",
        "A recipe is one supervised fine-tuning or pretraining run, of all weights or of LoRA adapters, on Megatron.",
    ),
    "SFTC703": (
        "a source that does not say whether it is SFT",
        "The flag is never inferred: not from a learning rate, a script's name or a data path. "
        "Say `--task sft` or `--task pretrain`.",
    ),
    "SFTC704": (
        "statements about the task that contradict each other",
        "One says supervised fine-tuning and the other pretraining; an import does not choose.",
    ),
    "SFTC705": (
        "two settings of the source for one key of the recipe",
        "They give it different values, and an import does not choose.",
    ),
    "SFTC706": (
        "a file of the source that is missing",
        "What a preset or a file named by `extends` would say is unknown, and not in the recipe.",
    ),
    "SFTC707": (
        "a setting in a place where the other tool does not read it",
        "It has no effect there, and its author believes in it. It is pointed out, and not taken over.",
    ),
    "SFTC708": (
        "a part of a script that is not understood",
        "An import runs nothing. What a command substitution, a condition or a loop would give is said with "
        "`--env NAME=VALUE`.",
    ),
    "SFTC709": (
        "a command line that is missing, or given twice",
        "A recipe is one run: one command that starts Megatron, or one list of its options.",
    ),
    "SFTC710": (
        "values that a source does not hold",
        "Rows, a tokenizer, the first weights and the number of GPUs are said in other places there, or in none. "
        "Give them to the import with `--set KEY=VALUE`, or fill in the draft.",
    ),
}

CODES: dict[str, Code] = {code: Code(title=title, explanation=text) for code, (title, text) in _ROWS.items()}
