"""Your own photographs on a small machine: `python -m arcface_edu.train rec=my_photos/` uses this.

Batch, epochs and rate are fitted to the number of images (arcface_edu/training/prepare.py); set any of them to
insist on it.
"""

from easydict import EasyDict as edict

config = edict()
config.network = "r10"
config.embedding_size = 128
config.scale = 32.0
config.batch_size = None
config.num_epoch = None
config.lr = None
config.warmup_epoch = 1
config.num_workers = 1
config.verbose = 0
config.save_every = 500
