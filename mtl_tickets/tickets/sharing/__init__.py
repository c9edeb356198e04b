"""Sharing: {task: ticket, scores, rows} -> {task: ticket}. Who votes x how votes are weighed x how many units are kept.

A rule is a row of the one operator in :mod:`~mtl_tickets.tickets.sharing.operator`: a settings class that registers
itself in ``RULES``. A new rule is one new file in this folder.
"""

from __future__ import annotations

from typing import Any

from mtl_tickets.registry import Registry
from mtl_tickets.settings import member_of
from mtl_tickets.tickets.sharing.operator import SharingRule

__all__ = ["RULES", "SharingRule", "parse_rule"]

RULES: Registry[type[SharingRule]] = Registry("sharing rule", "mtl_tickets.tickets.sharing")


def parse_rule(value: Any) -> SharingRule:
    """``"majority"``, ``{"kind": "majority", "k": 3}`` or a rule -> the rule.

    Raises :class:`~mtl_tickets.errors.ConfigError` with the nearest names for an unknown rule, and with every problem
    for settings that the rule does not have or accept.
    """
    return member_of(RULES, value)
