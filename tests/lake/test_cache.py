from pathlib import Path

from lake.cache import cache_folder


def test_downloads_go_to_the_folder_given_or_the_environments_or_the_homes(monkeypatch, tmp_path):
    monkeypatch.delenv("LAKEHOSE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/lakehose")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/lakehose")
    monkeypatch.setenv("LAKEHOSE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder(Path("/given")) == Path("/given")
