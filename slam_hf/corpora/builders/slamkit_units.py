"""Tokenised corpora in the JSON lines of SlamKit."""

import datasets

from slam_hf.corpora.builders.named_dataset import NamedDataset
from slam_hf.corpora.builders.tables import as_tables
from slam_hf.corpora.json_lines import parse_json_lines
from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES
from slam_hf.corpora.slamkit import from_slamkit


class SlamKitUnits(NamedDataset, datasets.ArrowBasedBuilder):
    """What SlamKit's feature extraction writes, as a tokenised corpus."""

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=UNIT_CORPUS_FEATURES)

    def _split_generators(self, dl_manager):
        files = dl_manager.download(self.config.data_files)
        return [datasets.SplitGenerator(name=split, gen_kwargs={"paths": paths}) for split, paths in files.items()]

    def _generate_tables(self, paths):
        for path_number, path in enumerate(paths):
            with open(path, "rb") as file:
                yield from as_tables(path_number, parse_json_lines(file, path, from_slamkit), UNIT_CORPUS_FEATURES)
