"""MS1MV3, r50, 1 GPU, 2023: the recipe of arcface_torch/configs/ms1mv3_r50_onegpu.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r50"
config.lr = 0.02
config.recipe = (0.02, 128)  # 128
