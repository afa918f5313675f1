"""A page in which anyone can hear a speech language model: `hub_scripts/demo.py` opens it; a Space is one."""
