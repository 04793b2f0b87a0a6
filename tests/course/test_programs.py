"""The programs that notebook 04 writes in its cells: they do what its text says, and each fault shows its symptom."""

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

import jupytext
import numpy as np
import pytest
from ranks import run_ranks

from arcface_edu.course.notebook import torchrun

SCRIPT = Path(__file__).parents[2] / "notebooks" / "04_dataparallel_vs_ddp.py"
CELLS = [cell.source for cell in jupytext.read(SCRIPT).cells if cell.cell_type == "code"]
PROGRAMS = {
    Path(first.split()[-1]).name: body
    for first, _, body in (cell.partition("\n") for cell in CELLS)
    if first.startswith("%%writefile")
}


def run_file(path, words):
    """Be `python path words`."""
    sys.argv = [str(path), *map(str, words)]
    runpy.run_path(str(path), run_name="__main__")


def run(tmp_path, name, *words, processes=2, change=("", "")):
    """What rank 0 of a program prints, a line of it changed; or the errors of all ranks, where it fails."""
    assert change[0] in PROGRAMS[name]
    path = tmp_path / name
    path.write_text(PROGRAMS[name].replace(*change))
    more = {"LOCAL_WORLD_SIZE": str(processes)}
    ranks = run_ranks(processes, run_file, path, words, **more)
    if any(rank.status for rank in ranks):
        return "".join(rank.errors for rank in ranks)
    return ranks[0].said


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_averaged_by_hand_is_what_ddp_and_one_process_have(tmp_path, processes):
    said = run(tmp_path, "average.py", processes=processes)
    alone, by_hand, by_ddp = (float(number) for number in re.findall(r"(\S+) from the", said))
    assert alone > 0.1  # else nothing was shown
    assert max(by_hand, by_ddp) < 1e-5


@pytest.mark.slow
def test_without_the_division_the_difference_is_seen(tmp_path):
    said = run(tmp_path, "average.py", change=("p.grad /= world", "pass"))
    _, by_hand, _ = (float(number) for number in re.findall(r"(\S+) from the", said))
    assert by_hand == pytest.approx(1, rel=1e-3)  # 2 g - g


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_a_ring_of_sends_sums_as_all_reduce_does_and_sends_its_share(tmp_path, processes):
    said = run(tmp_path, "ring.py", tmp_path / "rounds.json", processes=processes)
    assert "equal to dist.all_reduce: True" in said
    sent, whole = (int(number.replace(",", "")) for number in re.findall(r"(\d[\d,]+)(?: bytes|:)", said))
    assert sent == pytest.approx(2 * (processes - 1) / processes * whole, rel=1e-5)  # chunks differ by a number at most
    filled = np.array(json.loads((tmp_path / "rounds.json").read_text()))
    assert filled.shape == (2 * processes - 1, processes, processes)
    assert (filled[0] == 1).all() and (filled[-1] == processes).all()
    assert ((filled[1:] != filled[:-1]).sum(axis=2) == 1).all()  # in each step one chunk arrives at each rank


@pytest.mark.slow
def test_a_logit_is_computed_by_the_process_that_has_the_centres(tmp_path):
    there, here = re.findall(r"computed on (\w+): (\S+), ([\d,]+) bytes", run(tmp_path, "rpc.py"))
    assert there == ("rank1", here[1], "512") and here[0] == "rank0" and here[2] == "10,240"


SAMPLER, OUTSIDE = "DistributedSampler(faces)", "DistributedDataParallel(learner.network, broadcast_buffers=False)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "batches", "seen", "same", "apart"),
    [
        (("", ""), 3, (61, 119), True, False),
        ((SAMPLER, "DistributedSampler(faces, num_replicas=1, rank=0)"), 7, (120, 120), True, False),
        (("sampler.set_epoch(epoch)", "pass"), 3, (60, 60), True, False),
        (("    average_statistics(learner)", "    pass"), 3, (61, 119), True, True),
        (
            (
                "model = DistributedDataParallel(learner, broadcast_buffers=False)",
                f"learner.network, model = {OUTSIDE}, learner",
            ),
            3,
            (61, 119),
            False,
            False,
        ),
        (("torch.manual_seed(0)", "torch.manual_seed(rank)"), 3, (61, 119), True, False),
    ],
)
def test_the_program_trains_and_its_audit_tells_each_fault(tmp_path, drawn, change, batches, seen, same, apart):
    said = run(tmp_path, "ddp.py", drawn, change=change)
    assert said.count(f"{batches} batches a rank") == 2, said
    first, second = re.findall(r"rank \d: saw (\d+) images, (.*) rank 0, embeddings (\S+) degrees", said)
    assert all(seen[0] <= int(count) <= seen[1] for count, *_ in (first, second))
    assert first[1:] == ("the same weights as", "0.0")
    assert (second[1] == "the same weights as") == same
    assert (float(second[2]) > 0.1) == apart
    assert (tmp_path / "ddp.pt").exists()


@pytest.mark.slow
def test_a_rank_with_a_batch_fewer_ends_in_a_timeout(tmp_path, drawn):
    program = PROGRAMS["ddp.py"].replace("minutes=10", "seconds=3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROGRAMS, "ddp.py", program)
        said = run(tmp_path, "ddp.py", drawn, change=("in loader:", "in list(loader)[rank:]:"))
    assert "Error" in said and "epoch 0" not in said


@pytest.mark.full
def test_two_torchruns_meet_as_two_machines(tmp_path):
    path = tmp_path / "average.py"
    path.write_text(PROGRAMS["average.py"])
    with contextlib.redirect_stdout(io.StringIO()):
        said = torchrun(str(path), processes=2, machines=2)
    alone, by_hand, by_ddp = (float(number) for number in re.findall(r"(\S+) from the", said))
    assert max(by_hand, by_ddp) < 1e-5 < 0.1 < alone
