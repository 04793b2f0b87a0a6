"""MS1MV3, r100, 8 GPUs, 2022: the linear-decay recipe, that of arcface_torch/configs/ms1mv3_r100.py since then.

`ms1mv3_r100` is the step-decay recipe of 2021. The gradient is arcface_torch's since December 2022, straight-through.
"""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r100"
config.recipe = (0.1, 1024)  # 8 x 128
