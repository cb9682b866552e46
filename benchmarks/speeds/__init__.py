"""The parts of `bench.py`, each a function from sizes and a folder to rows of its table."""
