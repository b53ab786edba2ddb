"""Files are read quickly, and as OmegaConf reads them."""

import pytest
from omegaconf import OmegaConf

from workbench import shipped
from workbench.specs.errors import UserError

FILES = [*shipped.RECIPES.glob("*.yaml"), *shipped.RECIPES.glob("protocols/*.yaml"), *shipped.CARDS.glob("*.yaml")]
SCALARS = """1e-3 1e5 1E+5 1.5e5 1.e5 1. .5 .5e5 .5e-5 -1e-3 +1e-3 1_0e3 +.inf -.INF .nan 1e 1e-3x e5 2026-11-23
2026-11-23T10:15:00Z 12:30 1:30.5 0x1f 0b11 017 007 1_000 yes off On null ~ True '1e3' "2026-11-23" <<x R&D a!b
""".split()


def by_omegaconf(path):
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


def same(a, b):
    return repr(a) == repr(b)  # types too, and nan


def test_every_shipped_file_reads_as_omegaconf_reads_it():
    assert len(FILES) > 40
    for path in FILES:
        assert same(shipped.read_yaml(path), by_omegaconf(path)), path


@pytest.mark.parametrize("text", SCALARS)
def test_a_value_is_what_omegaconf_takes_it_for(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(f"a: {text}\nb: [{text}, {{c: {text}}}]\n2: x\n")
    assert same(shipped.read_yaml(path), by_omegaconf(path))


@pytest.mark.parametrize(
    "text",
    ["a: &x [1]\nb: *x\n", "a: &x {b: 1}\nc: {<<: *x, d: 2}\n", "a: !!str 1\n", "", "# nothing\n", "<<: {a: 1}\n"],
)
def test_what_is_unusual_is_left_to_omegaconf(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert same(shipped.read_yaml(path), by_omegaconf(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "found duplicate key c"),
        ("a: [1\n", "expected ',' or ']'"),
        ("- a\n", "a list"),
        ("a: &x [*x]\n", "recursive"),
    ],
)
def test_mistakes_are_told(tmp_path, text, told):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        shipped.read_yaml(path)
    assert told in str(error.value)
    assert "a.yaml" in str(error.value)


def test_plain_files_do_not_go_through_omegaconf(monkeypatch):
    shipped._parsed.cache_clear()
    monkeypatch.setattr(OmegaConf, "load", lambda path: pytest.fail(f"{path} is read slowly"))
    for path in FILES:
        shipped.read_yaml(path)
