"""Studies: a grid of settings x seeds -> runs of one experiment, compared. Floor 5."""

from mtl_tickets.study.plan import Point, Study, StudySettings, load_study

__all__ = ["Point", "Study", "StudySettings", "load_study"]
