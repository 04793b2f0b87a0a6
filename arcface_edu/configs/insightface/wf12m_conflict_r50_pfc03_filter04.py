"""WebFace12M, r50, 8 GPUs, 2022: the recipe of arcface_torch/configs/wf12m_conflict_r50_pfc03_filter04.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace12M_Conflict"  # WebFace12M in 400,000 classes more: some people are several
config.num_classes = 1017970
config.num_image = 12720066

config.network = "r50"
config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0.3
config.interclass_filtering_threshold = 0.4
config.warmup_epoch = 2
config.recipe = (0.1, 1024)  # 8 x 128
