"""Plugins: found by name, built with checked options, and what is missing is told."""

from pathlib import Path

import pytest

from isekai import plugins
from isekai.errors import IsekaiError, PluginError

PLUGIN = Path(__file__).parent / "data" / "plugin"


@pytest.fixture(autouse=True)
def _stranger(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)


def test_a_strangers_source_is_found_beside_the_built_in_ones():
    assert {"folder", "procedural", "tiny"} <= set(plugins.names("sources"))
    assert plugins.load("sources", "tiny").__name__ == "TinySource"


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(PluginError, match="no source is called 'foldr'; did you mean 'folder'"):
        plugins.load("sources", "foldr")
    with pytest.raises(PluginError, match=r"no model is called 'zzz'; known: .*chance"):
        plugins.load("adapters", "zzz")


def test_options_are_read_by_the_types_they_are_declared_with():
    tiny = plugins.build("sources", "tiny", plugins.options(["tone=9", "die=a/b", "wait=1"]))
    assert tiny.settings == {"tone": 9}
    assert tiny._die == Path("a/b")
    assert plugins.build("sources", "tiny:0.5")._wait == 0.5


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("tiny", ["tonne=9"], "source 'tiny' has no option 'tonne'; did you mean 'tone'"),
        ("tiny", ["tone=dark"], "option tone='dark': Input should be a valid integer"),
        ("tiny:1", ["wait=2"], "'wait' is given twice"),
        ("folder", [], "source 'folder' needs the option 'path'"),
    ],
)
def test_a_wrong_option_is_told(name, options, told):
    with pytest.raises(PluginError, match=told):
        plugins.build("sources", name, plugins.options(options))


def test_options_keep_what_a_number_would_lose():
    pairs = ["a=1", "b=0.5", "c=true", "d=[1, 2]", "e=1e10", "f=2024-01-01", "g=a=b", 'h="4"', "i="]
    assert plugins.options(pairs) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": [1, 2],
        "e": "1e10",
        "f": "2024-01-01",
        "g": "a=b",
        "h": "4",
        "i": "",
    }
    for pair in ("novalue", "=1", "a b=1"):
        with pytest.raises(IsekaiError, match="not of the form key=value"):
            plugins.options([pair])


def test_a_missing_package_names_the_extra_to_install():
    timm = ModuleNotFoundError("No module named 'timm'", name="timm.layers")
    assert str(plugins.missing(timm, "embedder 'lite0'")).endswith(
        "needs the package 'timm': pip install 'isekai-bench[lite0]'"
    )
    other = ModuleNotFoundError("No module named 'left_pad'", name="left_pad")
    assert str(plugins.missing(other, "source 'x'")).endswith("pip install left_pad")


def test_a_missing_module_of_our_own_is_a_bug():
    own = ModuleNotFoundError("No module named 'isekai.nothing'", name="isekai.nothing")
    with pytest.raises(ModuleNotFoundError):
        plugins.missing(own, "source 'x'")
