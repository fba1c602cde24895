"""Files are fetched once, go on where they were cut off, and are whole or not there."""

import errno
import hashlib
import logging
import multiprocessing
import random
import time

import pytest

from dnl_d2.checkpoint import download
from dnl_d2.checkpoint.download import fetch
from dnl_d2.errors import UsageError
from dnl_d2.files import WriteError
from tests.servers import serving

CONTENT = random.Random(0).randbytes(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()[:8]
OTHER = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        server.files["/w.pth"] = CONTENT
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "w.pth"


def names(path):
    return sorted(file.name for file in path.parent.iterdir() if file.suffix != ".lock")


def test_a_file_is_fetched_once(server, path):
    for _ in range(2):
        assert fetch(f"{server.url}/w.pth", str(path), sha256=SHA) == str(path)
    assert path.read_bytes() == CONTENT
    assert names(path) == ["w.pth"]
    assert server.asked == [("/w.pth", "")]


def test_it_goes_on_where_the_connection_was_cut_off(server, path, caplog):
    server.cuts = [1_000_000, 500_000]
    fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["", "bytes=1000000-", "bytes=1500000-"]
    assert "cut off after 1000000 of 3000000 bytes" in caplog.text


def test_it_goes_on_from_what_an_earlier_process_left(server, path):
    path.parent.mkdir()
    path.with_name("w.pth.part").write_bytes(CONTENT[:1234])
    fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert server.asked == [("/w.pth", "bytes=1234-")]
    assert names(path) == ["w.pth"]


def test_a_server_that_knows_no_ranges_is_asked_for_the_whole_file(server, path):
    server.ranges = False
    server.cuts = [1_000_000]
    fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize("left", [OTHER[:1000], OTHER, OTHER + b"more"])
def test_a_beginning_of_another_file_is_thrown_away(server, path, left):
    path.parent.mkdir()
    path.with_name("w.pth.part").write_bytes(left)
    fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == ("/w.pth", "")


def test_a_file_that_changes_meanwhile_is_fetched_anew(server, path, monkeypatch):
    server.files["/w.pth"] = OTHER
    server.cuts = [1_000_000]

    def change(seconds):
        server.files["/w.pth"] = CONTENT

    monkeypatch.setattr(download.time, "sleep", change)  # before the next attempt
    fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["", "bytes=1000000-", ""]


def test_a_whole_part_is_not_fetched_again(server, path):
    path.parent.mkdir()
    path.with_name("w.pth.part").write_bytes(CONTENT)
    fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert server.asked == [("/w.pth", "bytes=3000000-")]


def test_another_file_is_deleted(server, path):
    server.files["/w.pth"] = OTHER
    with pytest.raises(UsageError, match=rf"/w.pth is not the published file .* {SHA}\.\.\.") as e:
        fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert "\n" not in str(e.value)
    assert names(path) == []


def test_a_file_put_there_by_hand_is_checked(server, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:1/w.pth", str(path), sha256=SHA) == str(path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UsageError, match=r"w.pth is not the published file .*: delete it"):
        fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert path.exists() and not server.asked


def test_without_a_hash_nothing_is_resumed(server, path):
    path.parent.mkdir()
    path.with_name("w.pth.part").write_bytes(OTHER[:1000])
    server.cuts = [1_000_000]
    fetch(f"{server.url}/w.pth", str(path))
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["", ""]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{}/nowhere.pth", "404"),
        ("http://127.0.0.1:1/w.pth", "refused"),
        ("http://no.such.host.invalid/w.pth", ".*"),
        ("nonsense/w.pth", "unknown url type"),
        ("file:///no/such/file.pth", "No such file"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_with_address_and_target(server, path, url, reason):
    url = url.format(server.url)
    with pytest.raises(UsageError, match=rf"cannot be fetched \(.*{reason}.*\): download") as error:
        fetch(url, str(path), sha256=SHA)
    assert str(error.value).startswith(url) and str(error.value).endswith(f"put it at {path}")
    assert "\n" not in str(error.value)
    assert names(path) == []


def test_a_connection_that_brings_nothing_is_given_up(server, path):
    server.cuts = [1_000_000, *[0] * 9]
    with pytest.raises(UsageError, match=r"cut off after 1000000 of 3000000 bytes\): download it"):
        fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert len(server.asked) == 2
    assert names(path) == ["w.pth.part"]  # the next run goes on from it


def test_a_web_page_is_no_file(server, path):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(UsageError, match="the answer is a web page"):
        fetch(f"{server.url}/w.pth", str(path))
    assert names(path) == []


def test_a_full_disk_is_no_fault_of_the_network(server, path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_write", full)
    with pytest.raises(WriteError, match=r"w.pth: cannot be written \(No space left on device\)"):
        fetch(f"{server.url}/w.pth", str(path), sha256=SHA)


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(WriteError, match=r"w.pth: cannot be written \(Not a directory\)"):
        fetch(f"{server.url}/w.pth", str(tmp_path / "cache" / "w.pth"), sha256=SHA)


def test_a_mirror_may_be_a_folder(tmp_path, path):
    (tmp_path / "w.pth").write_bytes(CONTENT)
    fetch(f"file://{tmp_path}/w.pth", str(path), sha256=SHA)
    assert path.read_bytes() == CONTENT


def test_processes_fetch_it_once(server, path):
    context = multiprocessing.get_context("fork")
    arguments = (f"{server.url}/w.pth", str(path))
    processes = [
        context.Process(target=fetch, args=arguments, kwargs={"sha256": SHA}) for _ in "ab"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_killed_process_is_no_hindrance(server, path):
    server.hold.clear()
    arguments = (f"{server.url}/w.pth", str(path))
    context = multiprocessing.get_context("fork")
    process = context.Process(target=fetch, args=arguments, kwargs={"sha256": SHA})
    process.start()
    part = path.with_name("w.pth.part")
    end = time.monotonic() + 20
    while (not part.exists() or not part.stat().st_size) and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.join(20)
    server.hold.set()
    assert names(path) == ["w.pth.part"]
    fetch(*arguments, sha256=SHA)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1][1].startswith("bytes=")


def test_a_bar_is_drawn_on_a_terminal_only(server, path, capsys, monkeypatch):
    fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert capsys.readouterr().err == ""
    path.unlink()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert "w.pth: " in capsys.readouterr().err


def test_the_log_says_what_is_fetched(server, path, caplog):
    with caplog.at_level(logging.INFO):
        fetch(f"{server.url}/w.pth", str(path), sha256=SHA)
    assert f"fetching {server.url}/w.pth to {path}" in caplog.text
