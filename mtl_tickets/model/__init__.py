"""The encoder and its gates: where units live, switching them per example, removing them, storing the result."""
