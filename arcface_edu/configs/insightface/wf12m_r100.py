"""WebFace12M, r100, 8 GPUs, 2022: the recipe of arcface_torch/configs/wf12m_r100.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace12M"
config.num_classes = 617970
config.num_image = 12720066

config.network = "r100"
config.margin_list = (1.0, 0.0, 0.4)
config.recipe = (0.1, 1024)  # 8 x 128
