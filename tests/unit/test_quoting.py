"""Whatever a value holds, it arrives as the one word that it is; and no template can forget to quote."""

import ast
import json
import shlex
import subprocess

import jinja2
import pytest
from jinja2 import nodes

from sftc.compiler.quoting import QuotingError, argument, note, py, sbatch, sh
from sftc.compiler.render import environment, template_text

HOSTILE = [
    "",
    " ",
    "a b",
    "$(touch pwned)",
    "`id`",
    "; rm -rf x",
    "it's",
    '"',
    "*",
    "~",
    "-x",
    "--load",
    "#",
    "a # b",
    "\\",
    "é",
    "$HOME",
    "!x",
]
TEMPLATES = [
    "launch.sh",
    "launch.sbatch",
    "forward_step.py",
    "megatron.args",
    "preview.html",
    "recipe.yaml",
    "report.html",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_bash_sees_the_value(value: str) -> None:
    shown = subprocess.run(["bash", "-c", f"printf %s {sh(value)}"], capture_output=True, text=True, check=True)
    assert shown.stdout == value


@pytest.mark.parametrize("value", [*HOSTILE, "line\nbreak", 0.1, 1e-05, True, None, 7])
def test_python_sees_the_value(value: object) -> None:
    assert ast.literal_eval(py(value)) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("value", HOSTILE)
def test_an_argument_line_reads_back(value: str) -> None:
    words = shlex.split(f"{argument('--save', (value,))}  # checkpoint.save", comments=True)
    assert words in (["--save", value], [f"--save={value}"])
    # argparse would take a lone value with a dash in front for an option.
    assert len(words) == 1 or not value.startswith("-")


def test_directives_are_quoted_or_refused() -> None:
    assert sbatch("2-00:00:00") == "2-00:00:00"
    assert sbatch("team a") == '"team a"'
    for value in ('say "so"', "two\nlines"):
        with pytest.raises(QuotingError):
            sbatch(value)


def test_a_comment_cannot_end_its_line() -> None:
    with pytest.raises(QuotingError):
        note("harmless\nrm -rf x")


@pytest.mark.parametrize(
    "expression",
    [
        "value",
        "'literal'",
        "value|sh ~ 'x'",
        "value|sh|upper",
        "(value|sh) + 'x'",
        "7",
        "value|py",
        "undefined|sh",
        "value|default('x')|py",
    ],
)
def test_an_unquoted_expression_does_not_render(expression: str) -> None:
    template = environment("launch.sh").from_string("run {{ " + expression + " }}")
    with pytest.raises((TypeError, jinja2.UndefinedError)):
        template.render(value="x")


@pytest.mark.parametrize(
    "expression", ["value", "'<b>'", "value|sh", "value|html ~ '<b>'", "value|safe", "value|html|upper"]
)
def test_a_page_takes_escaped_text_only(expression: str) -> None:
    with pytest.raises(TypeError):
        environment("preview.html").from_string("<p>{{ " + expression + " }}</p>").render(value="<i>")


def test_markup_in_a_page_is_text() -> None:
    template = environment("preview.html").from_string('<p title="{{ value|html }}">{{ value|html }}</p>')
    shown = template.render(value="<script>\"'&")
    assert shown == '<p title="&lt;script&gt;&quot;&#x27;&amp;">&lt;script&gt;&quot;&#x27;&amp;</p>'


def test_a_quoted_expression_renders() -> None:
    assert environment("launch.sh").from_string("run {{ value|sh }}").render(value="a b") == "run 'a b'"


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_hold_no_logic(name: str) -> None:
    """No arithmetic, no concatenation, no calls, no assignments, no filters but the quoting ones."""
    tree = environment(name).parse(template_text(name))
    forbidden = (nodes.BinExpr, nodes.Concat, nodes.Call, nodes.Assign, nodes.Macro, nodes.Include, nodes.CondExpr)
    assert not [
        node for kind in forbidden for node in tree.find_all(kind) if not isinstance(node, (nodes.And, nodes.Or))
    ]
    assert {node.name for node in tree.find_all(nodes.Filter)} <= {
        "sh",
        "words",
        "sbatch",
        "py",
        "note",
        "html",
        "yaml",
    }


def test_every_template_file_is_known() -> None:
    from importlib.resources import files

    on_disk = {path.name for path in files("sftc.templates").iterdir() if path.name.endswith(".j2")}
    assert on_disk == {f"{name}.j2" for name in TEMPLATES}


def test_json_reads_back_whatever_the_layout() -> None:
    from sftc.compiler.render import to_json

    document = {
        "long": ["x" * 60] * 5,
        "short": {"a": [1, 2.5, None, True]},
        "nested": {"é": [{"k": "v" * 150}]},
        "empty": [{}, []],
    }
    text = to_json(document).decode()
    assert json.loads(text) == document
    assert '"short": {"a": [1, 2.5, null, true]}' in text
