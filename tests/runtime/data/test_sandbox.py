"""Templates that loop, grow or reach for what is not theirs: each ends soon, with an error that names the template."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sftc.runtime.data import sandbox
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.template import ChatTemplate, TemplateText
from sftc.runtime.errors import UserError

MESSAGES = [{"role": "user", "content": "x"}]
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GROW = "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set n.s = GROWN %}{% endfor %}{{ n.s }}"


def render(text: str) -> str:
    return ChatTemplate(TemplateText(source="hostile.jinja", default=text), {}).render(MESSAGES)


def outcome(text: str) -> str:
    """What a render gives or says."""
    try:
        return render(text)
    except UserError as error:
        return error.message


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.2)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "text",
    [
        LOOPS,
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
        "{% for a in range(99999) %}{% set x = range(99999) | list | sort | string %}{% endfor %}",
    ],
    ids=["nested loops", "macro", "filters"],
)
def test_time_is_limited(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"`hostile\.jinja` loops: it has not ended after 0\.2 seconds"):
        render(text)
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("hurry")
def test_time_is_limited_in_threads_and_processes() -> None:
    with ThreadPoolExecutor(1) as threads:
        assert "loops" in threads.submit(outcome, LOOPS).result(60)
    code = (
        "from concurrent.futures import ProcessPoolExecutor as Pool\n"
        "from sftc.runtime.data import sandbox\n"
        "from sftc.runtime.data.template import ChatTemplate, TemplateText\n"
        "def outcome(text):\n"
        "    sandbox.SECONDS = 0.2\n"
        "    try:\n"
        "        return ChatTemplate(TemplateText(source='hostile.jinja', default=text), {}).render([])\n"
        "    except Exception as error:\n"
        "        return str(error)\n"
        f"print(Pool(1).submit(outcome, {LOOPS!r}).result())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "`hostile.jinja` loops" in done.stdout


@pytest.mark.usefixtures("hurry")
def test_time_is_counted_anew_for_each_render() -> None:
    template = ChatTemplate(TemplateText(source="t", default="{% for i in range(20000) %}{% endfor %}ok"), {})
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert template.render(MESSAGES) == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10**10 }}",
        "{{ 10**10 * 'a' }}",
        "{{ ([0] * 10**9) | length }}",
        GROW.replace("GROWN", "n.s ~ n.s"),
        GROW.replace("GROWN", "n.s + n.s"),
        GROW.replace("GROWN", "n.s.replace('a', n.s)"),
        GROW.replace("GROWN", "n.s | replace('a', n.s)"),
        GROW.replace("GROWN", "n.s.join([n.s] * 9)"),
        GROW.replace("GROWN", "[n.s] * 9 | join(n.s)"),
        GROW.replace("GROWN", "([n.s] * 9) | join(n.s)"),
        GROW.replace("'aaaaaaaa'", "[1]").replace("GROWN", "n.s + n.s"),
        "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
        "{% set x %}{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}{% endset %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{% set t = s ~ i %}{% endfor %}",
        "{{ 'a'.center(10**9) }}{{ 'a'.ljust(10**9) }}",
        "{{ '0'.zfill(10**9) }}",
        "{{ 'a' | center(10**9) }}",
        "{{ 'a\nb' | indent(10**9) }}",
        "{{ ('a\n' * 9000000) | indent('b' * 9000) }}",
        "{{ ('a ' * 9000000) | wordwrap(1, wrapstring='b' * 9000) }}",
        "{{ [1] | tojson(indent=10**9) }}",
        "{{ [1] | batch(10**9, 0) | list }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ ('\t' * 9000000).expandtabs(9000) }}",
        "{{ ('a' * 9000000).translate({97: 'b' * 9000}) }}",
        "{{ ([[1] * 1000] * 99999) | sum(start=[]) | length }}",
        "{{ 2 ** 1000000000 }}",
        "{{ range(10**9) | list }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_size_is_limited(text: str) -> None:
    with pytest.raises(RowError, match=r"`hostile\.jinja` says: ") as refusal:
        render(text)
    assert refusal.value.code == "template-failed"
    assert "MemoryError" not in refusal.value.message


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ namespace(__class__=1) }}",
        "{% set n = namespace() %}{% set n._x = 1 %}",
        "{% include '/etc/passwd' %}",
        "{{ '{0.__class__}'.format('') }}{{ 1 / 0 }}",
    ],
)
def test_nothing_outside_is_reached(text: str) -> None:
    with pytest.raises(RowError, match=r"`hostile\.jinja` says: "):
        render(text)


@pytest.mark.parametrize(
    "text", ["{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "{% for x in y %}" * 25 + "{% endfor %}" * 25]
)
def test_nesting_too_deep_to_compile(text: str) -> None:
    with pytest.raises(UserError, match=r"`hostile\.jinja` cannot be compiled"):
        render(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{ 'a' ~ 1 ~ none ~ 'b' }}", "a1Noneb"),
        ("{{ 'a' + 'b' }}{{ [1] + [2] }}{{ 1 + 2 }}{{ 'ab' * 2 }}{{ 2 ** 3 }}{{ 7 % 4 }}", "ab[1, 2]3abab83"),
        ("{{ '%s is %d of 12345' % ('a', 2) }}{{ '%.2f' | format(1.234) }}", "a is 2 of 123451.23"),
        ("{{ '{} {{}} {:>3} 12345'.format('a', 1) }}", "a {}   1 12345"),
        ("{{ 'a-b' | replace('-', '+') }}{{ 'a-b'.replace('-', '') }}", "a+bab"),
        ("{{ [1, 2] | join(', ') }}{{ ', '.join(['a', 'b']) }}{{ range(4) | sum }}", "1, 2a, b6"),
        ("{{ messages | map(attribute='role') | join('/') }}{{ [{'n': 2}] | sum(attribute='n') }}", "user2"),
        ("{{ 'a\nb' | indent(2) }}|{{ 'x' | center(5) }}|{{ [1] | tojson(indent=1) }}", "a\n  b|  x  |[\n 1\n]"),
        ("{% for i in range(3) recursive %}{{ loop.index }}{{ loop.last }}{% else %}none{% endfor %}", None),
        ("{% set n = namespace(a=1, self=2) %}{% set n.a = n.a + 1 %}{{ n.a }}{{ n.self }}{{ dict(a=1).a }}", "221"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ x is string }}", "a1True"),
    ],
)
def test_ordinary_templates_are_as_ever(text: str, wanted: str | None) -> None:
    assert render(text) == (wanted or "1False2False3True")
