"""What preparation needs to know, taken from the plan."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

type Format = Literal["messages", "prompt_completion", "text"]
type LossOn = Literal["assistant", "last_turn", "all"]
type OnOverlong = Literal["error", "drop", "truncate_left", "truncate_right"]
type OnBadRow = Literal["error", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The keys of a row that hold what is trained on; only those that the format reads matter."""

    messages: str = "messages"
    prompt: str = "prompt"
    completion: str = "completion"
    system: str | None = None
    text: str = "text"

    def used_by(self, format: Format) -> dict[str, str | None]:
        """The columns that rows of `format` are read from, by role."""
        match format:
            case "messages":
                return {"messages": self.messages}
            case "prompt_completion":
                return {"prompt": self.prompt, "completion": self.completion, "system": self.system}
            case "text":
                return {"text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Paths are relative to the process's directory, or absolute. `seq_length` counts positions, so that a sample may
    have one token more: it is input without its last token and label without its first.
    """

    train_data_path: Path
    valid_data_path: Path | None = None
    format: Format = "messages"
    columns: Columns = Columns()
    loss_on: LossOn = "assistant"
    on_overlong: OnOverlong = "error"
    on_bad_row: OnBadRow = "error"
    store_path: Path = Path(".sftc/store")
    tokenizer_path: Path
    chat_template_path: Path | None = None
    seq_length: int
    vocab_size: int
    # What a document is padded to in a pack; None: each sample is one row.
    packing_multiple: int | None = None

    @staticmethod
    def from_plan(value: Callable[[str], Any], build_dir: Path) -> "DataSettings":
        """`value` gives the plan's resolved value of a key path such as `data.format`."""
        valid = value("data.valid_data_path")
        system = value("data.columns.system")
        # The compiler copies the file that the recipe names; its name there is fixed, and only then does it count.
        template = build_dir / "chat_template.jinja" if value("tokenizer.chat_template") is not None else None
        return DataSettings(
            train_data_path=Path(value("data.train_data_path")),
            valid_data_path=None if valid is None else Path(valid),
            format=value("data.format"),
            columns=Columns(
                messages=value("data.columns.messages"),
                prompt=value("data.columns.prompt"),
                completion=value("data.columns.completion"),
                system=system,
                text=value("data.columns.text"),
            ),
            loss_on=value("data.loss_on"),
            on_overlong=value("data.on_overlong"),
            on_bad_row=value("data.on_bad_row"),
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
