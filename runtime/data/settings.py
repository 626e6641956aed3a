"""What preparation needs to know, taken from the plan."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from .rows import column

type Format = Literal["auto", "messages", "prompt_completion", "sharegpt", "alpaca", "text", "tokens"]
type LossOn = Literal["assistant", "last_turn", "all"]
type OnOverlong = Literal["error", "drop", "truncate_left", "truncate_right"]
type OnBadRow = Literal["error", "skip"]
type OnSharedRows = Literal["error", "drop", "keep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The keys of a row that hold what is trained on; only those that the format reads matter.

    `system` None means no column for `prompt_completion` and the column `system` for `sharegpt` and `alpaca`.
    """

    messages: str = "messages"
    prompt: str = "prompt"
    completion: str = "completion"
    conversations: str = "conversations"
    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    history: str = "history"
    system: str | None = None
    text: str = "text"

    def used_by(self, format: Format) -> dict[str, str | None]:
        """The columns that rows of `format` are read from, by role."""
        match format:
            case "messages":
                return {"messages": self.messages}
            case "prompt_completion":
                return {"prompt": self.prompt, "completion": self.completion, "system": self.system}
            case "sharegpt":
                return {"conversations": self.conversations, "system": self._named("system")}
            case "alpaca":
                names = ("instruction", "input", "output", "history", "system")
                return {name: self._named(name) for name in names}
            case "text":
                return {"text": self.text}
            case "tokens" | "auto":
                return {}

    def optional(self, row: dict[str, Any], name: str, types: type | tuple[type, ...], wanted: str) -> Any:
        """The value of the column called `name` here; None if a row lacks it under its usual name.

        RowError if it has another type, or if the recipe gives the column a name of its own that the row lacks.
        """
        called = self._named(name)
        return None if called == name and name not in row else column(row, called, types, wanted)

    def _named(self, name: str) -> str:
        called: str | None = getattr(self, name)
        return name if called is None else called


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows of one kind: where they are, the recipe key that says so, and how they are read.

    `path` is a file, a directory, a prefix of Megatron's indexed files, or the address of a dataset on a hub.
    """

    path: str
    key: str
    format: Format
    columns: Columns
    weight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Paths are relative to the process's directory, or absolute. `seq_length` counts positions, so that a sample may
    have one token more: it is input without its last token and label without its first.

    `sources`, where there are some, take the place of `train_data_path`.
    """

    train_data_path: Path | str | None = None
    sources: tuple[Source, ...] = ()
    valid_data_path: Path | str | None = None
    valid_fraction: float | None = None
    is_pretrain: bool = False
    format: Format = "messages"
    columns: Columns = Columns()
    loss_on: LossOn = "assistant"
    loss_on_reasoning: bool = True
    on_overlong: OnOverlong = "error"
    on_bad_row: OnBadRow = "error"
    on_shared_rows: OnSharedRows = "error"
    store_path: Path = Path(".sftc/store")
    tokenizer_path: Path
    chat_template_path: Path | None = None
    seq_length: int
    vocab_size: int
    # What a document is padded to in a pack; None: each sample is one row.
    packing_multiple: int | None = None

    @property
    def is_blend(self) -> bool:
        """Whether the sources have weights, so that samples of one stay apart from those of another."""
        return any(source.weight is not None for source in self.sources)

    def splits(self) -> dict[str, tuple[Source, ...]]:
        """What is read, by split."""
        paths = {"train": self.train_data_path, "valid": self.valid_data_path}
        splits: dict[str, tuple[Source, ...]] = {
            split: (Source(path=str(path), key=f"data.{split}_data_path", format=self.format, columns=self.columns),)
            for split, path in paths.items()
            if path is not None
        }
        return {**splits, "train": self.sources} if self.sources else splits

    @staticmethod
    def from_plan(value: Callable[[str], Any], build_dir: Path) -> "DataSettings":
        """`value` gives the plan's resolved value of a key path such as `data.format`."""
        train, valid = value("data.train_data_path"), value("data.valid_data_path")
        # The compiler copies the file that the recipe names; its name there is fixed, and only then does it count.
        template = build_dir / "chat_template.jinja" if value("tokenizer.chat_template") is not None else None
        columns = {field.name: value(f"data.columns.{field.name}") for field in fields(Columns)}
        return DataSettings(
            train_data_path=None if train is None else train,
            sources=tuple(
                Source(
                    path=source["path"],
                    key=f"data.sources[{number}].path",
                    format=source.get("format") or value("data.format"),
                    columns=Columns(**{**columns, **source.get("columns", {})}),
                    weight=source.get("weight"),
                )
                for number, source in enumerate(value("data.sources") or ())
            ),
            valid_data_path=None if valid is None else valid,
            valid_fraction=value("data.valid_fraction"),
            is_pretrain=value("task.kind") == "pretrain",
            format=value("data.format"),
            columns=Columns(**columns),
            loss_on=value("data.loss_on"),
            loss_on_reasoning=value("data.loss_on_reasoning"),
            on_overlong=value("data.on_overlong"),
            on_bad_row=value("data.on_bad_row"),
            on_shared_rows=value("data.on_shared_rows"),
            store_path=Path(value("data.store_path")),
            tokenizer_path=Path(value("tokenizer.path")),
            chat_template_path=template,
            seq_length=value("train.seq_length"),
            vocab_size=value("model.vocab_size"),
            packing_multiple=_packing_multiple(value),
        )


def _packing_multiple(value: Callable[[str], Any]) -> int | None:
    """Context parallelism cuts every document of a pack into two chunks per rank.

    Sequence parallelism cuts the pack and not its documents, and a pack is as long as any other sample.
    """
    if not value("data.packing"):
        return None
    size: int = value("parallel.context_parallel_size")
    return 2 * size if size > 1 else 1
