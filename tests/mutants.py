"""Small deliberate faults, each of which some test has to notice: what none notices, no test proves.

    make mutants                      every fault, in a few minutes on two cores
    make mutants ARGS="margin unpick" the faults with one of these words in their name

A fault is put into a copy of the tree, the tests that should notice it run there, and it is taken out again. A new
capability brings its faults along. When one survives, a test is missing or too weak; the fault is right as it is.
"""

import multiprocessing
import os
import queue
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("arcface_edu", "tests", "notebooks", "pyproject.toml")  # what the tests below read
WORKERS = 2
TIMEOUT = 300  # seconds for the tests of one fault
QUIET = ["-x", "-q", "--no-header", "--tb=line", "-pno:cacheprovider", "-pno:xdist"]

# Each run of tests is a new process, forked from a server that has imported PyTorch once.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "torchvision", "torch.distributed.checkpoint", "matplotlib.pyplot", "pytest"])


class Mutant(NamedTuple):
    """A fault: `old`, which stands once in the package's file `path`, becomes `new`, and `tests` should notice."""

    name: str
    path: str
    old: str
    new: str
    tests: str  # files of tests and tests in them, between blanks, below tests/


MUTANTS = [
    # --- notebooks 04 and 07
    Mutant(
        "faces that were not found are left out without a word",
        "course/orl.py",
        "            if broken:\n",
        "            if False:\n",
        "course/test_orl.py",
    ),
    Mutant(
        "one message for each gradient passes as one for all",
        "course/checks/parallel.py",
        "None if sent == 1 else",
        "None if sent >= 1 else",
        "course/test_checks_parallel.py",
    ),
    # --- the course's checks
    Mutant(
        "a plain tower that still guesses passes its check",
        "course/checks/resnet.py",
        "if not loss.item() < 0.1:",
        "if not loss.item() < 10:",
        "course/test_checks_resnet.py",
    ),
    Mutant(
        "a threshold that accepts one stranger too many is right",
        "course/checks/problem.py",
        "if accepted == round(far * count):",
        "if accepted <= round(far * count) + 1:",
        "course/test_checks_problem.py",
    ),
    # --- the margin and the heads
    Mutant(
        "angular margin with the wrong sign",
        "heads/margins.py",
        "m1 * torch.acos(cosine) + m2",
        "m1 * torch.acos(cosine) - m2",
        "heads/test_margins.py",
    ),
    Mutant(
        "cosine margin dropped",
        "heads/margins.py",
        "torch.acos(cosine) + m2) - m3",
        "torch.acos(cosine) + m2)",
        "heads/test_margins.py",
    ),
    Mutant(
        "margin: cosines that rounding leaves beyond 1 become nan",
        "heads/margins.py",
        "margin_formula(cosine.clamp(-1, 1), margin)",
        "margin_formula(cosine, margin)",
        "heads/test_margins.py",
    ),
    Mutant(
        "margin: exact gradient rewards a worse angle past pi",
        "heads/margins.py",
        "torch.where(cosine > turn, logit,",
        "torch.where(cosine > -2, logit,",
        "heads/test_margins.py",
    ),
    Mutant(
        "margin on all classes",
        "heads/margin_softmax.py",
        "logsigmoid(logits - math.log(2) * negatives_lse)",
        "logsigmoid(logits - self.scale * target_logit(negatives_lse / radius, self.margin))",
        "heads/test_softmax.py",
    ),
    Mutant(
        "scale left out of the target logit",
        "heads/margin_softmax.py",
        "logits = scale * self.target_logit(",
        "logits = self.target_logit(",
        "heads/test_softmax.py",
    ),
    Mutant(
        "logged angle is that with the margin",
        "heads/margin_softmax.py",
        "self.penalty(norms), cosine.detach()",
        "self.penalty(norms), (logits / scale).detach()",
        "heads/test_softmax.py::test_target_cosine_is_without_margin",
    ),
    Mutant(
        "running maximum of the chunks not taken into account",
        "heads/chunked.py",
        "running_sum.mul_(torch.exp2(running_max - new_max)).add_(",
        "running_sum.add_(",
        "heads/test_chunked.py",
    ),
    Mutant(
        "gradient of a centre keeps its part along the centre",
        "heads/chunked.py",
        "grad_centres.addcmul_(centres, along[:, None], value=-1)",
        "grad_centres.addcmul_(centres, along[:, None], value=0)",
        "heads/test_chunked.py",
    ),
    Mutant(
        "filtered classes still get a gradient",
        "heads/chunked.py",
        "slope.masked_fill_(logits <= self.limit, 1)",
        "slope.fill_(1)",
        "heads/test_chunked.py",
    ),
    Mutant(
        "every sub-centre gets the gradient of the nearest",
        "heads/chunked.py",
        "zeros.scatter_(1, nearest[:, None], grad[:, None])",
        "zeros.add_(grad[:, None])",
        "heads/test_heads.py::test_loss_and_every_gradient_equal_the_formula",
    ),
    Mutant(
        "negatives are hard beside the target without its margin",
        "heads/hard_negatives.py",
        "limit = radius * self.target_logit(cosine, cosine)",
        "limit = radius * cosine",
        "heads/test_heads.py::test_loss_and_every_gradient_equal_the_formula",
    ),
    Mutant(
        "the gradient of a length counted once a rank",
        "heads/sharding.py",
        "return value if world_size == 1 else",
        "return value if world_size else",
        "heads/test_heads.py::test_loss_and_every_gradient_equal_the_formula",
    ),
    Mutant(
        "elastic margins begin anew at a resume",
        "heads/elasticface.py",
        "self.samples_drawn, self.steps = state.tolist()",
        "self.samples_drawn, _ = state.tolist()",
        "heads/test_heads.py::test_what_a_head_remembers_is_in_its_state",
    ),
    # --- classes spread over ranks
    Mutant(
        "factor of the world size dropped",
        "heads/sharding.py",
        "own[: ctx.sizes[dist.get_rank()]] * len(ctx.sizes), None, None",
        "own[: ctx.sizes[dist.get_rank()]], None, None",
        "heads/test_partial_fc.py::test_behind_ddp_a_backbone_gets_the_gradient_of_one_process",
    ),
    Mutant(
        "factor of the world size dropped in plain softmax",
        "heads/softmax.py",
        "total * dist.get_world_size() / count",
        "total / count",
        "heads/test_softmax.py::test_plain_softmax_on_ranks_with_unlike_batches_is_that_of_one_process",
    ),
    Mutant(
        "classes of the last shard lost",
        "heads/margin_softmax.py",
        "share = -(-num_classes // self.world_size)",
        "share = num_classes // self.world_size",
        "heads/test_partial_fc.py::test_loss_and_every_gradient_equal_the_plain_version",
    ),
    Mutant(
        "positives not sampled",
        "heads/margin_softmax.py",
        "positives = positives.unique()",
        "positives = positives.unique()[:0]",
        "heads/test_partial_fc.py::test_a_sample_is_the_share_and_holds_everybody_in_the_batch",
    ),
    Mutant(
        "others sampled with a seed that the ranks share",
        "heads/margin_softmax.py",
        "default_rng([self.seed or 0, self.rank, self.samples_drawn])",
        "default_rng([self.seed or 0, 0, self.samples_drawn])",
        "heads/test_partial_fc.py::test_others_are_drawn_evenly_and_anew_at_each_step_and_rank",
    ),
    Mutant(
        "samples begin anew at a resume",
        "heads/margin_softmax.py",
        "self.samples_drawn = int(state)",
        "self.samples_drawn = 0",
        "heads/test_partial_fc.py::test_state_dict_is_the_whole_table_and_brings_back_weights_and_the_next_sample",
    ),
    Mutant(
        "momentum of a sampled centre forgotten",
        "training/row_optim.py",
        'state["momentum_buffer"][rows] = step',
        "pass",
        "training/test_row_optim.py",
    ),
    Mutant(
        "rows share one count of AdamW's steps",
        "training/row_optim.py",
        'state["row_steps"][rows] + 1',
        'state["row_steps"].max() + torch.ones_like(state["row_steps"][rows])',
        "training/test_row_optim.py",
    ),
    # --- the step, its optimizer and its schedule
    Mutant(
        "dropout with a seed that the ranks share",
        "training/state.py",
        "torch.manual_seed(config.seed + world.rank)",
        "torch.manual_seed(config.seed)",
        "training/test_state.py::test_what_ranks_have_in_common_and_what_not",
    ),
    Mutant(
        "weight decay on BN",
        "training/optim.py",
        "(nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU)",
        "(nn.LayerNorm, nn.PReLU)",
        "training/test_optim.py::test_decay_spares_bn_prelu_and_biases",
    ),
    Mutant(
        "rate of the step recipe without the ranks",
        "training/schedule.py",
        "peak = config.lr * total_batch / 512",
        "peak = config.lr * config.batch_size * config.gradient_acc / 512",
        "training/test_optim.py",
    ),
    Mutant(
        "rate drops a step late",
        "training/schedule.py",
        "sum(step >= at for at in",
        "sum(step > at for at in",
        "training/test_optim.py",
    ),
    Mutant(
        "warm-up begins at the peak",
        "training/schedule.py",
        "self.peak_lr * (step + 1) / (self.warmup_steps + 1)",
        "self.peak_lr",
        "training/test_optim.py",
    ),
    Mutant(
        "gradient clipped before it is unscaled",
        "training/state.py",
        "self.scaler.unscale_(self.optimizer)",
        "pass",
        "training/test_state.py::test_the_gradient_norm_is_that_before_clipping",
    ),
    Mutant(
        "gradients of accumulated batches summed instead of averaged",
        "training/state.py",
        "self.backward(loss / self.gradient_acc)",
        "self.backward(loss)",
        "training/test_state.py::test_micro_batches_step_as_the_big_batch_does",
    ),
    Mutant(
        "a skipped step of fp16 moves the schedule on",
        "training/state.py",
        "self.updates + updated,",
        "self.updates + 1,",
        "training/test_resume.py::test_a_step_that_the_scaler_leaves_out_counts_but_does_not_move_the_learning_rate_on",
    ),
    Mutant(
        "BN statistics summed over ranks",
        "training/parallel.py",
        "all_reduce_sum(torch.cat(statistics)) / dist.get_world_size()",
        "all_reduce_sum(torch.cat(statistics))",
        "training/test_state.py::test_what_ranks_have_in_common_and_what_not",
    ),
    Mutant(
        "BN takes a checkpointed batch in twice",
        "models/gradient_checkpointing.py",
        "norm.momentum = 0.0",
        "pass",
        "models/test_build_model.py::test_gradient_checkpointing_changes_nothing_but_memory",
    ),
    Mutant(
        "configs that differ between ranks go unnoticed",
        "training/collectives.py",
        "if theirs.get(key) != value:",
        "if key not in theirs:",
        "training/test_state.py::test_what_ranks_have_in_common_and_what_not",
    ),
    # --- checkpoints and resuming
    Mutant(
        "momentum lost at resume",
        "training/checkpoint_state.py",
        "part.load_state_dict(saved[name])",
        'part.load_state_dict(saved[name] | ({"state": {}} if name == "optimizer" else {}))',
        "training/test_resume.py::test_the_steps_after_a_resume_are_those_of_a_run_that_goes_on",
    ),
    Mutant(
        "scaler state not saved",
        "training/state.py",
        "optimizer=self.optimizer, scaler=self.scaler)",
        "optimizer=self.optimizer)",
        "training/test_resume.py::test_the_loss_scale_that_a_run_has_found_is_kept",
    ),
    Mutant(
        "random generators not restored",
        "training/checkpoint_state.py",
        'torch.set_rng_state(saved["rng"][rank].clone())',
        "pass",
        "training/test_resume.py::test_the_random_numbers_that_were_left_are_drawn",
    ),
    Mutant(
        "checkpoint written under its own name",
        "training/checkpoint.py",
        'path, path.with_suffix(".tmp"), keep',
        "path, path, keep",
        "training/test_checkpoint.py",
    ),
    Mutant(
        "one checkpoint more removed than asked for",
        "training/checkpoint.py",
        "[: -self.keep] if self.keep",
        "[: 1 - self.keep or None] if self.keep",
        "training/test_checkpoint.py",
    ),
    Mutant(
        "unpickler of checkpoints admits one name more",
        "training/safe_reader.py",
        '"torch": ("Size",),',
        '"torch": ("Size",), "builtins": ("getattr",),',
        "training/test_checkpoint.py",
    ),
    Mutant(
        "weights loaded by a pickle that may run code",
        "models/weights.py",
        'map_location="cpu", weights_only=True',
        'map_location="cpu", weights_only=False',
        "models/test_weights.py",
    ),
    Mutant(
        "lines of a log that are done again stay",
        "training/metrics.py",
        'if line["step"] <= up_to_step]',
        "]",
        "training/test_metrics.py",
    ),
    Mutant(
        "sums of the log counted once a rank after a resume",
        "training/metrics.py",
        "if not is_distributed() or dist.get_rank() == 0:",
        "if True:",
        "training/test_state.py::test_what_ranks_have_in_common_and_what_not",
    ),
    Mutant(
        "stopped by a signal it exits as if done",
        "signals.py",
        "return 128 + (self.number or 0)",
        "return 0",
        "test_signals.py::test_one_request_is_a_note_and_a_second_ctrl_c_is_not",
    ),
    Mutant(
        "the status of a second signal",
        "signals.py",
        "again, self.number = bool(self), self.number or number",
        "again, self.number = bool(self), number",
        "test_signals.py::test_one_request_is_a_note_and_a_second_ctrl_c_is_not",
    ),
    Mutant(
        "two runs in one folder",
        "training/run_folder.py",
        "    while not try_lock(file, output):",
        "    while not try_lock(file, output) and not job:",
        "training/test_run_folder.py::test_an_earlier_life_of_the_same_torchrun_may_take_longer_to_end",
    ),
    Mutant(
        "no room kept for the checkpoint that is being written",
        "training/run_folder.py",
        "missing = max(1, (keep + 1 if keep else 2) - there)",
        "missing = max(1, (keep if keep else 2) - there)",
        "training/test_run_folder.py::test_room_for_the_checkpoints_is_looked_for_before_the_first_step",
    ),
    Mutant(
        "a batch that a reader cannot send is lost",
        "data/readers.py",
        "    os._exit(NOT_SENT)",
        "    return None",
        "data/test_readers.py",
    ),
    Mutant(
        "readers that have fallen silent are waited for",
        "data/readers.py",
        "                for reader in self.readers:\n                    reader.kill()",
        "                pass",
        "data/test_readers.py::test_readers_that_stand_still_end_in_a_sentence",
    ),
    Mutant(
        "a run verifies before it saves",
        "training/schedule.py",
        "return due or self.is_verification_due(step, verify_every)",
        "return due",
        "test_signals.py::test_a_verification_ends_at_once_since_all_is_saved",
    ),
    Mutant(
        "a rank that works is given up as one that hangs",
        "training/collectives.py",
        "beats[rank], since[rank] = beat, time.monotonic()",
        "beats[rank] = beat",
        "training/test_launch.py::test_a_rank_that_works_at_the_start_is_waited_for",
    ),
    Mutant(
        "a crowded machine is told at every line of the log",
        "training/cpu.py",
        "            self.said = True",
        "            self.said = False",
        "training/test_cpu.py::test_a_run_whose_threads_wait_for_cores_says_so_once",
    ),
    Mutant(
        "nohup is not heeded",
        "signals.py",
        "if handler not in (signal.SIG_IGN, None)",
        "if handler is not None",
        "test_signals.py::test_what_the_process_was_told_to_ignore_it_ignores",
    ),
    Mutant(
        "helpers get the signals of their run",
        "signals.py",
        "before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)",
        "before = signal.pthread_sigmask(signal.SIG_BLOCK, ())",
        "test_signals.py::test_a_process_started_for_help_leaves_the_signals_to_the_one_that_started_it",
    ),
    Mutant(
        "files that belong together get their names one by one",
        "io.py",
        "        with finish_first():\n            files.close()",
        "        files.close()",
        "test_signals.py::test_files_that_belong_together_get_their_names_together",
    ),
    # --- files and data
    Mutant(
        "a rename that is not atomic",
        "io.py",
        'beside = path.with_name(f".{path.name}")',
        "beside = path",
        "test_io.py",
    ),
    Mutant(
        "BGR for RGB in a PNG",
        "data/images.py",
        'np.array(image.convert("RGB"))).permute(2, 0, 1)',
        'np.array(image.convert("RGB"))).permute(2, 0, 1).flip(0)',
        "data/test_images.py",
    ),
    Mutant(
        "BGR for RGB in a JPEG",
        "data/images.py",
        "ImageReadMode.RGB, apply_exif_orientation=True)",
        "ImageReadMode.RGB, apply_exif_orientation=True).flip(0)",
        "data/test_images.py",
    ),
    Mutant(
        "orientation that the camera noted is ignored",
        "data/images.py",
        "apply_exif_orientation=True",
        "apply_exif_orientation=False",
        "data/test_images.py::test_the_camera_was_held_upright",
    ),
    Mutant(
        "pixels of the input from -1 to 0.99",
        "data/images.py",
        ".sub_(127.5).div_(127.5)",
        ".sub_(127.5).div_(128)",
        "data/test_images.py::test_input_range",
    ),
    Mutant(
        "mirrored upside down",
        "data/loader.py",
        "pixels.flip(2)",
        "pixels.flip(1)",
        "data/test_loader.py::test_augment_mirrors_the_chosen_and_normalises_all",
    ),
    Mutant(
        "the package's network comes before a run of that name",
        "runs.py",
        "if own.exists():",
        "if False:",
        "test_runs.py::test_a_folder_of_that_name_comes_first",
    ),
    Mutant(
        "every step changes its images alike",
        "data/augment.py",
        "seeded(seed, step, 2)",
        "seeded(seed, 2)",
        "data/test_augment.py::test_numbers_are_drawn_per_step_within_their_ranges",
    ),
    Mutant(
        "images turn about their shifted middle",
        "data/augment.py",
        "sin * y - cos * x, sin, cos, -sin * x - cos * y",
        "-x, sin, cos, -y",
        "data/test_augment.py::test_geometry_is_that_of_an_affine_map_with_black_outside",
    ),
    Mutant(
        "every rank changes its images as the first one",
        "train.py",
        "own = part, world.rank, slice(",
        "own = part, 0, slice(",
        "data/test_augment.py::test_two_ranks_see_what_one_with_twice_the_batch_sees",
    ),
    Mutant(
        "ranks read the same images",
        "data/loader.py",
        "(batch_in_epoch * self.world_size + self.rank) * self.batch_size",
        "(batch_in_epoch * self.world_size) * self.batch_size",
        "data/test_loader.py",
    ),
    Mutant(
        "every epoch in the same order",
        "data/loader.py",
        "generator=seeded(self.seed, epoch)",
        "generator=seeded(self.seed)",
        "data/test_loader.py",
    ),
    Mutant(
        "every step mirrors alike",
        "data/loader.py",
        "seeded(seed, step, 1)",
        "seeded(seed, 1)",
        "data/test_loader.py::test_mirrors_are_drawn_per_step_and_about_half",
    ),
    Mutant(
        "magic word within a record lost",
        "data/recordio.py",
        "MAGIC_BYTES.join(parts)",
        'b"".join(parts)',
        "data/test_recordio.py",
    ),
    Mutant(
        "records padded to 8 bytes instead of 4",
        "data/recordio.py",
        "(length + 3) // 4 * 4",
        "(length + 7) // 8 * 8",
        "data/test_recordio.py::test_reads_what_mxnet_wrote",
    ),
    Mutant(
        "unpickler of pairs admits one name more",
        "data/bins.py",
        '"__builtin__.bytes": _bytes,',
        '"__builtin__.bytes": _bytes, "builtins.bytearray": bytearray,',
        "data/test_bins.py",
    ),
    Mutant(
        "people who were held out are trained on",
        "data/folder.py",
        "return dict(people[:kept]), dict(people[kept:])",
        "return dict(people), dict(people[kept:])",
        "data/test_folder.py::test_held_out_people_are_in_no_training",
    ),
    Mutant(
        "photographs that nobody aligned are not noticed",
        "aligning.py",
        "    if 2 * beyond > len(known):\n",
        "    if False:\n",
        "test_aligning.py",
    ),
    Mutant(
        "every rank and every resumed run looks for unaligned faces",
        "train.py",
        "if world.is_main and not state.progress.step and isinstance(faces, FolderFaces):",
        "if isinstance(faces, FolderFaces):",
        "test_aligning.py::test_train_notices_unaligned_photographs_at_its_first_start_on_rank_0",
    ),
    Mutant(
        "a photograph that was changed keeps the face of the old one",
        "aligning.py",
        "            if known.get(name) == state and",
        "            if name in known and",
        "test_aligning.py",
    ),
    Mutant(
        "the detector does not look for the faces of a group",
        "data/alignment/detector.py",
        "        while face * SHRINK >= max(SMALLEST, sides.min().item() / 20):\n",
        "        while False:\n",
        "data/alignment/test_detector.py",
    ),
    Mutant(
        "alignment admits a mirror",
        "data/alignment/align.py",
        "np.array([[a, -b], [b, a]])",
        "np.array([[a, b], [b, -a]])",
        "data/alignment/test_align.py",
    ),
    # --- networks
    Mutant(
        "stride in the first convolution of a block",
        "models/iresnet.py",
        "nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)",
        "nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)",
        "models/test_iresnet.py",
    ),
    Mutant(
        "gain of the last BN learns",
        "models/iresnet.py",
        "self.features.weight.requires_grad_(False)",
        "pass",
        "models/test_iresnet.py::test_gain_of_the_last_bn_is_frozen_at_one",
    ),
    Mutant(
        "embedding computed in bf16",
        "models/iresnet.py",
        "with torch.autocast(x.device.type, enabled=False):",
        "if True:",
        "models/test_build_model.py::test_embedding_is_float32_also_under_autocast",
    ),
    # --- protocols
    Mutant(
        "<= for < in the protocol",
        "evaluation/verification.py",
        'thresholds, side="left")',
        'thresholds, side="right")',
        "evaluation/test_verification.py::test_a_pair_at_the_threshold_is_not_accepted",
    ),
    Mutant(
        "folds shuffled",
        "evaluation/verification.py",
        "zip(np.array_split(distances, folds), np.array_split(is_same, folds), strict=True)",
        "zip([distances[i::folds] for i in range(folds)], [is_same[i::folds] for i in range(folds)], strict=True)",
        "evaluation/test_verification.py::test_the_protocol_equals_its_loops",
    ),
    Mutant(
        "threshold chosen on the fold that it judges",
        "evaluation/verification.py",
        "np.argmax(correct.sum(0) - correct, axis=1)",
        "np.argmax(correct.sum(0) + 0 * correct, axis=1)",
        "evaluation/test_verification.py::test_the_protocol_equals_its_loops",
    ),
    Mutant(
        "embedding without the mirror",
        "evaluation/embedding.py",
        "embeddings = embeddings + model(faces.flip(3)).float()",
        "embeddings = embeddings + model(faces).float()",
        "evaluation/test_verification.py::test_embed_adds_the_mirror_in_eval_mode_and_restores_the_modes",
    ),
    Mutant(
        "embedding in training mode",
        "evaluation/embedding.py",
        "    model.eval()\n",
        "    model.train()\n",
        "evaluation/test_verification.py::test_embed_adds_the_mirror_in_eval_mode_and_restores_the_modes",
    ),
    Mutant(
        "TAR at the FAR above instead of the nearest",
        "evaluation/roc.py",
        "nearest = min((above, below), key=lambda i: abs(fprs[i] - far))",
        "nearest = above",
        "evaluation/test_verification.py::test_tar_at_far_is_the_last_nearest_point_of_the_roc",
    ),
    Mutant(
        "every frame of a video counts as a photograph",
        "evaluation/ijb.py",
        "np.repeat(1 / images_of_medium, images_of_medium)",
        "np.repeat(1 / np.ones_like(images_of_medium), images_of_medium)",
        "evaluation/test_ijb.py",
    ),
    Mutant(
        "a draw counts as a hit",
        "evaluation/identification.py",
        "rank[part] = (scores >= own[part, None]).sum(1)",
        "rank[part] = 1 + (scores > own[part, None]).sum(1)",
        "evaluation/test_identification.py",
    ),
    Mutant(
        "a centre is its own nearest neighbour",
        "evaluation/angle_stats.py",
        "cosines.diagonal(start).fill_(-2)",
        "cosines.diagonal(start).fill_(2)",
        "evaluation/test_angle_stats.py",
    ),
    Mutant(
        "exported graph without the mirror",
        "exporting/to_onnx.py",
        "torch.cat([faces, faces.flip(3)])",
        "torch.cat([faces, faces])",
        "test_export.py::test_the_whole_embedding",
    ),
    # --- configs
    Mutant(
        "a misspelt key is passed over",
        "config.py",
        "if key not in ELSEWHERE:",
        "if key in KEYS:",
        "test_config.py::test_slips_on_the_command_line",
    ),
    Mutant(
        "a prepared config can still be changed",
        "config.py",
        "    __setattr__ = __setitem__ = __delattr__",
        "    __setitem__ = __delattr__",
        "test_config.py::test_a_final_config_reads_as_before_and_does_not_change",
    ),
    Mutant(
        "preparation changes the caller's config",
        "training/prepare.py",
        "fit_to_weights(EasyDict(config, resume=config.resume or resume))",
        "fit_to_weights(config.update(resume=config.resume or resume) or config)",
        "training/test_prepare.py",
    ),
    Mutant(
        "a share of 0 is taken",
        "config_schema.py",
        "0 < value <= 1",
        "0 <= value <= 1",
        "training/test_fine_tuning.py::test_keys_out_of_range",
    ),
    # --- the people of a run, and what it can verify
    Mutant(
        "whoever has come takes a label",
        "training/people.py",
        "return set(before)",
        "return set(now)",
        "training/test_people.py::test_whoever_has_come_is_left_out_and_named",
    ),
    Mutant(
        "a resumed run holds out a fifth of today's people",
        "training/prepare.py",
        'hold_out = len(before["held_out"])',
        "hold_out = len(list_people(root)) // 5",
        "training/test_people.py",
    ),
    Mutant(
        "names that changed places are the same people",
        "training/people.py",
        "if was != name]",
        "if name is None]",
        "training/test_people.py::test_a_packed_set_with_names_is_known_by_these",
    ),
    Mutant(
        "other records of the same size are the same people",
        "training/people.py",
        'saved["content"] != now["content"]',
        'saved["num_image"] != now["num_image"]',
        "training/test_people.py::test_a_packed_set_is_known_by_its_records",
    ),
    Mutant(
        "people are held out who make no pairs",
        "training/pair_sets.py",
        "if count_pairs(photos[-hold_out:], FOLDS):",
        "if hold_out:",
        "training/test_few_photographs.py::test_they_train_and_what_can_be_verified_is",
    ),
    Mutant(
        "the last rank decodes no pairs",
        "training/pair_sets.py",
        "share = -(-len(self.images) // world.size)",
        "share = len(self.images) // world.size",
        "training/test_people.py::test_the_ranks_share_the_images_of_the_pairs",
    ),
    Mutant(
        "whoever has come is held out when a run is judged",
        "training/people.py",
        "return set(names)",
        "return set(now)",
        "test_evaluate.py::test_a_run_on_photographs_is_judged_on_the_people_it_held_out",
    ),
    Mutant(
        "a rank finds odd pairs at its first verification",
        "training/pair_sets.py",
        "check_sizes(pairs.images, pairs.name)",
        "pass",
        "training/test_people.py::test_pairs_of_another_size_are_said",
    ),
    Mutant(
        "a run warns of its own readers, which fill their queues",
        "training/cpu.py",
        "if is_long and self.was_long:",
        "if is_long:",
        "training/test_cpu.py::test_a_run_whose_threads_wait_for_cores_says_so_once",
    ),
    Mutant(
        "a fitted batch forgets gradient_acc",
        "training/prepare.py",
        "images // (world_size * config.gradient_acc)",
        "images // world_size",
        "training/test_few_photographs.py::test_what_is_fitted_never_exceeds_the_images",
    ),
    Mutant(
        "JSON that is nested too deep ends in a traceback",
        "io.py",
        "except RecursionError:",
        "except ZeroDivisionError:",
        "test_io.py::test_json_that_cannot_be_read_is_one_kind_of_error",
    ),
    # --- labels
    Mutant(
        "labels of another file are taken",
        "data/labels.py",
        'for name in ("size", "date", "index")) != facts',
        'for name in ("size", "date", "index"))[:0]',
        "data/test_labels.py::test_those_of_another_file_are_not_taken",
    ),
    Mutant(
        "a label is read where no record begins",
        "data/labels.py",
        "(magic != MAGIC) |",
        "(magic == 0) |",
        "data/test_labels.py::test_what_is_no_label_is_unreadable",
    ),
    Mutant(
        "without other centres the first loss is that of one class",
        "heads/margin_softmax.py",
        "round(in_batch))",
        "1)",
        "heads/test_partial_fc.py::test_expected_first_loss_without_other_centres_counts_the_people_of_the_batch",
    ),
    Mutant(
        "the recipe of 2021 takes the gradient of 2022",
        "configs/insightface/ms1mv3_r100.py",
        'config.margin_gradient = "exact"',
        'config.margin_gradient = "straight-through"',
        "test_shipped_configs.py::test_a_recipe_takes_the_gradient_of_its_time",
    ),
    Mutant(
        "base.py falls behind the table of keys",
        "config_schema.py",
        'Key("momentum", float, 0.9,',
        'Key("momentum", float, 0.95,',
        "test_config.py::test_base_py_is_what_the_schema_says",
    ),
    Mutant(
        "compiled shapes become dynamic after a smaller batch",
        "training/state.py",
        "torch.compile(model, dynamic=False)",
        "torch.compile(model)",
        "training/test_state.py",
    ),
    Mutant(
        "table of kernels counts operators beside a GPU's kernels",
        "training/profiling.py",
        "if on_gpu and event.device_type",
        "if not own and event.device_type",
        "training/test_profiling.py",
    ),
    Mutant(
        "the best images are turned away",
        "evaluation/quality.py",
        'order = np.argsort(quality, kind="stable")',
        'order = np.argsort(-quality, kind="stable")',
        "evaluation/test_quality.py",
    ),
    Mutant(
        "a pair is as good as its better image",
        "evaluation/quality.py",
        "np.minimum(of_images[0::2]",
        "np.maximum(of_images[0::2]",
        "evaluation/test_quality.py",
    ),
    Mutant(
        "a pair between groups counts in the wrong cell",
        "evaluation/groups.py",
        "cells = low * len(names) + high",
        "cells = low * len(names) + low",
        "evaluation/test_groups.py",
    ),
    Mutant(
        "a group without an error is sure to have none",
        "evaluation/groups.py",
        "np.minimum(3 / pairs, 1)",
        "0 * pairs",
        "evaluation/test_groups.py",
    ),
    Mutant(
        "an unequal crowd is balanced",
        "data/synthetic/crowds.py",
        "second = round(wanted * mix.shares[1])",
        "second = round(wanted * 0.5)",
        "evaluation/test_groups.py",
    ),
    Mutant(
        "suspects are those that lie nearest",
        "evaluation/suspects.py",
        "suspects = other < own if limit is None",
        "suspects = other > own if limit is None",
        "evaluation/test_suspects.py",
    ),
    Mutant(
        "every sub-centre is trusted",
        "evaluation/suspects.py",
        "return of_image == counts.argmax(1)[labels]",
        "return of_image >= 0 * labels",
        "evaluation/test_suspects.py",
    ),
    Mutant(
        "half of the flipped labels stay right",
        "data/label_noise.py",
        "rng.integers(1, len(people), len(chosen))",
        "rng.integers(0, 2, len(chosen))",
        "data/test_label_noise.py",
    ),
    Mutant(
        "a cleaned set keeps a suspect",
        "cleaning.py",
        "new = np.where(seen.suspects, DROPPED, labels)",
        "new = np.where(seen.suspects & (labels > 0), DROPPED, labels)",
        "test_labs.py::test_a_cleaned_set_holds_right_labels_only",
    ),
    # --- the course
    Mutant(
        "an ablation passes with two seeds",
        "course/checks/margin.py",
        "if any(len(set(seeds)) < 3 for seeds in asked.values()):",
        "if any(len(set(seeds)) < 2 for seeds in asked.values()):",
        "course/test_checks_margin.py",
    ),
    Mutant(
        "a backward pass is checked for the embeddings alone",
        "course/checks/partial_fc.py",
        '("centres", torch.cat([found[0][1], found[1][1]]), wanted[1]),',
        '("centres", wanted[1], wanted[1]),',
        "course/test_checks_partial_fc.py",
    ),
    # --- inputs as others make them
    Mutant(
        "a file deeper than a person's folder is forgotten",
        "data/photographs.py",
        "unused.setdefault(DEEPER, []).append(photo)",
        "pass",
        "data/test_photographs.py",
    ),
    Mutant(
        "a broken link counts as a photograph",
        "data/photographs.py",
        "    if not entry.is_file():",
        "    if False:",
        "data/test_photographs.py",
    ),
    Mutant(
        "float images are clipped to black",
        "data/images.py",
        'if image.mode == "F" and high <= 1:',
        "if False:",
        "data/test_images.py",
    ),
    Mutant(
        "labels of pairs are all true where they are texts",
        "data/bins.py",
        'value = {"0": 0, "1": 1}.get(value.strip(), value) if isinstance(value, str) else value',
        "value = True if isinstance(value, str) else value",
        "data/test_bins.py",
    ),
    Mutant(
        "the label of a NumPy number is true whatever it is",
        "data/bins.py",
        "return np.frombuffer(data, dtype.dtype(*NUMBERS))[0].item()",
        'return data != b"\\0"',
        "data/test_bins.py",
    ),
    Mutant(
        "a line of two people counts as one person",
        "data/pair_list.py",
        "found.is_same.append(len(fields) == 3)",
        "found.is_same.append(True)",
        "data/test_pair_list.py",
    ),
    Mutant(
        "head tensors stay beside the backbone's",
        "models/weights.py",
        "heads = heads if len(heads) < len(within) else []",
        "heads = []",
        "models/test_weights.py",
    ),
    Mutant(
        "damaged weights end in the system's words",
        "models/weights.py",
        "if isinstance(error, OSError) and error.filename:",
        "if isinstance(error, OSError):",
        "models/test_weights.py",
    ),
    Mutant(
        "a graph's own normalisation is not seen in its nodes",
        "models/onnx_input.py",
        "    if max(centre, half) > 20:",
        "    if False:",
        "models/test_onnx_graph.py",
    ),
    Mutant(
        "two probes always say [-1, 1]",
        "models/onnx_input.py",
        "< 0.15 * difference",
        "< 0.0 * difference",
        "models/test_onnx_graph.py",
    ),
    Mutant(
        "weights outside of a graph's folder are read",
        "models/onnx_input.py",
        'if folder is None or Path(name).is_absolute() or ".." in Path(name).parts:',
        "if folder is None:",
        "models/test_onnx_graph.py",
    ),
    Mutant(
        "channels last are given first",
        "models/onnx_graph.py",
        "return face, embedding, orders[0] == LAST",
        "return face, embedding, False",
        "models/test_onnx_graph.py",
    ),
    Mutant(
        "a set by another name is not found",
        "data/recordio.py",
        "return found[0] if found else None",
        "return None",
        "data/test_datasets.py",
    ),
]


