"""Four times the people of the default run, augmented: a network of drawings that is to meet photographs."""

from easydict import EasyDict as edict

config = edict()
config.draw_identities = 2000
config.draw_photos = 20
config.augment = "photo"

config.network = "r10"
config.embedding_size = 128
config.scale = 32.0

config.batch_size = 64
config.lr = 0.1
config.num_epoch = 8
config.warmup_epoch = 0.25
config.num_workers = 1
config.verbose = 0
config.save_every = 0
