"""Builds what `slam_hf/quickstart` embeds: a codec, a corpus, preference pairs and benchmarks."""
