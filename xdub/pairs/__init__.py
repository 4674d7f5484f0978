"""The pair factory (paper 3.1.2, B.3): a generator turns each clip V into (V', V), V' with other lips."""
