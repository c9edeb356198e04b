import sys
import textwrap

import pytest

from mtl_tickets.errors import InputError, MtlTicketsError
from mtl_tickets.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of members on disk: each file registers itself."""
    folder = tmp_path / "zoo_for_tests"
    folder.mkdir()
    init = """
        from mtl_tickets.registry import Registry
        ANIMALS = Registry("animal", "zoo_for_tests")
        """
    files = {
        "__init__": init,
        "cat": '''
            from zoo_for_tests import ANIMALS
            @ANIMALS.register("cat")
            def cat():
                """Says miaow.

                More about cats."""
            ''',
        "dog": """
            from zoo_for_tests import ANIMALS
            ANIMALS.register("dog")(object())
            ANIMALS.names()  # a member may ask while members are being imported
            """,
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("zoo_for_tests")]:
        del sys.modules[name]


def animals() -> Registry:
    import zoo_for_tests

    return zoo_for_tests.ANIMALS


def test_members_are_found_without_a_list(package):
    assert animals().names() == ["cat", "dog"]
    assert animals().get("cat").__name__ == "cat"
    assert "cat" in animals()
    assert "cow" not in animals()
    assert [name for name, _ in animals()] == ["cat", "dog"]


def test_nothing_is_imported_before_it_is_asked_for(package):
    registry = animals()
    assert "zoo_for_tests.cat" not in sys.modules
    registry.get("dog")
    assert "zoo_for_tests.cat" in sys.modules


def test_a_new_file_is_a_new_member(package):
    (package / "cow.py").write_text("from zoo_for_tests import ANIMALS\nANIMALS.register('cow')(1)\n")
    assert animals().names() == ["cat", "cow", "dog"]


def test_unknown_names_answer_with_the_nearest(package):
    with pytest.raises(InputError, match="unknown animal; found 'cta'; did you mean 'cat'"):
        animals().get("cta")
    for name in (["cat"], None, 3):
        with pytest.raises(InputError, match="unknown animal"):
            animals().get(name)
        assert name not in animals()


def test_a_name_can_be_taken_once(package):
    registry = animals()
    registry.get("cat")
    with pytest.raises(MtlTicketsError, match="animal 'cat' is registered twice"):
        registry.register("cat")(print)


def test_summaries_are_first_lines(package):
    assert animals().summaries()["cat"] == "Says miaow."


def test_a_member_that_cannot_be_imported_is_not_passed_over(package):
    (package / "eel.py").write_text("raise RuntimeError('slippery')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="slippery"):
            animals().names()
