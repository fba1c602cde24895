"""tools/page.py: what is said before a page is served, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError
from tests.engine.runs import STEM, YAML_OPTIONS, as_yaml, environment  # noqa: F401
from tests.prediction.test_predictor import save_weights
from tests.processes import with_root
from tests.tools.programs import load

pytestmark = pytest.mark.usefixtures("environment")
CONFIG = STEM + ".yaml"


@pytest.fixture
def weights(tmp_path):
    return save_weights(load_config(CONFIG, as_yaml(YAML_OPTIONS)), tmp_path / "weights.pth")


@pytest.fixture
def page(root, monkeypatch):
    """Returns ``page(*words)``: runs the tool, which must not come to serve anything."""
    monkeypatch.syspath_prepend(str(root / "tools"))
    tool = load(root, "page")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["page.py", "--config-file", CONFIG, *map(str, words)])
        tool.main()

    return run


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_mistakes_are_one_line(page, weights):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127.0.0.1, port {port} \(Address already in use\)"):
            page("--weights", "none.pth", "--port", port)  # said before weights are read
    port = ("--port", free_port())
    with pytest.raises(UsageError, match=r"none\.pth"):
        page("--weights", "none.pth", *port)
    with pytest.raises(UsageError, match=r"--compare .*: this is the first model once more"):
        page("--weights", weights, *port, "--compare", CONFIG, weights)


@pytest.mark.slow
def test_it_serves_until_it_is_ended(root, weights, tmp_path):
    port = free_port()
    words = ["--config-file", CONFIG, "--weights", weights, "--device", "cpu", "--port", port]
    process = subprocess.Popen(
        [sys.executable, "tools/page.py", *map(str, words), "--opts", *as_yaml(YAML_OPTIONS)],
        cwd=root,
        env=with_root(root, TMPDIR=str(tmp_path), http_proxy="http://127.0.0.1:9"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line == f"the page is at http://127.0.0.1:{port}/ until Ctrl+C\n"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        html = direct.open(f"http://127.0.0.1:{port}/").read().decode()
        assert "dnl_r18w32-d8_4k_camvid-240x320" in html
        assert "fonts.googleapis" not in html
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(tmp_path) == ["weights.pth"]  # nothing is left behind
