import pytest

from slam_hf.encoding.job_state import check_unclaimed
from slam_hf.folders import open_folder


@pytest.mark.parametrize("name", ["out[1]", "out*", "out?", "out"])
def test_the_name_of_a_folder_is_not_a_pattern(tmp_path, name):
    (tmp_path / name / "data").mkdir(parents=True)
    (tmp_path / name / "data" / "train-0.parquet").touch()
    (tmp_path / name / "README.md").touch()
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "README.md").touch()
    files = open_folder(tmp_path / name)
    assert [*files.glob("data/train-*"), *files.glob("*.md")] == ["data/train-0.parquet", "README.md"]
    with pytest.raises(FileExistsError, match="holds README.md, which this job has not written"):
        check_unclaimed(tmp_path / name, ".codebook/sample", ["config.json", "README.md"])
