"""What people see of a run: tables, notes, progress and the report. Everything is made from result rows. Floor 5."""
