"""The demo page: what it answers, what it refuses, how it looks and ends. HTTP without a network, then a browser."""

import asyncio
import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
import torch
from browser import browser
from click.testing import CliRunner
from PIL import Image

from workbench.cli.app import app as cli
from workbench.specs.errors import UserError
from workbench.training.classifier import EfficientNetClassifier

starlette_testing = pytest.importorskip("starlette.testclient", reason="the extra `serve` is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from workbench.cli import serve_verb  # noqa: E402
from workbench.models.activation_maps import activation_maps  # noqa: E402
from workbench.serving import limits as limiting  # noqa: E402
from workbench.serving.limits import Gate, Limits, RequestError  # noqa: E402
from workbench.serving.one_picture import OnePicture  # noqa: E402
from workbench.serving.web import HEADERS, build_app  # noqa: E402

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
CLASSES = ("rose", HOSTILE, "daisy", "tulip")
OWN = "http://127.0.0.1:8000"
LOOSE = Limits(upload_bytes=200_000, per_minute=1000, waiting=8)


def picture(size=(50, 40), form="PNG", seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).save(encoded, form)
    return encoded.getvalue()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder: random weights, a class name that is markup, a temperature."""
    torch.manual_seed(0)
    preprocessing = {"resize": 36, "crop": 32, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    made = EfficientNetClassifier("tiny", len(CLASSES), classes=CLASSES, preprocessing=preprocessing)
    made.provenance = {"result": {"dataset": HOSTILE}}
    made.calibration = {"temperature": 2.0, "n": 10}
    with torch.no_grad():
        made.net.classifier[-1].weight.normal_()
        made.net.classifier[-1].bias.copy_(torch.tensor([0.0, 2.0, 1.0, 0.5]))  # no two alike
    folder = tmp_path_factory.mktemp("served") / "model"
    made.save(folder)
    return folder


@pytest.fixture(scope="module")
def model(saved):
    return OnePicture(EfficientNetClassifier.load(saved), max_pixels=100_000)


def client(model, limits=LOOSE, hosts=frozenset({"127.0.0.1", "localhost"})):
    return starlette_testing.TestClient(build_app(model, limits, hosts), base_url=OWN, raise_server_exceptions=False)


def test_it_answers_as_predict_does_with_a_map(model, saved, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    expected = EfficientNetClassifier.load(saved).predict([path])[0]
    answered = client(model).post("/predict?map=1", content=picture())
    assert answered.status_code == 200
    body = answered.json()
    assert [row["class"] for row in body["answers"]] == list(expected)
    for row in body["answers"]:
        assert row["probability"] == pytest.approx(expected[row["class"]], abs=1e-4)
    assert (body["width"], body["height"], body["calibrated"]) == (50, 40, True)
    assert body["map"]["class"] == body["answers"][0]["class"]
    for name in ("seen", "overlay"):
        head, encoded = body["map"][name].split(",")
        assert head == "data:image/jpeg;base64"
        with urllib.request.urlopen(body["map"][name]) as opened:
            assert Image.open(io.BytesIO(opened.read())).size == (32, 32)
    assert encoded


def test_top_and_class_are_as_asked_and_the_map_is_left_out(model):
    asked = client(model)
    assert len(asked.post("/predict?top=2", content=picture()).json()["answers"]) == 2
    assert "map" not in asked.post("/predict", content=picture()).json()
    body = asked.post("/predict", params={"class": HOSTILE, "map": "1"}, content=picture()).json()
    assert body["map"]["class"] == HOSTILE


def test_the_exact_map_keeps_no_gradients(model):
    """A pass that keeps what a gradient would need takes many times the memory; B7's does not fit a laptop."""
    seen = []
    hook = model.model.net.avgpool.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    try:
        activation_maps(model.model.net, torch.zeros(1, 3, 32, 32), None, "cam")
        activation_maps(model.model.net, torch.zeros(1, 3, 32, 32), None, "gradcam")
    finally:
        hook.remove()
    assert seen == [False, True]


def header_of_a_png(width, height):
    """The first bytes of a picture of any size: what a bomb looks like before it is decoded."""
    data = bytearray(picture((1, 1)))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "says"),
    [
        ("/predict", b"hello", {}, 400, "no JPEG, PNG"),
        ("/predict", picture()[:200], {}, 400, "do not decode"),
        ("/predict", b"", {}, 400, "send the file's bytes"),
        ("/predict", header_of_a_png(400, 300), {}, 400, "400 x 300 pixels; allowed: at most 100,000"),
        ("/predict", header_of_a_png(60000, 60000), {}, 400, "at most 100 million pixels"),
        ("/predict", header_of_a_png(10000, 1), {}, 400, "at most 50 times"),
        ("/predict", b"x" * 200_001, {}, 413, "more than 0.2 MB"),
        ("/predict?class=nothing", picture(), {}, 400, "'nothing'; allowed: a class of this model"),
        ("/predict?top=0", picture(), {}, 400, "whole number from 1"),
        ("/predict?tpo=1", picture(), {}, 400, "unknown 'tpo'"),
        ("/predict", picture(), {"content-type": "multipart/form-data; boundary=x"}, 415, "--data-binary"),
        ("/predict", picture(), {"origin": "https://elsewhere.example"}, 403, "own page"),
        ("/predict", picture(), {"origin": "null"}, 403, "own page"),
        ("/predict", picture(), {"host": "elsewhere.example:8000"}, 403, "'elsewhere.example'"),
    ],
)
def test_what_is_not_answered_says_why(model, path, content, headers, status, says):
    answered = client(model).post(path, content=content, headers=headers)
    assert (answered.status_code, says in answered.json()["error"]) == (status, True), answered.text
    assert "Traceback" not in answered.text
    assert set(HEADERS) <= set(answered.headers)


