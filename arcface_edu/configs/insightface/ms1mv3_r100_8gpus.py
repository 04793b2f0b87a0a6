"""MS1MV3, r100, 8 GPUs: the newer recipe, that of arcface_torch/configs/ms1mv3_r100.py today.

Without steps: the rate falls in a straight line to 0. `ms1mv3_r100` is the older one.
"""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r100"
config.recipe = (0.1, 1024)  # 8 x 128
