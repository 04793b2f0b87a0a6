"""Synthetic, mbf, 8 GPUs, 2022: the speed test of arcface_torch/configs/3millions.py.

Images are made up and nothing is learned: what counts is the number of images a second. That file says 300,000 people;
num_classes=3000000 is what its name says.
"""

from easydict import EasyDict

config = EasyDict()
config.rec = "synthetic"
config.num_classes = 300000
config.num_image = 100000

config.network = "mbf"
config.margin_list = (1.0, 0.0, 0.4)
config.sample_rate = 0.1
config.batch_size = 512
config.num_epoch = 30
config.warmup_epoch = -1
