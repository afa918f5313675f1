"""What the codec encodes: a corpus, benchmarks and preference pairs, as a voice reads their texts."""
