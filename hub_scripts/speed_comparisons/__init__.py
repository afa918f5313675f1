"""What `benchmark.py` measures, a module each."""
