"""`sftc estimate` as a user types it."""

import json


def test_the_report_goes_to_stdout_and_nothing_is_written(run_line, recipe, tmp_path):
    done = run_line("sftc estimate recipe.yaml --hardware H100")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].endswith("= 1 rank(s) on NVIDIA H100 SXM5 80 GB")
    assert done.stdout.splitlines()[-1].startswith("fits: ")
    assert "\033" not in done.stdout
    assert list(tmp_path.iterdir()) == [recipe]


def test_json_is_json(run_line, recipe):
    done = run_line("sftc estimate recipe.yaml --memory 16 --format json")
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert (data["device_memory"], data["fits"], data["hardware"]) == (16 * 2**30, True, None)


def test_what_the_report_says_is_not_warned_of_as_well(run_line, recipe):
    recipe.write_text(recipe.read_text().replace("vocab_size: 512", "vocab_size: 99000000") + "  hardware: H100\n")
    assert "[SFTC481]" in run_line("sftc validate recipe.yaml").stdout
    small, large = (run_line(f"sftc estimate recipe.yaml --memory {size}") for size in (80, 1e6))
    assert (small.stderr, large.stderr) == ("", "")
    assert "does not fit" in small.stdout
    assert "\nfits: " in large.stdout


def test_fail_over_is_for_scripts(run_line, recipe):
    assert run_line("sftc estimate recipe.yaml --memory 16 --fail-over").returncode == 0
    assert run_line("sftc estimate recipe.yaml --memory 0.1").returncode == 0
    small = run_line("sftc estimate recipe.yaml --memory 0.1 --fail-over")
    assert small.returncode == 1
    assert "does not fit: " in small.stdout
    unknown = run_line("sftc estimate recipe.yaml --fail-over")
    assert unknown.returncode == 2
    assert "--memory" in unknown.stderr


def test_a_recipe_with_errors_has_no_estimate(run_line, recipe):
    recipe.write_text(recipe.read_text().replace("num_layers: 2", "num_layers: two"))
    done = run_line("sftc estimate recipe.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert "num_layers" in done.stderr


def test_a_device_that_is_not_in_the_table_is_answered_with_the_menu(run_line, recipe):
    done = run_line("sftc estimate recipe.yaml --hardware H10")
    assert done.returncode == 2
    assert "MI300X" in done.stderr
