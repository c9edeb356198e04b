"""The one training loop, its optimisers, checkpoints and rewinding. Floor 3: knows models and batches, no recipes."""
