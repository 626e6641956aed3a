"""What a lock holds of each kind of input, and that no change of one goes unseen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sftc.compiler.compile import artifacts, check_recipe
from sftc.compiler.plan import Plan
from sftc.compiler.render import to_json
from sftc.compiler.schemas import load_schema
from sftc.runtime import digests
from sftc.runtime.bundle import Bundle, read_bundle
from sftc.runtime.errors import UserError
from sftc.runtime.lock import make
from sftc.runtime.lock.make import make_lock
from sftc.runtime.lock.verify import differences, require_locked

type Compile = Callable[..., Plan]

RECIPE = """\
name: r
task: {is_instruction_dataset: true}
model: {num_layers: 2, hidden_size: 64, ffn_hidden_size: 128, num_attention_heads: 4, vocab_size: 512,
        max_position_embeddings: 128}
train: {train_iters: 10, global_batch_size: 8, seq_length: 64, lr: 1e-3}
launch: {nproc_per_node: 1}
"""
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HUB = "hf://datasets/o/n@0123456789abcdef0123456789abcdef01234567"


def write(path: str, text: str = "") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


@pytest.fixture
def plan_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """The plan of a recipe in the current directory, which has rows, a tokenizer and two kinds of weights."""
    monkeypatch.chdir(tmp_path)
    write("train.jsonl", '{"messages": []}\n')
    write("tokenizer/tokenizer.json", "{}")
    write("tokenizer/tokenizer_config.json", json.dumps({"chat_template": "{{ messages }}"}))
    write("hf/config.json", "{}")
    write("hf/model.safetensors", "weights")
    write("given/latest_checkpointed_iteration.txt", "7")
    for name in ("metadata.json", ".metadata", "common.pt", "__0_0.distcp", "__0_1.distcp"):
        write(f"given/iter_0000007/{name}", name)

    def run(data: str = "{train_data_path: train.jsonl}", model: str = "init: random", tokenizer: str = "") -> Plan:
        text = RECIPE + f"data: {data}\ntokenizer: {{path: tokenizer{tokenizer}}}\n"
        Path("r.yaml").write_text(
            text.replace("max_position_embeddings: 128", f"max_position_embeddings: 128, {model}")
        )
        checked = check_recipe(Path("r.yaml"), "r.yaml", locked=False)
        assert checked.plan is not None, checked.diagnostics
        return checked.plan

    return run


def lock(plan: Plan) -> dict[str, Any]:
    made = make_lock(plan.__getitem__, plan.chat_template)
    Draft202012Validator(load_schema("lock.schema.json")).validate(made)
    # The compiler takes the lock that the runtime makes.
    Path("r.lock").write_bytes(to_json(made))
    assert check_recipe(Path("r.yaml"), "r.yaml").diagnostics == []
    assert differences(made, plan.__getitem__, plan.chat_template) == []
    return made


def names(plan: Plan, key: str) -> list[str]:
    return list(lock(plan)["inputs"][key]["files"])


def changed(plan: Plan, made: dict[str, Any]) -> list[str]:
    return differences(made, plan.__getitem__, plan.chat_template)


def test_rows_of_every_kind(plan_of: Compile) -> None:
    for name in ("rows/b.jsonl", "rows/a.jsonl", "rows/.hidden", "p.bin", "p.idx", "p.mask.bin", "p.mask.idx"):
        write(name)
    write("valid.jsonl", "{}\n")
    sources = f"{{path: rows}}, {{path: p}}, {{path: p.bin, format: tokens}}, {{path: '{HUB}?split=test'}}"
    plan = plan_of(f"{{sources: [{sources}], valid_data_path: valid.jsonl}}\neval: {{eval_interval: 5}}")
    inputs = lock(plan)["inputs"]
    tokens = ["p.idx", "p.bin", "p.mask.idx", "p.mask.bin"]
    assert {key: (one["kind"], list(one["files"])) for key, one in inputs.items()} == {
        "data.sources[0].path": ("rows", ["rows/a.jsonl", "rows/b.jsonl"]),
        "data.sources[1].path": ("tokens", tokens),
        "data.sources[2].path": ("tokens", tokens),
        "data.sources[3].path": ("hub", []),
        "data.valid_data_path": ("rows", ["valid.jsonl"]),
        "tokenizer.path": ("tokenizer", ["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"]),
    }
    assert inputs["data.sources[0].path"]["files"]["rows/a.jsonl"] == {"size": 0, "sha256": EMPTY}


def test_pretraining_reads_no_mask_and_no_template(plan_of: Compile) -> None:
    for name in ("p.bin", "p.idx"):
        write(name)
    plan_of("{train_data_path: p, format: tokens}")
    text = Path("r.yaml").read_text().replace("is_instruction_dataset: true", "kind: pretrain")
    Path("r.yaml").write_text(text)
    plan = check_recipe(Path("r.yaml"), "r.yaml").plan
    assert plan is not None
    made = make_lock(plan.__getitem__, None)
    assert list(made["inputs"]["data.train_data_path"]["files"]) == ["p.idx", "p.bin"]
    assert made["chat_template"] is None


def test_samples_of_a_hook_are_no_rows(plan_of: Compile) -> None:
    plan = plan_of("{}\nhooks: {datasets_provider: package.module:datasets}")
    assert list(lock(plan)["inputs"]) == ["tokenizer.path"]


def test_weights_of_hugging_face(plan_of: Compile) -> None:
    plan = plan_of(model="load: 'hf:hf'")
    assert names(plan, "model.load") == ["hf/config.json", "hf/model.safetensors"]
    made = lock(plan)
    # An index is read before the single file.
    index = {"weight_map": {"x": "model-2.safetensors", "y": "model-1.safetensors"}}
    write("hf/model.safetensors.index.json", json.dumps(index))
    assert changed(plan, made) == [
        f"`hf/{name}` is not in the lock"
        for name in ("model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors")
    ]
    write("hf/model-1.safetensors")
    write("hf/model-2.safetensors")
    write("hf/consolidated.safetensors")
    assert names(plan, "model.load") == [
        "hf/config.json",
        "hf/model.safetensors.index.json",
        "hf/model-1.safetensors",
        "hf/model-2.safetensors",
    ]


def test_a_checkpoint_of_megatron_is_its_metadata_and_the_sizes_of_its_shards(plan_of: Compile) -> None:
    plan = plan_of(model="load: given")
    made = lock(plan)
    files = made["inputs"]["model.load"]["files"]
    assert {name.rpartition("/")[2]: sorted(facts) for name, facts in files.items()} == {
        "latest_checkpointed_iteration.txt": ["sha256", "size"],
        ".metadata": ["sha256", "size"],
        "common.pt": ["sha256", "size"],
        "metadata.json": ["sha256", "size"],
        "__0_0.distcp": ["size"],
        "__0_1.distcp": ["size"],
    }
    write("given/iter_0000007/__0_1.distcp", "longer than before")
    write("given/latest_checkpointed_iteration.txt", "8")
    Path("given/iter_0000007/__0_0.distcp").unlink()
    locked = [text.split("`")[1] for text in changed(plan, made)]
    assert locked == [
        "given/latest_checkpointed_iteration.txt",
        "given/iter_0000007/__0_0.distcp",
        "given/iter_0000007/__0_1.distcp",
    ]


def test_every_change_is_told_at_once(plan_of: Compile) -> None:
    write("rows/a.jsonl", "one")
    write("rows/b.jsonl", "two")
    write("rows/c.jsonl", "three")
    plan = plan_of("{train_data_path: rows}", model="load: 'hf:hf'")
    made = lock(plan)
    write("rows/a.jsonl", "oNe")
    write("rows/b.jsonl", "two and more")
    Path("rows/c.jsonl").unlink()
    write("rows/d.jsonl")
    write("tokenizer/tokenizer_config.json", json.dumps({"chat_template": "{{ messagez }}"}))
    write("tokenizer/merges.txt")
    write("hf/model.safetensors", "WEIGHTS")
    told = changed(plan, made)
    assert [text.partition(":")[0] for text in told] == [
        "`rows/a.jsonl` has other content",
        "`rows/b.jsonl` has 12 bytes, the lock says 3",
        "`rows/c.jsonl` is missing",
        "`rows/d.jsonl` is not in the lock",
        "`tokenizer/tokenizer_config.json` has other content",
        "`tokenizer/merges.txt` is not in the lock",
        "`hf/model.safetensors` has other content",
        "the chat template is another text",
    ]
    then = made["inputs"]["data.train_data_path"]["files"]["rows/a.jsonl"]["sha256"]
    now = digests.read_sha256(Path("rows/a.jsonl"))
    assert told[0] == f"`rows/a.jsonl` has other content: its sha256 is {now[:12]}, the lock says {then[:12]}"


def build(folder: str) -> Bundle:
    """The build dir of the recipe, read as a launch reads it."""
    for artifact in artifacts(check_recipe(Path("r.yaml"), "r.yaml")):
        write(f"{folder}/{artifact.path}", artifact.content.decode())
    return read_bundle(Path(folder))


def test_a_launch_is_stopped_with_the_remedy(plan_of: Compile) -> None:
    plan = plan_of(model="load: 'hf:hf'")
    assert require_locked(build("unlocked"), reads_weights=True) is None
    lock(plan)
    locked = build("locked")
    assert require_locked(locked, reads_weights=True) == "the inputs are as locked: 5 files"
    write("hf/model.safetensors", "WEIGHTS")
    with pytest.raises(UserError, match=r"1 difference:\n  `hf/model.safetensors` has") as raised:
        require_locked(locked, reads_weights=True)
    assert "sftc lock" in str(raised.value.help)
    # A resumed run reads none.
    assert require_locked(locked, reads_weights=False) == "the inputs are as locked: 3 files"


def test_a_long_list_is_cut(plan_of: Compile) -> None:
    for number in range(30):
        write(f"rows/{number:02}.jsonl")
    lock(plan_of("{train_data_path: rows}"))
    locked = build("locked")
    for number in range(30):
        Path(f"rows/{number:02}.jsonl").unlink()
    with pytest.raises(UserError, match="30 differences") as raised:
        require_locked(locked, reads_weights=True)
    assert raised.value.message.splitlines()[1] == "  `rows/00.jsonl` is missing"
    assert raised.value.message.splitlines()[-1] == "  and 10 more"


@pytest.mark.parametrize("where", ["tokenizer/chat_template.jinja", "tokenizer/chat_template.json"])
def test_a_template_counts_wherever_it_stands(plan_of: Compile, where: str) -> None:
    plan = plan_of()
    made = lock(plan)
    write(where, json.dumps({"chat_template": "{{ other }}"}))
    (told,) = changed(plan, made)
    assert told.startswith("the chat template is another text")


def test_the_recipe_s_own_template_is_the_one_that_counts(plan_of: Compile) -> None:
    write("own.jinja", "{{ own }}")
    plan = plan_of(tokenizer=", chat_template: own.jinja")
    made = lock(plan)
    assert made["chat_template"] != lock(plan_of())["chat_template"]
    write("tokenizer/chat_template.jinja", "{{ other }}")
    assert changed(plan, made) == []
    assert len(differences(made, plan.__getitem__, "{{ edited }}")) == 1


@pytest.mark.parametrize(
    ("data", "model", "problem"),
    [
        ("{train_data_path: gone.jsonl}", "init: random", "there is no file `gone.jsonl`"),
        ("{train_data_path: p, format: tokens}", "init: random", "`p.idx` cannot be read"),
        ("{train_data_path: train.jsonl}", "load: gone", "holds no Megatron checkpoint"),
        ("{train_data_path: train.jsonl}", "load: 'hf:gone'", "`gone/config.json` cannot be read"),
        ("{train_data_path: 'hf://datasets/o/n@main'}", "init: random", "names no commit"),
    ],
)
def test_what_cannot_be_locked_is_told(plan_of: Compile, data: str, model: str, problem: str) -> None:
    plan = plan_of(data, model)
    with pytest.raises(UserError, match=problem) as raised:
        make_lock(plan.__getitem__, None)
    assert raised.value.help


def test_a_tokenizer_without_its_files_is_told(plan_of: Compile) -> None:
    plan = plan_of()
    Path("tokenizer/tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no `tokenizer/tokenizer.json`"):
        make_lock(plan.__getitem__, None)


def test_a_directory_that_is_gone_is_told_by_its_files_alone(plan_of: Compile) -> None:
    write("rows/a.jsonl")
    plan = plan_of("{train_data_path: rows}")
    made = lock(plan)
    Path("rows/a.jsonl").unlink()
    Path("rows").rmdir()
    assert changed(plan, made) == ["`rows/a.jsonl` is missing"]


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    read: list[int] = []
    first = digests.known_sha256(path, read.append)
    assert digests.known_sha256(path, read.append) == first
    assert read == [3, 3]  # progress goes on, though nothing is read
    path.write_bytes(b"other")
    assert digests.known_sha256(path) == digests.read_sha256(path) != first


def test_large_inputs_show_how_far_reading_is(
    plan_of: Compile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of()
    make_lock(plan.__getitem__, None)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(make, "LARGE", 1)
    make_lock(plan.__getitem__, None)
    assert capsys.readouterr().err.splitlines()[-1] == "reading what is locked: 100%"
