"""launch.sbatch with pyxis. Slurm is real; pyxis is not: a wrapper of srun writes down its options and drops them."""

import shutil
import stat
from pathlib import Path

from slurm_jobs import compiled, submit

ROOT = Path(__file__).resolve().parents[3]
WRAPPER = """#!/usr/bin/env bash
# A fake of what pyxis adds to srun.
kept=()
for word; do
  case $word in
    --container-* | --no-container-*) printf '%s\\0' "$word" >> "$RECORD" ;;
    *) kept+=("$word") ;;
  esac
done
exec {srun} "${{kept[@]}}"
"""


def test_srun_gets_the_image_the_mounts_and_names(cluster, stand_in, tmp_path) -> None:
    folder = tmp_path / "programs"
    shutil.copytree(stand_in, folder)
    (folder / "srun").write_text(WRAPPER.format(srun=shutil.which("srun")))
    (folder / "srun").chmod(stat.S_IRWXU)
    image = tmp_path / "images/sftc.sqsh"
    image.parent.mkdir()
    image.write_bytes(b"image")
    digest = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"
    changes = {
        "launch__device": "cpu",
        "launch__hardware": "null",
        "launch__nproc_per_node": 1,
        "train__global_batch_size": 2,
        "launch__slurm__partition": "batch",
        "launch__container__image_sha256": digest,
    }
    build = compiled(ROOT / "tests/golden/cases/pyxis.yaml", tmp_path / "build", **changes)
    for name in ("checkpoints/base", "tokenizer", "data"):
        (tmp_path / name).mkdir(parents=True)
    record = tmp_path / "record"
    variables = {"HF_TOKEN": "planted", "RECORD": str(record), "STAND_IN": 'echo "inside: $SFTC_IN_CONTAINER, $PWD"'}
    done = submit(cluster, build, tmp_path, path=str(folder), **variables)
    assert done.ended() == "COMPLETED 0:0 Restarts=0", done.text()
    assert done.text().count(f"inside: 1, {tmp_path}\n") == 2
    options = dict(word.partition("=")[::2] for word in record.read_text().split("\0")[:-1])
    assert options["--container-image"] == str(image)
    assert options["--container-workdir"] == str(tmp_path)
    mounts = options["--container-mounts"].split(",")
    assert mounts == [
        *(f"{path}:{path}:ro" for path in (build, *(tmp_path / name for name in ("tokenizer", "data/train.jsonl")))),
        f"{tmp_path}/checkpoints/base:{tmp_path}/checkpoints/base:ro",
        *(f"{path}:{path}" for path in (tmp_path / "runs/pyxis", tmp_path / ".sftc/store")),
        f"{tmp_path}/tracking:{tmp_path}/tracking",  # MLflow's database
        "/scratch/cache:/cache",
    ]
    assert (tmp_path / ".sftc/store").is_dir()
    assert {"HF_TOKEN", "MASTER_ADDR", "SFTC_IN_CONTAINER"} <= set(options["--container-env"].split(","))
    assert "planted" not in record.read_text()
    image.write_bytes(b"another image")
    refused = submit(cluster, build, tmp_path, path=str(folder), **variables)
    assert refused.ended().startswith("FAILED 1:0")
    assert f"launch.sbatch: {image} is not what launch.container.image_sha256 says" in refused.text()
