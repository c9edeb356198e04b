"""A few inputs that nobody has thought of; the script reads ten thousand of each kind."""

import pytest

from tests.scripts.loading import script

fuzz = script("fuzz")


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_no_input_ends_in_another_error_or_hangs(kind, tmp_path):
    found = fuzz.fuzz(kind, 120, tmp_path, first=7)
    assert not found.escaped
    assert found.inputs >= 100 and found.read and sum(found.refused.values()) > found.read
