"""WebFace42M, r200, 32 GPUs, 2022: the recipe of arcface_torch/configs/wf42m_pfc03_32gpu_r200.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r200"
config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0.3
config.lr = 0.4
config.warmup_epoch = 2
config.recipe = (0.4, 4096)  # 32 x 128
