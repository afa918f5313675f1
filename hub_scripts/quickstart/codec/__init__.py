"""The codec: speech of many voices, a teacher, the student, its codebook and the vocoder."""
