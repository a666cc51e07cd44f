"""A CT slice as DICOM, sound unless told otherwise."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
from pydicom import uid

ABSENT = object()  # in place of a value: the tag is left out


def ct_slice(stored: np.ndarray, **tags: Any) -> pydicom.Dataset:
    """The stored values as they are, (H, W) or (frames, H, W), which are Hounsfield units unless the tags say
    otherwise.
    """
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = uid.CTImageStorage, "1.2.3"
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "CT", "MONOCHROME2", 1
    data.Rows, data.Columns = stored.shape[-2:]
    bits = 8 * stored.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for tag, value in tags.items():
        if value is ABSENT:
            del data[tag]
        else:
            setattr(data, tag, value)
    return data


def dicom_bytes(data: pydicom.Dataset) -> bytes:
    """The file."""
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
