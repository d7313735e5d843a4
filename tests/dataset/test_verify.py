import shutil

import pytest
from mutations import BASES, MUTATIONS, record_base

from recd.config.errors import DatasetError
from recd.daemon.dataset.rules import RULES
from recd.daemon.dataset.verify import check_format, verify_dataset


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {base: record_base(tmp_path_factory.mktemp(base), base) for base in BASES}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_checker_names_the_broken_rule_and_only_then_says_bad(bases, tmp_path, mutation):
    root = tmp_path / "dataset"
    shutil.copytree(bases[mutation.base], root)
    mutation.change(root)
    report = check_format(root)
    broken = {finding.rule.name for finding in report.findings if finding.bad}
    if mutation.expected:
        assert mutation.expected in broken
    else:
        assert broken == set()
    assert report.exit_code == int(bool(mutation.expected))


def test_the_table_of_mutations_has_at_least_thirty_of_known_rules():
    assert len(MUTATIONS) >= 30
    assert {m.expected for m in MUTATIONS} - {""} <= set(RULES)


def test_every_picture_of_a_good_dataset_is_decoded(bases):
    report = verify_dataset(bases["h264"])
    assert (report.exit_code, report.episodes, report.rows, report.decoded) == (0, 4, 27, 54)


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        verify_dataset(tmp_path / "nowhere")
