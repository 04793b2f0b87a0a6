"""WebFace12M, r50, 8 GPUs, 2022: the recipe of arcface_torch/configs/wf12m_flip_pfc01_filter04_r50.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace12M_FLIP40"  # WebFace12M with two in five labels wrong
config.num_classes = 617970
config.num_image = 12720066

config.network = "r50"
config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0.1
config.interclass_filtering_threshold = 0.4
config.warmup_epoch = 2
config.recipe = (0.1, 1024)  # 8 x 128
