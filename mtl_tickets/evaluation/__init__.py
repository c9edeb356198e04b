"""Per-task evaluation, records, and the yardsticks that stand beside every score. Floor 3."""