def test_its_own_page_may_ask_and_other_pages_do_not_exist(model):
    asked = client(model)
    assert asked.post("/predict", content=picture(), headers={"origin": OWN}).status_code == 200
    assert asked.get("/health").json() == {"status": "ready", "arch": "tiny", "classes": 4}
    assert asked.get("/../one_picture.py").status_code == 404
    assert "/predict" in asked.get("/nothing").json()["error"]
    assert asked.get("/predict").status_code == 405


def test_a_body_that_says_no_length_is_cut_off_too(model):
    read = []

    def endless():
        for _ in range(1000):
            read.append(1)
            yield b"x" * 10_000

    assert client(model).post("/predict", content=endless()).status_code == 413


def test_an_address_is_answered_again_after_a_while():
    now = [0.0]
    gate = Gate(Limits(1, per_minute=2, waiting=0), clock=lambda: now[0])
    gate.count("a")
    gate.count("a")
    with pytest.raises(RequestError, match="more than 2 pictures a minute; try again in 30 s") as refused:
        gate.count("a")
    assert (refused.value.status, refused.value.retry_seconds) == (429, 30)
    gate.count("b")
    now[0] = 29.0
    with pytest.raises(RequestError):
        gate.count("a")
    now[0] = 30.0
    gate.count("a")


def test_addresses_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(limiting, "MOST_ADDRESSES", 3)
    gate = Gate(Limits(1, per_minute=1, waiting=0), clock=lambda: 0.0)
    for address in "abcde":
        gate.count(address)
    assert len(gate._left) == 3
    with pytest.raises(RequestError):
        gate.count("e")


def test_a_body_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(limiting, "BODY_SECONDS", 0.01)

    async def slow():
        yield b"a"
        await asyncio.sleep(5)

    with pytest.raises(RequestError, match="did not arrive") as refused:
        asyncio.run(Gate(LOOSE).body(slow(), None))
    assert refused.value.status == 408


