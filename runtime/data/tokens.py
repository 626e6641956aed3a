"""The tokenizer: files to ids with offsets; the only importer of `tokenizers`."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from ..errors import UserError

# The special tokens that Hugging Face hands to a chat template, by these names.
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """`special_tokens` maps names such as `eos_token` to text; `special` finds every special token in a text, the
    longest where several would fit; `size` is one more than the greatest id.
    """

    path: Path
    config: Mapping[str, Any]
    digests: Mapping[str, str]
    special_tokens: Mapping[str, str]
    special: re.Pattern[str]
    size: int
    pad_id: int
    bos_id: int | None
    eos_id: int | None
    backend: Tokenizer = field(repr=False)

    @staticmethod
    def load(path: Path, vocab_size: int) -> "TextTokenizer":
        """The tokenizer in directory `path`; UserError if files are missing or it has ids beyond `vocab_size`."""
        raw = _read(path, "tokenizer.json")
        raw_config = _read(path, "tokenizer_config.json")
        try:
            backend = Tokenizer.from_str(raw.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"`{path / 'tokenizer.json'}` is no tokenizer: {error}") from None
        try:
            config = json.loads(raw_config)
        except ValueError as error:
            raise UserError(f"`{path / 'tokenizer_config.json'}` is no JSON: {error}") from None
        backend.no_truncation()
        backend.no_padding()
        size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        if size > vocab_size:
            raise UserError(
                f"the tokenizer in `{path}` has ids up to {size - 1:,}, but `model.vocab_size` is {vocab_size:,}",
                f"set `model.vocab_size` to {size:,} or more (see also `make_vocab_size_divisible_by`)",
            )
        named = {name: text for name in NAMES if (text := _text_of(config.get(name))) is not None}
        special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        # A begin or end token counts even where the file forgets to flag it; a padding or unknown one need not.
        special |= {
            named[name] for name in ("bos_token", "eos_token") if backend.token_to_id(named.get(name, "")) is not None
        }
        ids = {name: backend.token_to_id(text) for name, text in named.items()}
        # Padding is masked by its place, so any id does; the one that people expect to see is taken where there is one.
        pad_id = next((number for name in ("pad_token", "eos_token") if (number := ids.get(name)) is not None), 0)
        return TextTokenizer(
            path=path,
            config=config,
            digests={
                "tokenizer.json": hashlib.sha256(raw).hexdigest(),
                "tokenizer_config.json": hashlib.sha256(raw_config).hexdigest(),
            },
            special_tokens=named,
            special=re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)"),
            size=size,
            pad_id=pad_id,
            bos_id=ids.get("bos_token"),
            eos_id=ids.get("eos_token"),
            backend=backend,
        )

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Ids and offsets of each text, nothing added, on all cores and without the interpreter's lock."""
        encodings: list[Encoding] = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return encodings

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=False)
        return text


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        place = "" if path.is_absolute() else f", which is looked for in `{Path.cwd()}`"
        raise UserError(
            f"`tokenizer.path`: `{path / name}` cannot be read{place}: {error.strerror}",
            "name a directory with tokenizer.json and tokenizer_config.json; a relative path is relative to the "
            "directory in which launch.sh is started, or to SFTC_ROOT",
        ) from None


def _text_of(token: Any) -> str | None:
    """Configurations write a token as its text or as an object with `content`."""
    match token:
        case str(text) | {"content": str(text)}:
            return text
        case _:
            return None
