"""Tokenised corpora in the JSON lines of SlamKit."""

from slam_hf.corpora.builders.bases import TablesOfRows
from slam_hf.corpora.json_lines import parse_json_lines
from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES
from slam_hf.corpora.slamkit import from_slamkit


class SlamKitUnits(TablesOfRows):
    """What SlamKit's feature extraction writes, as a tokenised corpus."""

    FEATURES = UNIT_CORPUS_FEATURES

    def read_rows(self, file, name):
        return parse_json_lines(file, name, from_slamkit)
