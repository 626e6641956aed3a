"""Makes schema/megatron/<line>.json of every target from the newest wheel of its line.

    python tests/assets/make_option_tables.py        or: make option-tables

Each wheel is installed into a folder that is thrown away, and its own parser is asked (`sftc.runtime.options`).
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from megatron_wheel import install, seeing

SCHEMA = Path(__file__).resolve().parents[2] / "schema"


def main() -> None:
    recipe = json.loads((SCHEMA / "recipe.schema.json").read_text(encoding="utf-8"))
    for line in recipe["properties"]["megatron"]["properties"]["target"]["enum"]:
        with TemporaryDirectory() as folder:
            install(f"{line}.*", Path(folder))
            command = [sys.executable, "-m", "sftc.runtime.options"]
            table = subprocess.run(command, env=seeing(Path(folder)), check=True, stdout=subprocess.PIPE).stdout
        (SCHEMA / "megatron" / f"{line}.json").write_bytes(table)
        print(f"schema/megatron/{line}.json: megatron-core {json.loads(table)['megatron_core']}")


if __name__ == "__main__":
    main()
