from collections import Counter, defaultdict

from quickstart import italian

from slam_hf.encoding.manifest import read_manifest


def test_two_voices_tell_each_story(tmp_path, monkeypatch):
    spoken = []
    monkeypatch.setattr(italian.subprocess, "run", lambda command, check: spoken.append(command))
    italian.record(tmp_path)
    speakers = defaultdict(set)
    recordings = read_manifest(tmp_path / "manifest.jsonl", label_columns={"speaker": "speaker"})
    for recording in recordings:
        assert recording.audio == str(tmp_path / f"{recording.id}.wav")
        speakers[recording.text].add(recording.speaker)
    assert len(recordings) == len(spoken) == 2 * italian.NUM_STORIES
    assert len({recording.id for recording in recordings}) == len(recordings)
    assert all(len(voices) == 2 for voices in speakers.values())
    assert {*Counter(recording.speaker for recording in recordings).values()} <= {24, 25, 26}
    assert {(str(command[-2]), command[-1]) for command in spoken} == {(r.audio, r.text) for r in recordings}
