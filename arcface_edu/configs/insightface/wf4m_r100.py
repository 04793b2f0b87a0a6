"""WebFace4M, r100, 8 GPUs, 2022: the recipe of arcface_torch/configs/wf4m_r100.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace4M"
config.num_classes = 205990
config.num_image = 4235242
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r100"
config.margin_list = (1.0, 0.0, 0.4)
config.recipe = (0.1, 1024)  # 8 x 128
