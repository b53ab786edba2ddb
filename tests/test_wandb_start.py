"""How a fit's W&B run starts: what the environment may say, and what is said where it does not open."""

import json

import pytest

from workbench import fit, load_recipe, recipe_files
from workbench.specs.errors import UserError
from workbench.training import run_folder, tracking


def opened(folder, *overrides):
    """Open W&B for a fit in a new session, as a process of its own would."""
    import wandb

    wandb.teardown()
    recipe = recipe_files.load("quickstart", ["track.wandb=offline", *overrides]).recipe
    tracked = tracking.Tracking(recipe.track, folder, "tiny", {}, tracking.RowPositions(4, 8))
    tracked.close(0)
    wandb.teardown()
    return tracked


def refuse(*_, **options):
    raise RuntimeError(f"{options['mode']} does not work")


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_where_wandb_does_not_open_at_all_it_is_off_and_nothing_is_advised(tmp_path, monkeypatch, caplog, mode):
    if mode == "offline":
        monkeypatch.setenv("WANDB_RUN_ID", "abc/def")
    else:
        monkeypatch.setattr(tracking, "QuietWandbLogger", refuse)
    section = opened(tmp_path, f"track.wandb={mode}").section()
    assert (section["mode"], section["run_id"], section["group"]) == ("off", None, None)
    assert "start: " in section["failed"]
    assert section["reason"] == f"{mode} was wanted, but {section['failed']}"
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and r.name == "workbench"]
    assert said.endswith("goes on without W&B")
    assert "sync" not in said


@pytest.mark.parametrize("given", ["abc", "-1", "nan"])
def test_an_unreadable_timeout_is_said_and_the_usual_one_holds(tmp_path, monkeypatch, caplog, given):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", given)
    section = opened(tmp_path).section()
    assert (section["mode"], section["failed"]) == ("offline", None)
    assert f"WANDB_INIT_TIMEOUT={given} is no number of seconds" in caplog.text


def test_the_environments_project_and_entity_count_where_the_recipe_names_none(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "cars")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    for overrides, project in (((), "cars"), (("track.project=mine",), "mine")):
        folder = tmp_path / project
        folder.mkdir()
        opened(folder, *overrides)
        kept = json.loads((folder / "wandb.json").read_text())
        assert (kept["project"], kept["entity"], kept["job_type"]) == (project, "team", "fit")


def test_an_unknown_mode_is_refused_before_there_is_a_run_folder(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "shared")
    made = []
    monkeypatch.setattr(run_folder, "create", lambda *given: made.append(given) or tmp_path)
    with pytest.raises(UserError, match="WANDB_MODE"):
        fit(load_recipe(str(tiny_recipe), ["track.wandb=auto"]).recipe)
    assert not made
