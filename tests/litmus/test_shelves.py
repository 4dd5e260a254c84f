"""Finding and loading the packaged tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pageherd.errors import LitmusError
from pageherd.litmus import load, names
from pageherd.litmus.shelves import load_file, paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    texts = {
        "basics/one.litmus": "test one\nshelf basics\nprocesses P\nP: exit\n",
        "basics/two.litmus": "# variant no {\ntest two\nshelf basics\nprocesses P\n"
        "variant hot {\n}\nvariant base {\n}\nprepare\nP: exit\n",
        "cow/three.litmus": "test three\nshelf cow\nprocesses P\n"
        "variant x {\n}\nvariant y {\n}\nprepare\nP: exit\n",
        "cow/four.litmus": "test fore\nshelf cow\nprocesses P\nP: exit\n",
        "cow/five.litmus": "test five\nshelf basics\nprocesses P\nP: exit\n",
        "cow/notes.txt": "not a test",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_names_are_known_without_parsing(root: Path) -> None:
    assert names(root) == ["one", "two/hot", "two", "five", "four", "three/x", "three/y"]


@pytest.mark.parametrize(
    ("test_id", "name", "variant"),
    [
        ("one", "one", "base"),
        ("two", "two", "base"),
        ("two/hot", "two", "hot"),
        ("two/base", "two", "base"),
        ("three", "three", "x"),
        ("three/y", "three", "y"),
    ],
)
def test_loading(root: Path, test_id: str, name: str, variant: str) -> None:
    loaded = load(test_id, root=root)
    assert (loaded.test.name, loaded.variant) == (name, variant)
    assert loaded.test.id_of(variant) in names(root)


@pytest.mark.parametrize(
    ("test_id", "hint"),
    [("tow", "two"), ("three/z", "three/y"), ("two/hat", "two/hot"), ("One", "one")],
)
def test_an_unknown_id(root: Path, test_id: str, hint: str) -> None:
    with pytest.raises(LitmusError) as caught:
        load(test_id, root=root)
    assert f"no test named '{test_id}'" in str(caught.value)
    assert f"did you mean '{hint}'?" in str(caught.value)


def test_the_file_must_be_where_it_says(root: Path) -> None:
    with pytest.raises(LitmusError, match="the file is named 'four', the test 'fore'"):
        load("four", root=root)
    with pytest.raises(LitmusError, match="in folder 'cow', but its shelf is 'basics'"):
        load("five", root=root)


def test_one_name_on_two_shelves(root: Path) -> None:
    (root / "cow" / "one.litmus").write_text("test one\n", encoding="utf-8")
    with pytest.raises(LitmusError, match="test 'one' is also in"):
        names(root)


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_every_packaged_test_is_well_formed(path: Path) -> None:
    assert set(load_file(path).ids) <= set(names())
