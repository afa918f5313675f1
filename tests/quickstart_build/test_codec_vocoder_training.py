from quickstart.codec import vocoder_training


def test_vocoder_makes_640_samples_of_a_frame():
    assert vocoder_training.vocoder_config(10).hop_length == 640
