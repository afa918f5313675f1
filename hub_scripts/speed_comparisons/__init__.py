"""The comparisons of `hub_scripts/speed.py`, a module each."""
