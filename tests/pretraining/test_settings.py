"""Settings say no early, and cost nothing to import."""

import subprocess
import sys

import pydantic
import pytest

from mtl_tickets.pretraining import PretrainSettings


def test_help_needs_no_torch():
    script = (
        "import sys, mtl_tickets.pretraining.settings, mtl_tickets.pretraining.encoders as e; e.ENCODERS.summaries();"
        "sys.exit(bool({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"text": []}, "at least 1"),
        ({"text": ["a"], "shape": {"hidden": 10, "heads": 3}}, "10 is no multiple of 3"),
        ({"text": ["a"], "start": "x", "shape": {"layers": 2}}, "not both"),
        ({"text": ["a"], "length": 64, "shape": {"positions": 32}}, "64 > 32"),
        ({"text": ["a"], "mask_share": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, rule):
    with pytest.raises(pydantic.ValidationError, match=rule):
        PretrainSettings.model_validate(settings)
