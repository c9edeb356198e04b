"""The published code's defects, each as a switch, for who wants its numbers."""

from __future__ import annotations

from typing import Any

import pydantic

from mtl_tickets.settings import Settings


class Compat(Settings):
    """Base: switches of which ``compat: reference`` is all."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return dict.fromkeys(cls.model_fields, True) if value == "reference" else value


class CompatSettings(Compat):
    """Published defects that change numbers (METHODS 1.8), off by default. ``compat: reference`` is all of them.

    Optimiser, epochs and batch size are no defects: ``glue_base_reference.yaml`` sets the published ones. Defect 10
    (weight decay of dropped units) is not repeated: it changes no output of a masked model.
    """

    accumulate_gate_gradients: bool = pydantic.Field(False, description="defect 1: gate gradients are never zeroed")
    random_with_replacement: bool = pydantic.Field(
        False, description="defects 2-4: random tickets are lighter, miss layers, protect no head"
    )
    fixed_batches: bool = pydantic.Field(False, description="defect 5: the same batches in every epoch")
    selection_on_dev: bool = pydantic.Field(False, description="defect 6: rungs chosen on the reported dev set")
    floored_remaining: bool = pydantic.Field(
        False, description="defect 8: remaining parameters from floored average counts"
    )
    drop_long_rows: bool = pydantic.Field(False, description="training rows above max_length dropped (METHODS 1.6)")
