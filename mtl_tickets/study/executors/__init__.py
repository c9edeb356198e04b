"""Who does the runs of a study. A new one is a file here that registers itself."""
