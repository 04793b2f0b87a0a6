"""WebFace42M, ViT-H, 40 GPUs, 2023: the recipe of arcface_torch/configs/wf42m_pfc02_vit_h.py.

The share of the centres is 0.5 in that file, whatever its name says. The five machines of eight GPUs are those of
arcface_torch/dist.sh.
"""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557

config.network = "vit_h"
config.gradient_checkpointing = True
config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0.5
config.optimizer = "adamw"
config.lr = 0.001
config.weight_decay = 0.1
config.batch_size = 768
config.num_epoch = 16
config.warmup_epoch = 2
config.recipe = (0.001, 30720)  # 40 x 768
