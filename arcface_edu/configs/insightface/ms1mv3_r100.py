"""MS1MV3, r100, 8 GPUs, 2021: the step-decay recipe of `ms1mv3_r50` with another network, and nothing else.

arcface_torch had no file of this name then; its oldest code agrees: one config held the recipe for the data set, and
the network was named on the command line. InsightFace's file of this name today is another recipe:
`ms1mv3_r100_8gpus` here.
"""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r100"
config.margin_gradient = "exact"  # as arcface_torch computed until December 2022, and the paper
config.lr = 0.1  # batch size is 512
config.num_epoch = 25
config.warmup_epoch = -1
config.decay_epoch = [10, 16, 22]