def main(words: list[str]) -> int:
    """Try the faults whose name has one of `words`, or all; say which survive. Return the exit status."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    if not chosen:
        print(f"no fault has {' or '.join(map(repr, words))} in its name; tests/mutants.py lists them.")
        return 2
    os.environ |= dict(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")  # bytecode knows a change by the second
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(WORKERS):
            trees.put(copy_tree(Path(folder, str(number))))

        sound = {pool.submit(run_tests, trees, tests): file for file, tests in tests_by_file(chosen).items()}
        for job in progress_of(sound, "their tests on the code as it is"):
            status, said = job.result()
            if status:
                pool.shutdown(cancel_futures=True)
                print(f"{said}\n{sound[job]} does not pass on the code as it is, so it proves nothing: mend it first.")
                return 2

        unnoticed = []
        faulty = {pool.submit(run_tests, trees, mutant.tests.split(), mutant): mutant.name for mutant in chosen}
        for job in progress_of(faulty, "faults"):
            status, said = job.result()
            if status != 1:  # 0: all passed; another: no test came to its end, so that the fault itself is no good
                unnoticed.append(faulty[job])
            verdict = {0: "SURVIVES", 1: "noticed"}.get(status, f"UNDECIDED ({' '.join(said.split()[-20:])})")
            tqdm.write(f"{verdict:<9} {faulty[job]}")
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} faults noticed in {time.perf_counter() - began:.0f} s")
    if unnoticed:
        print(f"Not noticed: {'; '.join(unnoticed)}. Add a test that fails with each, and name it in tests/mutants.py.")
    return bool(unnoticed)


def progress_of(jobs: dict[Future, str], what: str) -> tqdm:
    """Return the jobs as they end, with a progress bar."""
    return tqdm(as_completed(jobs), total=len(jobs), desc=what, dynamic_ncols=True)


def copy_tree(tree: Path) -> Path:
    """Copy to `tree` what the tests need, and return it."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.ipynb"))
        else:
            shutil.copy(ROOT / part, tree / part)
    return tree


