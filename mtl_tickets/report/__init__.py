"""What people see of a run: tables, notes and progress. Everything is made from result rows. Floor 5."""
