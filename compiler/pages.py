"""The page about a code, in Markdown: what `sftc explain`, docs/codes/ and the help of a SARIF rule show."""

from .codes import CODES
from .examples import EXAMPLES


def code_page(code: str) -> str:
    """Title, explanation, and what is wrong and right by example. `code` is a key of `CODES`."""
    entry = CODES[code]
    parts = [f"# {code}: {entry.title}", entry.explanation]
    if example := EXAMPLES.get(code):
        parts += ["Wrong:", _block(example.bad), "Right:", _block(example.good)]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return f"```{'console' if text.startswith('$ ') else 'yaml'}\n{text}```"
