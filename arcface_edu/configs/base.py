"""Every key of a run, its default and what it means. A run's own file, or the command line, names only what differs.

The key names are those of InsightFace's `arcface_torch`, so a config block written for it runs as it is. This file is
written from arcface_edu/config_schema.py, which also holds types and limits: `python -m arcface_edu.train --keys`.
"""

from easydict import EasyDict as edict

config = edict()

# data
config.rec = None  # folder of train.rec, or of a folder per person; None = drawn faces; "synthetic" = made-up ones
config.num_classes = None  # identities; None = read from the data; a number is checked
config.num_image = None  # images; likewise
config.val_targets = []  # verification pairs, as lfw,cfp_fp: lfw.bin beside the data, or a file; [] = every .bin there
config.hold_out = None  # image folders: people kept back to verify on; None = a fifth, where there are no pairs
config.draw_identities = 0  # with rec=None: how many people to draw
config.draw_photos = 0  # how many photographs to draw of each
config.draw_pairs = 3000  # how many pairs of other people to verify on
config.draw_seed = 0  # another seed, another population
config.draw_difficulty = 1.0  # 0 = passport photographs, 1 = snapshots, 2 = hard
# mirror | photo: half of the images mirrored | also turned, scaled, shifted, relit, coarser, noisy, half of them grey
config.augment = "mirror"
config.max_corrupt = 100  # broken records that are skipped, counted and named before the run gives up
config.num_workers = 2  # processes that read and decode images
config.dali = False  # accepted from InsightFace configs; decoding here is torchvision's

# network
config.network = "r50"  # r10 r10_quick r18 r34 r50 r100 r200 mbf mbf_large vit_t vit_s vit_b ...; None = that of init
config.embedding_size = 512  # None = that of init
config.dropout = 0.0  # before the last linear layer
config.gradient_checkpointing = False  # recompute each block in the backward pass: less memory, a third more time
# weights that the backbone starts from: a file, the folder of a run, or drawn_crowd; the head is new
config.init = None

# head
# softmax | norm_softmax | sphereface | cosface | arcface | combined1 | combined2 | subcenter_arcface | adaface |
# magface | curricularface | mv_softmax | elasticface | sphereface_2017 | sphereface_r
config.loss = "arcface"
config.head_options = {}  # what a loss has besides, as {'sub_centers': 3} of subcenter_arcface; see docs/heads.md
config.margin_list = None  # (m1, m2, m3) of cos(m1*theta + m2) - m3; overrules loss
config.scale = 64.0  # s, by which cosines are multiplied; None = 64 at 512 dimensions, s^2 / d kept
config.margin_gradient = "straight-through"  # straight-through | exact: arcface_torch since December 2022 | before it
config.interclass_filtering_threshold = 0.0  # > 0: cosines of other classes above it count as 0
config.sample_rate = 1.0  # share of the class centres in a step (Partial FC); 1 = all, 0 = the batch's people's

# optimization
config.optimizer = "sgd"  # sgd | adamw
config.lr = 0.1  # as is; but with decay_epoch the lr for 512 images a step; None = fitted to the batch
config.recipe = None  # (lr, images a step) that go together: a run that strays from them is told the lr that fits
config.momentum = 0.9  # of SGD
config.weight_decay = 0.0005  # of weights and class centres
config.decay_all = False  # True: decay BN, PReLU and biases as well, as InsightFace does
config.batch_size = 128  # per process and per backward pass; None = fitted to the data
config.gradient_acc = 1  # backward passes per step; their gradient is that of the one big batch
config.max_norm = 5.0  # the backbone's gradient is clipped to it (metrics.jsonl has the norm before); 0 = never
config.num_epoch = 20  # None = fitted to the data
config.warmup_epoch = 0  # epochs (also fractions) in which lr climbs from near zero; -1 = none
config.decay_epoch = None  # [10, 16, 22]: lr x 0.1 at each; None = polynomial to 0
config.poly_power = 1.0  # 1 = a straight line
config.head_epoch = 0  # with init: so many epochs (also fractions) at the start only the head learns
config.backbone_rate = 1.0  # share of lr that the backbone gets

# precision and speed
config.fp16 = True  # mixed precision: bf16 where the device has it, else fp16 with a scaler; False = fp32
config.amp_dtype = None  # bf16 | fp16: to insist on one of them
config.device = None  # "cpu", "cuda", "mps"; None = the accelerator if there is one
config.compile = False  # True: torch.compile the network's training step; slow to begin, see docs/performance.md
config.seed = 2048  # of weights, order, augmentation and sampled centres

# many processes (torchrun --nproc_per_node=N -m arcface_edu.train ...)
config.parallel = "ddp"  # ddp | dp: dp = DataParallel, one process with several GPUs, for comparison
config.ddp_bucket_mb = 25  # DDP all-reduces gradients in buckets of so many MB during the backward pass
config.gradient_compression = None  # bf16 | fp16: half the traffic, gradients rounded on the way
config.sync_bn = False  # True: BN normalises over the images of all processes (GPUs only)
config.timeout_seconds = 600  # so long one process waits for the others before it gives up

# the run
config.output = None  # folder of the run; None = runs/<config>
config.dry_run = False  # True: no training; build, step and save it on fake tensors, as one of dry_run_gpus processes
config.dry_run_gpus = 8  # processes of a dry run
config.resume = False  # True: go on from the last checkpoint in output
config.frequent = 10  # steps between two lines of the log
config.verbose = 2000  # steps between two verifications; 0 = only at the end
config.save_every = 2000  # steps between two checkpoints; 0 = only at the end of each epoch
config.async_save = False  # True: a checkpoint is written while training goes on; its copy takes memory meanwhile
config.keep_checkpoints = 2  # older ones are removed; 0 = keep all
config.profile = False  # True: record a few steps: a chrome trace of each process, and a picture of who waits for whom
config.save_all_states = True  # accepted from InsightFace configs; a checkpoint always holds everything here
