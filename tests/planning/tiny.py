"""A small run that several tests of the planner measure."""

from arcface_edu.config import load_config
from arcface_edu.training.prepare import complete_without_data

CLASSES, BATCH, DIMENSION = 1000, 16, 128


def tiny(*words, gpus=1):
    config = load_config("drawn_faces", [f"num_classes={CLASSES}", "num_image=50000", f"batch_size={BATCH}", *words])
    return complete_without_data(config, gpus)
