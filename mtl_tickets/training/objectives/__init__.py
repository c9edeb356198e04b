"""What is minimised: one small file each.

An objective is a function ``(model, batch) -> sum of the losses of the batch`` (a scalar); the loop divides by
``batch.count``, so that an example weighs the same whatever batch it stands in.
"""
