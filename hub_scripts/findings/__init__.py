"""The parts of `hub_scripts/reproduce_findings.py`."""
