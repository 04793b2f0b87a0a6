"""WebFace42M, mbf, 16 GPUs, 2022: the recipe of arcface_torch/configs/wf42m_pfc02_16gpus_mbf_bs8k.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557

config.network = "mbf"
config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0.2
config.lr = 0.4
config.weight_decay = 1e-4
config.batch_size = 512
config.warmup_epoch = 2
config.recipe = (0.4, 8192)  # 16 x 512
