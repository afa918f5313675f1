"""The scripts of slam-hf, its recipes, and the command that starts them: `slam-hf`."""
