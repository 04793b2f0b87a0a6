"""WebFace42M, r100, 32 GPUs, 2022: the recipe of arcface_torch/configs/wf42m_pfc0008_32gpu_r100.py.

A step uses the centres of its own people only: of at most 16,384 people, 0.8 % of all.
"""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r100"
config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0
config.lr = 0.4
config.batch_size = 512
config.warmup_epoch = 2
config.recipe = (0.4, 16384)  # 32 x 512
