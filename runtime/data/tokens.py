"""The tokenizer: files to ids with offsets; the only importer of `tokenizers`."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from ..errors import UserError

# The special tokens that Hugging Face hands to a chat template, by these names.
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Files that are read if they are there, for these keys, where the configuration lacks them.
OLDER_FILES = {"special_tokens_map.json": NAMES, "generation_config.json": ("eos_token_id",)}

FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


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
    special_texts: frozenset[str]
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
        if not isinstance(config, dict):
            raise UserError(f"`{path / 'tokenizer_config.json'}` is no JSON object")
        digests = {"tokenizer.json": _digest(raw), "tokenizer_config.json": _digest(raw_config)}
        # Older tokenizers name their special tokens in a file of their own; the configuration comes first.
        for name, keys in OLDER_FILES.items():
            if (path / name).is_file():
                older = _read(path, name)
                try:
                    values = json.loads(older)
                except ValueError as error:
                    raise UserError(f"`{path / name}` is no JSON: {error}") from None
                if used := {
                    key: values[key] for key in keys if values.get(key) is not None and config.get(key) is None
                }:
                    config |= used
                    digests[name] = _digest(older)
        backend.no_truncation()
        backend.no_padding()
        _add_declared(backend, config)
        size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        if size > vocab_size:
            raise UserError(
                f"the tokenizer in `{path}` has ids up to {size - 1:,}, but `model.vocab_size` is {vocab_size:,}",
                f"set `model.vocab_size` to {size:,} or more (see also `make_vocab_size_divisible_by`)",
            )
        named = {name: text for name in NAMES if (text := _text_of(config.get(name))) is not None}
        if "eos_token" not in named and (text := _eos_of(backend, config.get("eos_token_id"))) is not None:
            named["eos_token"] = text
        # Further variables of templates, such as `image_token`.
        more = config.get("extra_special_tokens")
        named |= {
            name: text
            for name, token in (more.items() if isinstance(more, dict) else ())
            if name not in named and (text := _text_of(token)) is not None
        }
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
            digests=digests,
            special_tokens=named,
            special_texts=frozenset(special),
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


def plain_encoder(tokenizer: TextTokenizer) -> Tokenizer:
    """A second tokenizer of the same vocabulary, to which the text of a special token is text like any other."""
    encoder = Tokenizer.from_str(tokenizer.backend.to_str())
    encoder.encode_special_tokens = True
    return encoder


def _add_declared(backend: Tokenizer, config: Mapping[str, Any]) -> None:
    """Add tokens that only the configuration declares, as Hugging Face does, if the id that it gives fits.

    Some tokenizer files have them as plain entries of the vocabulary, or not at all.
    """
    declared = config.get("added_tokens_decoder")
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for number, spec in sorted(declared.items(), key=lambda item: int(item[0])) if isinstance(declared, dict) else ():
        text = _text_of(spec)
        if text is None or text in known:
            continue
        existing = backend.token_to_id(text)
        following = backend.get_vocab_size(with_added_tokens=True)
        if (following if existing is None else existing) == int(number):
            flags = {key: bool(spec.get(key, False)) for key in FLAGS} if isinstance(spec, dict) else {}
            backend.add_tokens([AddedToken(text, **flags)])


def _eos_of(backend: Tokenizer, ids: Any) -> str | None:
    """The text of the end token that a generation configuration gives by its id, or by several of which the first."""
    first = ids[0] if isinstance(ids, list) and ids else ids
    return backend.id_to_token(first) if isinstance(first, int) and first >= 0 else None


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


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
