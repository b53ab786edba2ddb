"""W&B online, against a stand-in for its server: what arrives, what a resumed run continues, what failures cost."""

import json
import re

import pytest
import torch
from conftest import TINY_RECIPE, fill_in
from wandb_files import wandb_read
from wandb_stub import KEY, WandbStub

from workbench import fit, load_recipe
from workbench.training import monitor, tracking
from workbench.training.interrupts import Interrupted
from workbench.training.metrics_csv import read_metrics

SECRETS = {"HF_TOKEN": "hf_planted0planted0planted", "AWS_SECRET_ACCESS_KEY": "aws0planted0planted0planted"}
TIMING = {"seconds", "images_per_second", "train_seconds", "peak_memory_bytes", "tracking"}


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def server(monkeypatch):
    """A server that this process's wandb talks to."""
    yield from serving(monkeypatch)


def serving(patch):
    import wandb

    wandb.teardown()  # it reads its environment once
    with WandbStub() as stub:
        for name, value in {**stub.environment(), **SECRETS, "WANDB_INIT_TIMEOUT": "3"}.items():
            patch.setenv(name, value)
        yield stub
        wandb.teardown()


def tiny(path, *overrides):
    return load_recipe(str(path), ["track.wandb=online", "train.total_epochs=2", *overrides]).recipe


@pytest.fixture(scope="module")
def online(tmp_path_factory, folder_set, patch):
    """A server and the fit that it was told of."""
    base = tmp_path_factory.mktemp("online")
    path = base / "tiny.yaml"
    path.write_text(fill_in(TINY_RECIPE, folder_set, base))
    for stub in serving(patch):
        overrides = ["train.total_epochs=6", "train.num_validations=6", "track.tags=[tested]", "track.notes=a note"]
        yield stub, fit(tiny(path, *overrides, "optim.lr=0.03"))


def test_rows_arrive_as_they_stand_in_metrics_csv(online):
    stub, outcome = online
    (run,) = stub.runs.values()
    rows = read_metrics(outcome.folder / "metrics.csv")
    assert not stub.unknown
    for name in ("train/loss", "train/lr", "val/top1"):
        assert run.values(name) == pytest.approx([row[name] for row in rows if name in row]), name
    trained = [row for row in run.history if "train/loss" in row]
    assert [row["trainer/global_step"] for row in trained] == list(range(2, 25, 2))
    assert [row["epoch"] for row in trained] == [step / 4 for step in range(2, 25, 2)]
    assert trained[-1]["images_seen"] == 24 * 8
    assert run.values("test/top1") == pytest.approx([outcome.result["test"]["top1"]])


def test_curves_are_over_epochs(online):
    stub, _ = online
    (run,) = stub.runs.values()
    metrics = run.config["_wandb"]["value"]["m"]
    axes = {metric.get("2") or metric.get("1"): metric.get("5") for metric in metrics}
    names = [metric.get("1") for metric in metrics]
    for rows in ("train/*", "val/*", "train/loss", "val/top1"):
        if rows in axes:
            assert names[axes[rows] - 1] == "epoch", rows
    assert {"train/loss", "val/top1"} <= set(axes) or {"train/*", "val/*"} <= set(axes)


def test_the_summary_is_of_the_selected_weights_not_of_the_last(online):
    stub, outcome = online
    (run,) = stub.runs.values()
    selection, last = outcome.result["selection"], run.values("val/loss")[-1]
    assert run.summary["val/top1"] == pytest.approx(selection["top1"])
    assert run.summary["val/loss"] == pytest.approx(selection["loss"])
    assert run.summary["selected/step"] == selection["step"]
    assert run.summary["test/mean_per_class"] == pytest.approx(outcome.result["test"]["mean_per_class"])
    assert selection["step"] < 24, "the case is only told apart where the best is not the last"
    assert run.summary["val/loss"] != pytest.approx(last)


def test_config_is_nested_and_the_run_says_what_it_is(online):
    stub, outcome = online
    (run,) = stub.runs.values()
    config = {name: entry["value"] for name, entry in run.config.items()}
    assert config["optim"]["lr"] == 0.03
    assert config["environment"]["python"]
    assert "arch" not in config
    assert (run.group, run.job_type, run.tags, run.notes) == ("tiny", "fit", ["tested"], "a note")
    assert (run.display_name, run.exit_code) == (outcome.folder.name, 0)
    kept = json.loads((outcome.folder / "wandb.json").read_text())
    assert (kept["run_id"], kept["mode"], kept["group"]) == (run.name, "online", "tiny")
    section = json.loads((outcome.folder / "result.json").read_text())["tracking"]
    assert section == outcome.result["tracking"]
    assert section.pop("url").endswith(run.name)
    expected = {"mode": "online", "reason": "as the recipe says", "run_id": run.name, "group": "tiny"}
    assert section == {**expected, "job_type": "fit", "failed": None}
    assert "tracking" not in json.loads((outcome.folder / "model.json").read_text())["provenance"]["result"]


