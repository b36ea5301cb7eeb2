"""keras.json: what is read, when, and that no file can stop or slow a program, nor is one ever written."""

import json
import os
import subprocess
import sys
import threading

import pytest

import dwconv
from dwconv import _keras_config


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty folder in the place of ~/.keras, and no warning given yet."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(_keras_config, "_warned", set())
    return tmp_path


def write(home, content):
    (home / "keras.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def made():
    return dwconv.DepthwiseConv2D(3).data_format


def test_missing_file_is_channels_last_without_a_warning(home):
    assert made() == "channels_last"
    assert not any(home.iterdir())


@pytest.mark.parametrize("value", ["channels_last", "channels_first"])
def test_setting_is_read_when_a_layer_is_made(home, value):
    write(home, {"floatx": "float32", "epsilon": 1e-07, "backend": "tensorflow", "image_data_format": value})
    assert made() == value
    assert dwconv.DepthwiseConv2D(3, data_format="channels_last").data_format == "channels_last"
    (home / "keras.json").unlink()
    assert made() == "channels_last"


def test_other_settings_are_ignored(home):
    write(home, {"floatx": "float8", "epsilon": "x", "backend": "nope"})
    assert made() == "channels_last"
    assert dwconv.DepthwiseConv2D(3).dtype == "float32"


def test_function_and_explicit_layers_do_not_read_it(home, monkeypatch):
    monkeypatch.setattr(_keras_config, "_read", None)  # fails if used
    layer = dwconv.DepthwiseConv2D(2, data_format="channels_first")
    assert layer.data_format == "channels_first"
    assert dwconv.DepthwiseConv2D.from_config(layer.get_config()).data_format == "channels_first"


BROKEN = {
    "empty": b"",
    "no JSON": b"{",
    "list": b"[]",
    "string": b'"channels_first"',
    "null": b"null",
    "number": b"3",
    "byte order mark": b'\xef\xbb\xbf{"image_data_format": "channels_first"}',
    "latin-1": b'{"\xe9": 1}',
    "zeros": bytes(100),
    "deep": b"[" * 500_000,
    "long integer": b"1" * 100_000,
    "unknown value": b'{"image_data_format": "nhwc"}',
    "capitals": b'{"image_data_format": "Channels_First"}',
    "null value": b'{"image_data_format": null}',
    "list value": b'{"image_data_format": ["channels_first"]}',
    "long value": b'{"image_data_format": "' + b"x" * 100_000 + b'"}',
    "too large": b'{"image_data_format": "channels_first"}' + b" " * 2**20,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_file_gives_channels_last_and_one_warning(home, content):
    write(home, content)
    with pytest.warns(UserWarning, match=r"keras\.json' is ignored") as record:
        assert made() == "channels_last"
    assert len(record) == 1
    assert record[0].filename == __file__
    assert len(str(record[0].message)) < 500
    assert made() == "channels_last"  # a second warning would be an error
    assert (home / "keras.json").read_bytes() == content


def special(home, kind):
    path = home / "keras.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "loop of links":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse file of 1 GB":
        with open(path, "wb") as file:
            file.truncate(2**30)
    else:
        path.write_text("{}")
        path.chmod(0)


@pytest.mark.skipif(os.name != "posix", reason="needs FIFOs and links")
@pytest.mark.parametrize("kind", ["directory", "FIFO", "loop of links", "device", "sparse file of 1 GB", "unreadable"])
def test_what_is_no_readable_file_does_not_block(home, kind):
    if kind == "unreadable" and os.getuid() == 0:
        pytest.skip("root reads everything")
    special(home, kind)
    results = []

    def work():
        with pytest.warns(UserWarning, match="is ignored"):
            results.append(made())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert results == ["channels_last"]


def test_link_to_a_file_is_followed(home):
    (home / "elsewhere").write_text('{"image_data_format": "channels_first"}')
    (home / "keras.json").symlink_to(home / "elsewhere")
    assert made() == "channels_first"


def test_keras_home_may_be_empty_relative_or_below_the_users_home(home, monkeypatch):
    write(home, {"image_data_format": "channels_first"})
    monkeypatch.chdir(home)
    for value in ("", "."):
        monkeypatch.setenv("KERAS_HOME", value)
        assert made() == "channels_first"
    monkeypatch.setenv("HOME", str(home.parent))
    monkeypatch.setenv("USERPROFILE", str(home.parent))
    monkeypatch.setenv("KERAS_HOME", f"~/{home.name}")
    assert made() == "channels_first"
    monkeypatch.setenv("KERAS_HOME", str(home / "not there"))
    assert made() == "channels_last"
    assert not (home / "not there").exists()


def test_default_folder_is_dot_keras(home, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert made() == "channels_last"
    assert not any(home.iterdir())
    (home / ".keras").mkdir()
    write(home / ".keras", {"image_data_format": "channels_first"})
    assert made() == "channels_first"


def test_import_reads_nothing(home):
    write(home, b"{")
    code = "import dwconv, dwconv.layer; print('quiet')"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, "quiet\n"), run.stderr