def tests_by_file(mutants: list[Mutant]) -> dict[str, list[str]]:
    """Return all tests that should notice the faults, by their file, each once."""
    files: dict[str, set[str]] = {}
    for test in " ".join(mutant.tests for mutant in mutants).split():
        files.setdefault(test.split("::")[0], set()).add(test)
    return {file: [file] if file in tests else sorted(tests) for file, tests in sorted(files.items())}


def run_tests(
    trees: "queue.SimpleQueue[Path]", tests: list[str], mutant: Mutant | None = None
) -> tuple[int | None, str]:
    """Run tests in a tree that is free, up to the first that fails. Return pytest's exit status, and what it printed.

    Args:
        mutant: A fault that is in the tree meanwhile.
    """
    tree = trees.get()
    said = tree / "said.txt"
    path = tree / "arcface_edu" / (mutant.path if mutant else "__init__.py")
    right = path.read_text()
    try:
        if mutant:
            path.write_text(right.replace(mutant.old, mutant.new))
        process = SERVER.Process(target=be_pytest, args=(tree, [f"tests/{test}" for test in tests], said))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
        return process.exitcode, said.read_text()
    finally:
        path.write_text(right)
        trees.put(tree)


def be_pytest(tree: Path, tests: list[str], said: Path) -> None:
    """Be the process that runs tests in a tree: its package is imported, and that of no other place."""
    os.setsid()  # so that what the tests start can be killed with them
    os.chdir(tree)
    output = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    sys.path[:] = [str(tree), *(place for place in sys.path if place not in ("", str(ROOT), str(ROOT / "tests")))]
    os.environ["PYTHONPATH"] = str(tree)
    sys.exit(pytest.main([*QUIET, *tests]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
