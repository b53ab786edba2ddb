"""`profile`: counts beside printed figures, times that take turns, files, and mistakes."""

import csv
import json
import time

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from workbench.analysis import figures
from workbench.analysis import profile as profiling
from workbench.analysis.figures import draw_all
from workbench.analysis.paper_tables import imagenet_rows, scaling_rows
from workbench.analysis.profile import Protocol, profile
from workbench.cli.profile_verb import command
from workbench.specs.errors import UserError
from workbench.specs.paper_models import TABLE_4

QUICK = Protocol(runs=3)


def test_rows_carry_counts_printed_figures_and_ratios():
    rows = profile(["b0", "resnet152", "b1"], Protocol(timed=False), against="b1")
    assert [row["arch"] for row in rows] == ["b0", "resnet152", "b1"]
    assert rows[1]["parameters"] == 60_192_808
    assert rows[1]["paper_flops_b"] == "11 (document: 11.3)"
    assert rows[1]["x_madds"] == pytest.approx(16, rel=0.06)  # Table 2 prints 16x
    assert rows[1]["x_parameters"] == pytest.approx(7.6, rel=0.02)
    assert rows[2]["x_madds"] == 1
    assert "latency_mean" not in rows[0]
    assert profile(["b0"], Protocol(timed=False), 112)[0]["madds"] < rows[0]["madds"] / 3.5


def test_times_are_means_medians_and_spreads_of_the_runs_asked_for():
    row = profile(["tiny"], Protocol(runs=4, batch=2))[0]
    assert 0 < row["latency_median"]
    assert row["latency_sd"] >= 0
    assert row["images_per_second"] > 0


class Sleeper(nn.Module):
    """A network that takes a known time and notes when it was asked."""

    log = []

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, images):
        self.log.append((self.seconds, torch.get_num_threads(), len(images)))
        cold = len(self.log) <= 2 * profiling.WARM_UP  # two networks take turns
        time.sleep(self.seconds + 0.3 * cold)


def test_networks_take_turns_on_the_threads_asked_for_and_times_are_true(monkeypatch):
    naps = iter((0.002, 0.02))
    monkeypatch.setattr(profiling, "build_backbone", lambda backbone: Sleeper(next(naps)))
    Sleeper.log.clear()
    backbones = [profiling.resolve_backbone(name) for name in ("tiny", "b0")]
    before = torch.get_num_threads()
    found = profiling._timed(backbones, [32, 32], Protocol(runs=5, threads=2))
    assert torch.get_num_threads() == before
    assert [nap for nap, _, _ in Sleeper.log] == [0.002, 0.02] * (5 + profiling.WARM_UP)
    assert {(threads, batch) for _, threads, batch in Sleeper.log} == {(2, 1)}
    assert 0.02 <= found[1]["latency_mean"] < 0.1  # without the slow passes of the warm-up
    assert found[1]["latency_mean"] > 2 * found[0]["latency_median"]


def test_the_verb_prints_tables_and_writes_csv(tmp_path):
    file = tmp_path / "rows.csv"
    arguments = ["tiny", "{family: mobilenet_v1, width: 0.25}", "--runs", "2", "--resolution", "64", "--batch", "2"]
    ran = CliRunner().invoke(command, [*arguments, "--csv", str(file)], catch_exceptions=False)
    assert "mobilenet_v1-w0.25-d1-r224" in ran.output
    assert "mean of 2 after a warm-up" in ran.output
    rows = list(csv.DictReader(file.open()))
    assert [row["arch"] for row in rows] == ["tiny", "mobilenet_v1-w0.25-d1-r224"]
    assert float(rows[1]["latency_mean"]) > 0
    assert float(rows[0]["x_latency"]) == 1


def test_the_verb_prints_json_and_can_only_count():
    ran = CliRunner().invoke(command, ["b0", "resnet50", "--no-time", "--json"], catch_exceptions=False)
    rows = json.loads(ran.output)
    assert rows[1]["x_madds"] == pytest.approx(4.089 / 0.386, rel=0.01)
    assert rows[1]["paper_top1"] == "76.0 (document: 76.3)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["b0", "--against", "b1"], "name one of the models"),
        (["b0", "--resolution", "8"], "32 to 2048 for b0"),
        (["inception_v3", "--resolution", "64"], "75 to 2048"),
        (["b00"], "did you mean"),
        (["${x}"], "plain values"),
        (["tiny", "--no-time", "--csv", "nowhere/rows.csv"], "make the folder first"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(command, arguments, catch_exceptions=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_explained():
    with pytest.raises(UserError, match="no usable GPU"):
        profile(["tiny"], Protocol(device="gpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_timed_and_its_memory_read():
    row = profile(["tiny"], Protocol(runs=3, batch=4, device="gpu"))[0]
    assert row["gpu_peak_bytes"] > row["parameters"] * 4


@pytest.fixture(scope="module")
def table_2():
    pytest.importorskip("timm")
    return imagenet_rows()  # seconds: once


def test_pictures_are_drawn_without_a_screen(tmp_path, table_2, monkeypatch):
    monkeypatch.setattr(figures, "imagenet_rows", lambda: table_2)
    paths = draw_all(tmp_path / "figures")
    assert [path.name for path in paths] == ["figure_5.png", "figure_8.png", "table_3.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_tables_of_the_paper_hold_what_is_built_and_say_what_is_not(table_2):
    rows = {row["arch"]: row for row in table_2}
    assert rows["b7"]["counted_madds_g"] == pytest.approx(37.746, rel=1e-3)
    assert rows["polynet"]["counted_params_m"] is None
    assert "neither" in rows["polynet"]["note"]
    assert rows["resnet50"]["paper_top1"] == "76.0 (document: 76.3)"
    scaled = scaling_rows()
    assert len(scaled) == 19
    assert [row["note"] != "" for row in scaled].count(True) == 2


def test_table_4_prints_the_ratios_of_its_own_seconds():
    for _, _, seconds, ours, ratio in TABLE_4:
        assert seconds / ours == pytest.approx(ratio, abs=0.06)
