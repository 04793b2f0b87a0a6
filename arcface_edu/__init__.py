"""ArcFace to learn from and to train with: one code path from a laptop to a GPU cluster."""

from arcface_edu.config import load_config
from arcface_edu.data.alignment.align import align
from arcface_edu.data.bins import read_pairs, write_pairs
from arcface_edu.data.datasets import open_faces
from arcface_edu.data.recordio import RecordReader, RecordWriter
from arcface_edu.evaluation.angle_stats import angle_statistics
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.identification import identify
from arcface_edu.evaluation.ijb import pool_templates, score_pairs
from arcface_edu.evaluation.roc import tar_at_far
from arcface_edu.evaluation.verification import verify_pairs
from arcface_edu.heads import MarginSoftmax, PartialFC
from arcface_edu.models import build_model
from arcface_edu.runs import load_model

__version__ = "0.2.0"

__all__ = [
    "MarginSoftmax",
    "PartialFC",
    "RecordReader",
    "RecordWriter",
    "align",
    "angle_statistics",
    "build_model",
    "embed_images",
    "identify",
    "load_config",
    "load_model",
    "open_faces",
    "pool_templates",
    "read_pairs",
    "score_pairs",
    "tar_at_far",
    "verify_pairs",
    "write_pairs",
]
