"""README.md of an exported model: what it was trained from, with which recipe, by which build."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..bundle import Bundle


def card(bundle: Bundle, *, iteration: int, dtype: str, adapter: bool = False) -> str:
    """Markdown with the front matter that the hub reads. adapter: it is one of `peft`'s, and no model."""
    load = bundle.value("model.load")
    weights = f"`{load}`" if load else "random"
    description = bundle.plan.get("description") or ""
    library, first = ("peft", "adapter of LoRA, to be loaded beside") if adapter else ("transformers", "first weights:")
    return f"""\
---
library_name: {library}
tags: [sftc, megatron, {bundle.value("task.kind")}]
---

# {bundle.name}

{description}

- iteration {iteration}, weights in {dtype}
- {first} {weights}
- trained on Megatron-Core {bundle.megatron_target}, compiled by sftc {bundle.plan.get("sftc_version", "")}
- manifest of the build (sha256): `{bundle.digest}`

## Recipe

What the recipe states; the plan of the build has every other value, with its origin.

```yaml
{recipe_text(bundle.plan)}```
"""


def recipe_text(plan: Mapping[str, Any]) -> str:
    """The values that the recipe itself states, as YAML."""
    return "".join(f"{line}\n" for line in [f"name: {json.dumps(plan['name'])}", *_stated(plan["values"], "")])


def _stated(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, item in values.items():
        if "origin" not in item:
            if inside := list(_stated(item, indent + "  ")):
                yield f"{indent}{key}:"
                yield from inside
        elif item["origin"]["from"] == "recipe":
            yield f"{indent}{key}: {json.dumps(item['value'], ensure_ascii=False)}"
