"""`sftc eval`: its options; what it does is the runtime's."""

import json
import sys
from pathlib import Path

import click

from ..reach import MissingExtra, reach
from .shared import ERRORS, RECIPE, answer, not_empty


@click.command("eval")
@click.argument("run", type=RECIPE)
@click.option("--data", type=RECIPE, help="Rows in the place of the run's validation rows, prepared as those were.")
@click.option(
    "--iteration", type=click.IntRange(min=0), help="Of which checkpoint; the newest. 0: before the training."
)
@click.option("--samples", type=click.IntRange(min=1), help="Rows, taken evenly from all of them; all.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Of an answer; eval.generate's, or 256.")
@click.option("--answer-pattern", help="Regular expression of what is compared; eval.generate's, or the whole text.")
@click.option("-o", "--output", type=click.Path(), callback=not_empty, metavar="DIR", help="RUN/eval/iteration-N")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", help="What is printed.")
def evaluate(
    run: Path,
    data: Path | None,
    iteration: int | None,
    samples: int | None,
    max_new_tokens: int | None,
    answer_pattern: str | None,
    output: Path | None,
    style: str,
) -> None:
    """Let a checkpoint of the run directory RUN answer, and compare its answers with the references.

    Starts as many processes here as one copy of the model needs.

    \b
    Examples:
      sftc eval runs/quickstart
      sftc eval runs/quickstart --iteration 0
      sftc eval runs/gsm8k --data test.jsonl --samples 200 --answer-pattern '#### (-?[\\d.,]+)'
    """
    try:
        commands = reach("eval")
    except MissingExtra as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(ERRORS)
    asked = commands.Asked(
        run_path=run,
        iteration=iteration,
        data=data,
        samples=samples,
        max_new_tokens=max_new_tokens,
        answer_pattern=answer_pattern,
        output=output,
    )
    result = answer(commands.evaluate(asked))
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n" if style == "json" else commands.table(result)
    click.echo(text, nl=False)
