"""Read the files of torch.distributed.checkpoint (DCP) without running what they say.

DCP keeps the list of its tensors in `.metadata`, a pickle, and a pickle may name any function to be called while it is
loaded. Here the few names that the list needs are admitted, any other is refused. The tensors themselves DCP loads with
`weights_only=True`; other values, which it would not, are never asked for (`checkpoint.py` keeps them as JSON).
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from arcface_edu.errors import CheckpointError

METADATA = ("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "ChunkStorageMetadata")
ADMITTED = {
    "torch.distributed.checkpoint.metadata": (*METADATA, "TensorProperties", "_MEM_FORMAT_ENCODING"),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),  # looks a name up in a table
    "torch": ("Size",),
    "pathlib": ("PosixPath", "WindowsPath"),  # of the folder it was written to
    "pathlib._local": ("PosixPath", "WindowsPath"),
}


class MetadataUnpickler(pickle.Unpickler):
    """Load a pickle that may name only what DCP's metadata needs."""

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in ADMITTED.get(module, ()):
            return super().find_class(module, name)
        raise CheckpointError(f".metadata asks for {module}.{name}, which no checkpoint needs")


class SafeReader(FileSystemReader):
    """DCP's reader of a folder, with its metadata through `MetadataUnpickler`."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = MetadataUnpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata
