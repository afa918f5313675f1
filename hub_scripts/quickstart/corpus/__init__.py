"""The corpus, benchmarks and preference pairs: a voice reads their texts, and the codec encodes the speech."""
