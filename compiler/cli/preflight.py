"""`sftc preflight`: its options; what it finds is the runtime's."""

import sys
from pathlib import Path

import click

from ..reach import reach
from .shared import at_root, colour


@click.command()
@click.argument("build_dir", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def preflight(build_dir: Path, as_json: bool) -> None:
    """Check whether this machine can run BUILD_DIR: versions, GPUs, paths, disk, network; exit 1 if it cannot.

    launch.sh does so by itself. Started on every node, by srun or with MASTER_ADDR set, the nodes check each other too;
    else only this one is checked. Run-time paths are looked up where launch.sh would be started, or in SFTC_ROOT.

    \b
    Examples:
      sftc preflight build/quickstart
      srun -n 2 sftc preflight build/llama --json
    """
    build = build_dir.absolute()
    with at_root():
        sys.exit(reach("preflight").show(build, as_json=as_json, colour=colour(sys.stdout)))
