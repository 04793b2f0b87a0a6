"""MS1MV2, r100, 8 GPUs, 2022: the recipe of arcface_torch/configs/ms1mv2_r100.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/faces_emore"
config.num_classes = 85742
config.num_image = 5822653
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r100"
config.recipe = (0.1, 1024)  # 8 x 128
