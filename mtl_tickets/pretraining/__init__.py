"""Masked-language-model pre-training on plain text, and the encoders that were or are made with it.

Importing this package or its ``settings`` loads no torch; ``pretrain`` and ``mlm`` do.
"""

from mtl_tickets.pretraining.settings import PretrainSettings, ShapeSettings

__all__ = ["PretrainSettings", "ShapeSettings"]
