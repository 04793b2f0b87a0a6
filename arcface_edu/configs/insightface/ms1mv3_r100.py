"""MS1MV3, r100, the seed's recipe: that of `ms1mv3_r50` with another network, and nothing else.

The seed's author looked for this file in vain and guessed that the r50 settings would do. The oldest arcface_torch code
agrees: its config held one recipe for the data set, and the network was named on the command line. `ms1mv3_r100_8gpus`
is InsightFace's newer recipe.
"""

from easydict import EasyDict

config = EasyDict()
config.rec = "data/ms1m-retinaface-t1"
config.num_classes = 93431
config.num_image = 5179510
config.val_targets = ["lfw", "cfp_fp", "agedb_30"]

config.network = "r100"
config.lr = 0.1  # batch size is 512
config.num_epoch = 25
config.warmup_epoch = -1
config.decay_epoch = [10, 16, 22]
