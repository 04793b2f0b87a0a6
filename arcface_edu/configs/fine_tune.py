"""Your own photographs, from a trained network: `python -m arcface_edu.train rec=my_photos/ init=WEIGHTS` uses this.

Network and scale are those of the weights; batch, epochs and rate are fitted to the number of images, as in own_data.
Weights of faces much like yours want a gentler beginning: head_epoch=2 backbone_rate=0.1 (docs/fine_tuning.md).
"""

from easydict import EasyDict as edict

config = edict()
config.network = None
config.embedding_size = None
config.scale = None
config.batch_size = None
config.num_epoch = None
config.lr = None
config.warmup_epoch = 1
config.num_workers = 1
config.verbose = 0
config.save_every = 500
