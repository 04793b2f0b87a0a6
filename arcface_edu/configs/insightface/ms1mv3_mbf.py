"""MS1MV3, mbf, 8 GPUs, 2022: the recipe of arcface_torch/configs/ms1mv3_mbf.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "mbf"
config.weight_decay = 1e-4
config.num_epoch = 40
config.recipe = (0.1, 1024)  # 8 x 128