def test_tables_with_thumbnails_and_maps_arrive(online):
    stub, outcome = online
    (run,) = stub.runs.values()
    tables = {a.name.rsplit("-", 1)[-1]: a for a in stub.artifacts if a.type == "run_table"}
    assert len(tables) == 3
    (row,) = [row for row in run.history if "test/predictions" in row]
    assert row["test/predictions"]["nrows"] == 12
    assert row["test/maps"]["_type"] == "image-file"
    predictions = next(a for a in tables.values() if "predictions" in a.name)
    content = json.loads(next(text for name, text in predictions.files.items() if name.endswith(".table.json")))
    assert content["columns"] == ["image", "id", "actual", "predicted", "confidence", "class_probability"]
    right = [line[2] == line[3] for line in content["data"]]
    assert sum(right) / 12 == pytest.approx(outcome.result["test"]["top1"])
    assert all(line[0]["width"] <= 96 for line in content["data"])
    confusion = next(a for a in tables.values() if "confusion" in a.name)
    content = json.loads(next(iter(confusion.files.values())))
    assert sum(line[2] for line in content["data"]) == 12


def test_the_dataset_goes_in_and_the_model_comes_out(online):
    stub, outcome = online
    (run,) = stub.runs.values()
    dataset, model = stub.artifact("dataset"), stub.artifact("model")
    assert run.used == [dataset.id]
    assert dataset.metadata["counts"] == {"train": 36, "selection": 12, "test": 12}
    assert dataset.files["splits.json"] == (outcome.folder / "splits.json").read_bytes()
    assert json.loads(dataset.files["card.json"])["name"] == outcome.result["dataset"]
    assert (model.run, model.name) == (run.name, f"model-{run.name}")
    assert set(model.aliases) == {"latest", "best", outcome.result["dataset"]}
    for name in ("model.safetensors", "model.json", "recipe.yaml"):
        assert model.files[name] == (outcome.folder / name).read_bytes()
    assert model.metadata["test"]["top1"] == pytest.approx(outcome.result["test"]["top1"])


def test_no_secret_is_sent_or_written(online):
    stub, outcome = online
    sent = b"\n".join(stub.bodies)
    written = b"\n".join(path.read_bytes() for path in outcome.folder.rglob("*") if path.is_file())
    assert b"optim" in sent
    assert len(written) > 10_000
    for secret in (KEY, *SECRETS.values()):
        assert secret.encode() not in sent, secret
        assert secret.encode() not in written, secret


def stop_after(monkeypatch, epoch):
    """Let Ctrl-C come after an epoch's checkpoint."""
    write = monitor.LastCheckpoint.write

    def write_and_stop(self, trainer):
        write(self, trainer)
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(monitor.LastCheckpoint, "write", write_and_stop)


@pytest.mark.parametrize("keeps", ["wandb.json", pytest.param("checkpoint", marks=pytest.mark.slow)])
def test_a_resumed_run_goes_on_as_the_same_run(tiny_recipe, server, monkeypatch, keeps):
    with monkeypatch.context() as stopping:
        stop_after(stopping, 0)
        with pytest.raises(Interrupted) as stop:
            fit(tiny(tiny_recipe))
    (run,) = server.runs.values()
    assert run.exit_code == 130
    before = len(run.history)
    folder = stop.value.folder
    if keeps == "checkpoint":
        (folder / "wandb.json").unlink()
    outcome = fit(load_recipe(str(folder / "recipe.yaml")).recipe, resume=folder)
    assert list(server.runs) == [run.name] == [outcome.result["tracking"]["run_id"]]
    assert (run.exit_code, run.starts) == (0, 2)
    assert len(run.history) > before
    assert [row["trainer/global_step"] for row in run.history if "train/loss" in row] == [2, 4, 6, 8]
    assert "continues" not in run.config


def test_offline_a_resumed_run_is_a_linked_part(tiny_recipe, monkeypatch):
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_RUN_ID", "given7")
    with monkeypatch.context() as stopping:
        stop_after(stopping, 0)
        stopping.setenv("WANDB_PROJECT", "cars")
        with pytest.raises(Interrupted) as stop:
            fit(tiny(tiny_recipe, "track.wandb=offline", "track.group=mine", "track.notes=kept"))
    folder = stop.value.folder
    outcome = fit(load_recipe(str(folder / "recipe.yaml")).recipe, resume=folder)
    parts = [part["run_id"] for part in json.loads((folder / "wandb.json").read_text())["parts"]]
    wandb.teardown()
    assert parts[0] == "given7"
    assert len(set(parts)) == 2
    assert outcome.result["tracking"]["run_id"] == parts[1]
    (path,) = (folder / "wandb").glob(f"offline-run-*/run-{parts[1]}.wandb")
    runs = [record.run for record in wandb_read(path) if record.HasField("run")]
    assert (runs[-1].run_group, runs[-1].project) == ("mine", "cars")
    assert runs[-1].notes == f"kept\npart 2 of run {parts[0]}"
    updates = [u for record in wandb_read(path) for u in (*record.run.config.update, *record.config.update)]
    assert json.dumps(parts[0]) in [u.value_json for u in updates if u.key == "continues"]


