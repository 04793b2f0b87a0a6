"""The list of deliberate faults stands up to the code of today; `make mutants` tries them."""

from collections import Counter

import pytest
from mutants import MUTANTS, ROOT


def test_no_two_faults_have_one_name():
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    assert len(MUTANTS) >= 30


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_can_still_be_put_in_and_has_a_test_to_notice_it(mutant):
    code = (ROOT / "arcface_edu" / mutant.path).read_text()
    assert code.count(mutant.old) == 1, f"{mutant.path} holds this {code.count(mutant.old)} times: {mutant.old}"
    compile(code.replace(mutant.old, mutant.new), mutant.path, "exec")
    assert code.replace(mutant.old, mutant.new) != code
    assert mutant.tests
    for test in mutant.tests.split():
        path, *names = test.split("::")
        text = (ROOT / "tests" / path).read_text()
        assert all(f"def {name}(" in text for name in names), f"{path} holds no {names}"
