"""WebFace42M, ViT-B, 64 GPUs, 2022: the recipe of arcface_torch/configs/wf42m_pfc03_40epoch_64gpu_vit_b.py."""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557

config.network = "vit_b_dp005_mask_005"
config.gradient_checkpointing = True
config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0.3
config.optimizer = "adamw"
config.lr = 0.001
config.weight_decay = 0.1
config.batch_size = 384
config.num_epoch = 40
config.warmup_epoch = 4
config.recipe = (0.001, 24576)  # 64 x 384