def test_one_is_answered_at_a_time_and_only_so_many_wait():
    gate, running, most = Gate(Limits(1, 1, waiting=2)), [], []

    async def one():
        async with gate.turn():
            running.append(1)
            most.append(len(running))
            await asyncio.sleep(0.01)
            running.pop()

    async def all_at_once():
        found = await asyncio.gather(*(one() for _ in range(5)), return_exceptions=True)
        return [getattr(each, "status", None) for each in found]

    async def twice():
        return await all_at_once(), await all_at_once()  # places are free again

    assert asyncio.run(twice()) == ([None, None, None, 503, 503],) * 2
    assert max(most) == 1


def test_a_port_in_use_is_named_before_the_model_is_read():
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as error:
            CliRunner().invoke(cli, ["serve", "nowhere", "--port", str(port)], catch_exceptions=False)
    text = str(error.value)
    assert f"{port} is in use on 127.0.0.1" in text
    assert f"--port {port + 1}" in text


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_that_is_not_this_machines_is_refused(host):
    with pytest.raises(UserError, match="127.0.0.1 for itself alone"):
        serve_verb._listening(host, 0)


def test_without_the_extra_the_line_to_install_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"pip install 'efficientnet-workbench\[serve\]'"):
        CliRunner().invoke(cli, ["serve", "nowhere"], catch_exceptions=False)


def test_only_this_machine_has_names_that_are_checked():
    assert "127.0.0.1" in serve_verb._names_of("127.0.0.1")
    assert serve_verb._names_of("0.0.0.0") is None


def test_ctrl_c_ends_it_and_the_port_is_free_again(saved):
    command = [sys.executable, "-m", "workbench", "serve", str(saved), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in a shell's background, Ctrl-C is ignored by all that they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(address + "/health") as answered:
            assert json.load(answered)["status"] == "ready"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "ended\n")
    serve_verb._listening("127.0.0.1", int(address.rsplit(":", 1)[1])).close()


@pytest.fixture(scope="module")
def address(model):
    listener = serve_verb._listening("127.0.0.1", 0)
    app = build_app(model, Limits(200_000, 1000, 8), frozenset({"127.0.0.1"}))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


def until(found, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_a_person_chooses_a_picture_and_asks_for_another_class_by_keyboard(address, tmp_path, width, dark):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "b.png").write_text("no picture")
    with browser(width, dark=dark) as page:
        find = page.driver.find_element
        page.open(address)
        page.press("\ue004")  # Tab: the first stop is the choice of a file
        assert page.driver.execute_script("return document.activeElement.id") == "file"
        find("id", "file").send_keys(str(tmp_path / "a.png"))
        assert until(lambda: find("id", "result").is_displayed())
        bars = page.driver.find_elements("css selector", "#bars button")
        assert {bar.get_attribute("data-name") for bar in bars} == set(CLASSES)
        bars[1].send_keys("\ue007")  # Enter
        name = bars[1].get_attribute("data-name")
        assert until(lambda: find("id", "mapped").text == name)
        focused = "return document.activeElement.dataset.name + document.activeElement.ariaPressed"
        assert page.driver.execute_script(focused) == name + "true"
        overlay = find("id", "seen").get_attribute("src")
        find("id", "heat").send_keys(" ")
        assert find("id", "seen").get_attribute("src") != overlay
        assert page.lowest_contrasts()[0][0] >= 4.5
        assert page.overflow() <= 0
        assert page.driver.title != "owned"
        assert not page.errors()
        find("id", "file").send_keys(str(tmp_path / "b.png"))
        assert until(lambda: "do not decode" in find("id", "state").text)
        assert not page.outside()


def test_pictures_are_dropped_and_pasted(address):
    script = """
      const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
      const held = new DataTransfer();
      held.items.add(new File([bytes], "a.png", {type: "image/png"}));
      const event = arguments[1] === "drop" ? new DragEvent("drop", {dataTransfer: held, bubbles: true})
        : new ClipboardEvent("paste", {clipboardData: held, bubbles: true});
      document.body.dispatchEvent(event);
    """
    import base64

    with browser() as page:
        for kind in ("drop", "paste"):
            page.open(address)
            page.driver.execute_script(script, base64.b64encode(picture()).decode(), kind)
            assert until(lambda: page.driver.find_element("id", "result").is_displayed()), kind
