"""The parts of `build_quickstart.py`: one idea each, in the order in which the data flows through them."""
