"""Glint360K, r100, 8 GPUs, 2022: the recipe of arcface_torch/configs/glint360k_r100.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/glint360k"
config.num_classes = 360232
config.num_image = 17091657
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r100"
config.margin_list = (1.0, 0.0, 0.4)
config.weight_decay = 1e-4
config.recipe = (0.1, 1024)  # 8 x 128
