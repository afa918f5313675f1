import hashlib
import io
import tarfile

import numpy as np
import pytest
from quickstart.codec import kokoro


def test_kokoro_takes_the_styles_of_a_checked_archive(tmp_path, monkeypatch):
    style = np.arange(510 * 256, dtype=np.float32)
    archive = tmp_path / "kokoro-js-1.2.1.tgz"
    with tarfile.open(archive, "w:gz") as files:
        for name, content in (("package/voices/af_x.bin", style.tobytes()), ("package/README.md", b"read me")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            files.addfile(entry, io.BytesIO(content))
    with pytest.raises(ValueError, match="kokoro-js-1.2.1.tgz has SHA-256"):
        kokoro._load_styles(tmp_path)
    monkeypatch.setattr(kokoro, "STYLES_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    styles = kokoro._load_styles(tmp_path)
    assert list(styles) == ["af_x"]
    np.testing.assert_array_equal(styles["af_x"], style.reshape(510, 1, 256))
