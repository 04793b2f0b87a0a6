"""MS1MV3, r2060, 8 GPUs, 2021: the step-decay recipe of arcface_torch/configs/ms1mv3_r2060.py.

InsightFace had this file from July 2021 to January 2022 and still has the network, of 1,030 blocks.
"""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r2060"
config.gradient_checkpointing = True
config.margin_gradient = "exact"  # as arcface_torch computed until December 2022, and the paper
config.lr = 0.1  # batch size is 512
config.batch_size = 64
config.num_epoch = 25
config.warmup_epoch = -1
config.decay_epoch = [10, 16, 21]
