"""Answers in a training and of its checkpoints: the quickstart's model, cut short, as a user asks it."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]
LIMIT = 600
ITERATIONS, EVERY, SAMPLES, NEW = 90, 45, 24, 20
HOOK = '''\
def lengths(answers):
    """The mean length of the answers, what is in the prompts, and whether all know if they are right."""
    assert all(one["exact_match"] in (True, False) for one in answers)
    return {
        "characters": sum(len(one["answer"]) for one in answers) / len(answers),
        "prompts": sum(one["question"] in one["prompt"] for one in answers),
    }
'''


def type_in(line: str, cwd: Path, status: int = 0) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(line.split(), cwd=cwd, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def place(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is, and what it said in `said`."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "recipes").symlink_to(repo_root / "recipes")
    recipe = YAML().load(repo_root / "recipes/quickstart/recipe.yaml")
    recipe["train"] |= {"train_iters": ITERATIONS}
    recipe["checkpoint"] |= {"save_interval": EVERY, "export_hf": True}
    generate = {"samples": SAMPLES, "max_new_tokens": NEW, "batch_size": 10}
    recipe["eval"] = {"eval_interval": EVERY, "eval_on_start": True, "generate": generate}
    recipe["hooks"] = {"answer_metrics": "./hook.py:lengths"}
    (folder / "hook.py").write_text(HOOK)
    with (folder / "recipe.yaml").open("w") as file:
        YAML().dump(recipe, file)
    type_in("sftc compile recipe.yaml -o build", folder)
    (folder / "said").write_text(type_in("bash build/launch.sh", folder).stderr)
    return folder


def test_every_evaluation_has_its_answers_and_scores(place: Path) -> None:
    run = place / "runs/quickstart"
    lines = {line["iteration"]: line for line in objects(run / "metrics.jsonl") if "valid_answers" in line}
    assert list(lines) == [0, EVERY, ITERATIONS]
    answers = objects(run / "answers.jsonl")
    for iteration, line in lines.items():
        own = [one for one in answers if one["iteration"] == iteration]
        assert [one["row"] for one in own] == [at * 80 // SAMPLES for at in range(SAMPLES)]
        right = [one["answer"].strip() == one["reference"].strip() for one in own]
        assert right == [one["exact_match"] for one in own]
        assert line["valid_exact_match"] == pytest.approx(sum(right) / SAMPLES)
        assert line["valid_unfinished"] == sum(one["finish_reason"] == "length" for one in own)
        assert all(one["tokens"] <= NEW for one in own)
        assert line["valid_characters"] == pytest.approx(sum(len(one["answer"]) for one in own) / SAMPLES)
        assert line["valid_prompts"] == SAMPLES, "the question is in the prompt"
    assert lines[0]["valid_exact_match"] == 0
    assert lines[0]["valid_unfinished"] > 0, "random weights do not know when to end"
    assert lines[ITERATIONS]["valid_unfinished"] == 0
    assert lines[ITERATIONS]["valid_token_accuracy"] > lines[0]["valid_token_accuracy"] + 0.4


def test_the_evaluation_before_the_training_changes_nothing_of_it(place: Path, repo_root: Path, tmp_path: Path) -> None:
    """Training goes the same way, to the last digit, without `eval_on_start` and answers."""
    (tmp_path / "recipes").symlink_to(repo_root / "recipes")
    recipe = YAML().load(place / "recipe.yaml")
    del recipe["eval"]["generate"], recipe["eval"]["eval_on_start"], recipe["hooks"]
    with (tmp_path / "recipe.yaml").open("w") as file:
        YAML().dump(recipe, file)
    type_in("sftc compile recipe.yaml -o build", tmp_path)
    type_in("bash build/launch.sh", tmp_path)
    kept = ("iteration", "lm_loss", "grad_norm", "valid_loss")
    found, wanted = (
        [
            {key: line[key] for key in kept if key in line}
            for line in objects(folder / "runs/quickstart/metrics.jsonl")
            if line["iteration"] and "valid_answers" not in line
        ]
        for folder in (tmp_path, place)
    )
    assert found == wanted


def test_the_terminal_shows_some_answers_at_the_end(place: Path) -> None:
    said = (place / "said").read_text()
    first, last = re.findall(r"exact match ([\d.]+) -> ([\d.]+)", said)[0]
    assert (float(first), float(last) > 0) == (0.0, True)
    shown = said.partition(f"{SAMPLES} questions were asked, such as:\n")[2].splitlines()[:5]
    answers = [one for one in objects(place / "runs/quickstart/answers.jsonl") if one["iteration"] == ITERATIONS]
    for at, line in enumerate(shown):
        one = answers[at * SAMPLES // 5]
        assert one["question"][:20] in line
        assert ("  right" in line) == one["exact_match"]
        assert one["exact_match"] or f"  wrong: {one['reference'][:10]}" in line


def test_transformers_says_the_same(place: Path) -> None:
    """Greedy answers of the exported model, without Megatron and its cache."""
    transformers = pytest.importorskip("transformers")
    torch: Any = pytest.importorskip("torch")
    folder = place / "runs/quickstart/hf"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for one in objects(place / "runs/quickstart/answers.jsonl")[-SAMPLES:]:
        inputs = tokenizer(one["prompt"], return_tensors="pt", add_special_tokens=False)
        output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
        tokens = output[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(tokens, skip_special_tokens=True) == one["answer"]
        assert len(tokens) == one["tokens"]


def test_a_checkpoint_answers_as_the_training_did(place: Path) -> None:
    done = type_in(f"sftc eval runs/quickstart --samples {SAMPLES} --iteration {EVERY} --format json", place)
    result = json.loads(done.stdout)
    folder = place / f"runs/quickstart/eval/iteration-{EVERY}"
    own = objects(folder / "answers.jsonl")
    assert own == [one for one in objects(place / "runs/quickstart/answers.jsonl") if one["iteration"] == EVERY]
    lines = [line for line in objects(place / "runs/quickstart/metrics.jsonl") if line["iteration"] == EVERY]
    logged = next(line for line in lines if "valid_answers" in line)
    del logged["iteration"]
    values = {f"valid_{name}": value for name, value in result["values"].items() if name != "loss"}
    assert values == pytest.approx(logged)
    assert json.loads((folder / "eval.json").read_text())["values"] == result["values"]
    assert not list((place / "runs/quickstart/eval").rglob("events.out*")), "an evaluation is no training"


def test_other_rows_are_asked_of_the_weights_before_the_training(place: Path) -> None:
    """From a directory that was moved, in another one: what the plan names is looked for where the run began."""
    rows = [json.dumps({"messages": [{"role": "user", "content": f"Repeat {number}."}, {"role": "assistant",
            "content": str(number)}]}) for number in range(100, 130)]  # fmt: skip
    (place / "other").mkdir()
    (place / "other/rows.jsonl").write_text("\n".join(rows) + "\n")
    line = (
        "sftc eval ../runs/quickstart --data rows.jsonl --iteration 0 --answer-pattern \\d+ --max-new-tokens 3 -o out"
    )
    done = type_in(line, place / "other")
    head, *table = done.stdout.splitlines()
    assert head == "iteration 0, 30 conversations of `rows.jsonl`"
    values = dict(row.split(maxsplit=1) for row in (row.replace("exact match", "exact_match") for row in table))
    assert float(values["loss"]) > 5
    assert values["exact_match"] == "0.0000"
    assert values["unfinished"] == "30"
    asked = objects(place / "other/out/answers.jsonl")
    assert [one["question"] for one in asked] == [f"Repeat {number}." for number in range(100, 130)]
    assert {one["tokens"] for one in asked} == {3}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("runs/quickstart --iteration 7", f"there are {EVERY}, {ITERATIONS}"),
        ("runs/nothing", "`runs/nothing` is no run"),
        ("runs/quickstart --data nothing.jsonl", "nothing.jsonl"),
        ("runs/quickstart --answer-pattern A(", "no regular expression"),
        ("runs/quickstart --answer-pattern ####", "none of the"),
    ],
)
def test_what_cannot_be_asked_is_said(place: Path, line: str, said: str) -> None:
    done = type_in(f"sftc eval {line}", place, status=1)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_pattern_that_is_in_no_reference_ends_the_launch(place: Path, repo_root: Path, tmp_path: Path) -> None:
    """Before a rank is started, and not with an exact match of zero."""
    shutil.copytree(place / "recipes", tmp_path / "recipes")
    recipe = YAML().load(place / "recipe.yaml")
    recipe["eval"]["generate"]["answer_pattern"] = "#### ([0-9]+)"
    del recipe["hooks"]
    with (tmp_path / "recipe.yaml").open("w") as file:
        YAML().dump(recipe, file)
    type_in("sftc compile recipe.yaml -o build", tmp_path)
    said = type_in("bash build/launch.sh", tmp_path, status=1).stderr
    assert "#### ([0-9]+)" in said
    assert "setting up" not in said