def test_in_a_sweep_the_names_are_the_sweeps_and_a_stopped_trial_goes_on_by_them(tiny_recipe, server, monkeypatch):
    import wandb

    sweep = {"SWEEP_ID": "sweep9", "RUN_ID": "given7", "PROJECT": "cars", "ENTITY": "team"}
    with monkeypatch.context() as stopping:
        for name, value in sweep.items():
            stopping.setenv(f"WANDB_{name}", value)
        stop_after(stopping, 0)
        with pytest.raises(Interrupted) as stop:
            fit(tiny(tiny_recipe))
    wandb.teardown()  # whoever resumes is another process, outside the sweep
    folder = stop.value.folder
    outcome = fit(load_recipe(str(folder / "recipe.yaml")).recipe, resume=folder)
    assert list(server.by_path) == [("team", "cars", "given7")]
    run = server.runs["given7"]
    assert (run.sweep, run.group, run.job_type) == ("sweep9", "sweep9", "trial")
    assert (run.exit_code, run.starts) == (0, 2)
    section = outcome.result["tracking"]
    assert (section["group"], section["job_type"]) == ("sweep9", "trial")
    assert outcome.result["tracking"]["run_id"] == "given7"
    assert not [a for a in server.artifacts if a.type == "model"], "trials leave their models here"


def rows_kept(folder):
    """The rows in W&B's own file, for `wandb sync`."""
    path = max((folder / "wandb").glob("*run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)
    names = [item.key or ".".join(item.nested_key) for r in wandb_read(path) for item in r.history.item]
    return names.count("train/loss")


START = {"UpsertBucket", "RunResumeStatus"}
FAULTS = {
    "bad key": (lambda operation, count: 401, "offline", "status 401"),
    "broken server": (lambda operation, count: 500, "offline", "500"),
    "no answer": (lambda operation, count: "stall", "offline", "deadline exceeded"),
    "quota in the middle": (lambda operation, count: None if operation in START else 403, "online", "403"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fit_never_fails_because_of_the_server(tiny_recipe, server, monkeypatch, case):
    monkeypatch.setattr(tracking, "ATTEMPT_SECONDS", 5.0)
    server.fault, mode, says = FAULTS[case]
    outcome = fit(tiny(tiny_recipe))
    section = json.loads((outcome.folder / "result.json").read_text())["tracking"]
    assert section["mode"] == mode
    assert says in section["failed"]
    log = (outcome.folder / "log.txt").read_text()
    warnings = re.findall("W&B did not take .*", log)
    assert len(warnings) == 1, log
    assert "wandb sync" in warnings[0]
    assert rows_kept(outcome.folder) == 4


def test_a_network_that_goes_down_in_the_middle_costs_only_time(tiny_recipe, server, monkeypatch):
    monkeypatch.setattr(tracking, "ATTEMPT_SECONDS", 3.0)
    monkeypatch.setattr("workbench.training.tracking_tables.MOST_SECONDS", 3.0)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 2.0)
    server.fault = lambda operation, count: "drop" if server.artifacts and server.artifacts[0].committed else None
    outcome = fit(tiny(tiny_recipe))
    assert outcome.result["tracking"]["failed"]
    assert outcome.result["test"]["n"] == 12
    assert rows_kept(outcome.folder) == 4


def test_off_offline_and_a_dead_server_give_the_same_result(tiny_recipe, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    wandb.teardown()
    outcomes = {mode: fit(tiny(tiny_recipe, f"track.wandb={mode}")) for mode in ("off", "offline", "online")}
    wandb.teardown()
    results = {mode: json.loads((o.folder / "result.json").read_text()) for mode, o in outcomes.items()}
    same = [{k: v for k, v in result.items() if k not in TIMING} for result in results.values()]
    assert same[0] == same[1] == same[2]
    assert len(same[0]) > 10
    weights = [(o.folder / "model.safetensors").read_bytes() for o in outcomes.values()]
    assert weights[0] == weights[1] == weights[2]
    sections = {mode: result["tracking"] for mode, result in results.items()}
    assert [sections[mode]["mode"] for mode in sections] == ["off", "offline", "offline"]
    assert [sections[mode]["failed"] is None for mode in sections] == [True, True, False]
    assert sections["off"]["run_id"] is None
    assert "online was wanted" in sections["online"]["reason"]
    last = torch.load(outcomes["online"].folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["callbacks"]["WandbIdentity"]["run_id"] == sections["online"]["run_id"]
