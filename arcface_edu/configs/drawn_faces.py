"""The default run: minutes on two cores, no download. The program draws its own faces and learns to tell them apart."""

from easydict import EasyDict as edict

config = edict()
config.draw_identities = 500
config.draw_photos = 20

config.network = "r10"
config.embedding_size = 128
config.scale = 32.0  # a quarter of the 512 dimensions bears half the scale: s^2 / d stays as it is for r50

config.batch_size = 64
config.lr = 0.1
config.num_epoch = 7
config.warmup_epoch = 0.5
config.num_workers = 1
config.verbose = 0
config.save_every = 0
