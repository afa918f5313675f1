from pathlib import Path

import pytest

from slam_hf.public_names import check_license, is_local, public_name
from slam_hf.quickstart import QUICKSTART


@pytest.mark.parametrize("name", ["slam", "slprl/slam", "org/my.model-2_b", "quickstart:corpus", "quickstart:a/b/c"])
def test_names_that_others_know_stay(name):
    assert public_name(name) == name
    assert not is_local(name)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/jane/secret/my model", "my model"),
        ("/home/jane/secret/model/", "model"),
        ("outputs/deleted/model", "model"),
        ("./model", "model"),
        ("../secret/model", "model"),
        ("~/secret/model", "model"),
        (r"C:\Users\jane\model", "model"),
        ("quickstart:../../secret/model", "model"),
        ("/home/jane/run/checkpoint-5", "run/checkpoint-5"),
        ("/checkpoint-5", "checkpoint-5"),
        ('/secret/x"); import os #', "x-)- import os -"),
        ("/secret/<img src=x>`|\n{{ 1 }}", "-img src-x- 1 -"),
        ("/", "unnamed"),
    ],
)
def test_of_a_path_the_last_part_is_left(path, name):
    assert public_name(path) == name
    assert is_local(path)


def test_a_folder_is_local_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("org/model").mkdir(parents=True)
    Path("quickstart:corpus").mkdir()
    assert public_name("org/model") == "model"
    assert public_name("org/model", revision="0123abcd") == "org/model"
    assert public_name(tmp_path) == tmp_path.name
    assert public_name("") == ""
    Path("link").symlink_to("org/model")
    assert public_name("link") == "model"


def test_what_comes_with_the_package_has_its_name_there():
    assert public_name(QUICKSTART / "benchmarks" / "sblimp") == "quickstart:benchmarks/sblimp"
    assert public_name(f"{QUICKSTART}/codec/") == "quickstart:codec"


@pytest.mark.parametrize("license", [None, "mit", "apache-2.0", "cc-by-nc-sa-4.0", "llama3.2", "other", "lgpl-lr"])
def test_licences_of_the_hub(license):
    check_license(license)


@pytest.mark.parametrize(
    "license", ["", "MIT", "mit\n", "mit\ntags: [x]", "mit`", "<b>mit</b>", "{{ 1 }}", "a: b", "-mit", "m" * 65]
)
def test_other_licences_are_refused(license):
    with pytest.raises(ValueError, match="is not a licence of the Hub"):
        check_license(license)
