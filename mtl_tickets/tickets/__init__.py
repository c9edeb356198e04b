"""Floor 1: unit spaces, tickets, scores, draws, overlap and sharing. Values and arithmetic; no model, no data.

numpy only: showing and comparing tickets must not wait for torch.
"""
