"""Rows that are tokens already: Megatron's indexed files, with a mask of the same shape beside them.

`PREFIX.bin` and `PREFIX.idx` hold the tokens, and a row is a document. The mask, for a task that has one, is in
`PREFIX.mask.bin` and `PREFIX.mask.idx`, or, where PREFIX ends in `.tokens`, as in the store of sftc, in the files that
end in `.mask` instead.
"""

import hashlib
import json
from collections.abc import Callable, Iterator

import numpy as np

from ..digests import known_sha256
from ..errors import UserError
from .fit import Sample, fit
from .indexed import IndexedReader
from .prefixes import files_of, mask_of, prefix_of
from .rows import RowError
from .settings import DataSettings, Source
from .tally import Tally

WAY = "given"


def require(source: Source, is_pretrain: bool) -> None:
    """UserError if the files are not there, or damaged, or if a mask is needed and missing."""
    _open(source, is_pretrain)


def digest(source: Source, is_pretrain: bool) -> str:
    """The sha256, in hexadecimal, of all files that are read."""
    tokens, mask = _open(source, is_pretrain)
    found = []
    for reader in (tokens, mask) if mask is not None else (tokens,):
        found += [known_sha256(file) for file in files_of(reader.prefix)]
    return hashlib.sha256(json.dumps(["indexed", *found]).encode()).hexdigest()


def size(source: Source) -> int:
    """Bytes of the tokens."""
    prefix = prefix_of(source.path)
    return 0 if prefix is None else prefix.with_name(prefix.name + ".bin").stat().st_size


def read(
    source: Source, settings: DataSettings, vocab_size: int, tally: Tally, advance: Callable[[int, int], None]
) -> Iterator[Sample]:
    """Every usable document, in order, as `SampleReader.read` gives rows; its line is its number, from 1."""
    tokens, mask = _open(source, settings.is_pretrain)
    for number in range(tokens.documents):
        tally.rows += 1
        ids = tokens.document(number).astype(np.int32)
        on = np.ones(len(ids), np.uint8) if mask is None else mask.document(number)
        try:
            if len(ids) and not 0 <= ids.min() <= ids.max() < vocab_size:
                raise RowError(
                    "foreign-token", f"token {ids.max():,} is not one of the {vocab_size:,} of the tokenizer"
                )
            if len(on) != len(ids) or (len(on) and not 0 <= on.min() <= on.max() <= 1):
                raise RowError(
                    "bad-mask", f"the mask of {len(ids):,} tokens has {len(on):,} numbers, not all of them 0 or 1"
                )
            content = hashlib.blake2b(ids.tobytes(), digest_size=8)
            content.update(on.astype(np.uint8).tobytes())
            sample = Sample(
                ids=ids,
                mask=on.astype(np.uint8),
                content=int.from_bytes(content.digest(), "little"),
                file=tokens.prefix,
                line=number + 1,
                way=WAY,
            )
            kept = fit(sample, tally, settings.seq_length, settings.on_overlong)
        except RowError as error:
            tally.bad.add(number + 1, error, str(tokens.prefix))
            continue
        if kept is not None:
            yield kept
        if number % 1000 == 0:
            advance(tokens.end_of(number), tally.rows)
    advance(size(source), tally.rows)


def _open(source: Source, is_pretrain: bool) -> tuple[IndexedReader, IndexedReader | None]:
    prefix = prefix_of(source.path)
    if prefix is None:
        raise UserError(
            f"`{source.key}`: there are no files `{source.path}.bin` and `{source.path}.idx`",
            "`data.format: tokens` reads Megatron's indexed files; name them by what stands before the `.bin`",
        )
    try:
        tokens = IndexedReader(prefix)
        if is_pretrain:
            return tokens, None
        beside = mask_of(prefix)
        if not beside.with_name(beside.name + ".idx").is_file():
            raise UserError(
                f"`{source.key}`: `{prefix}` has tokens, and nothing says which of them are trained on: there is no "
                f"`{beside}.idx`",
                f"write a mask of 0 and 1, of the same shape, to `{beside}.bin` and `{beside}.idx`",
            )
        mask = IndexedReader(beside)
        if mask.documents != tokens.documents:
            raise UserError(
                f"`{source.key}`: `{prefix}` has {tokens.documents:,} documents, `{beside}` has {mask.documents:,}",
                "make both from the same rows",
            )
    except (ValueError, OSError) as error:
        raise UserError(f"`{source.key}`: {error}", "copy the files again") from None
    return tokens, mask
