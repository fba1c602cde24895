#!/usr/bin/env python
"""Segments a picture with an exported model: segment.py MODEL.onnx PICTURE LABELS.png."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def resized(picture, size, *, aligned=False):
    """Bilinear without antialiasing, as the models are tested; size is (width, height)."""
    pairs = list(zip(picture.size, size, strict=True))
    x, y = ((old - 1) / max(new - 1, 1) if aligned else old / new for old, new in pairs)
    left, top = (0.5 - x / 2, 0.5 - y / 2) if aligned else (0, 0)  # of the first pixel
    matrix = (x, 0, left, 0, y, top)
    return picture.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def input_size(size, rule, fixed):
    """The (width, height) that a picture is predicted at."""
    if isinstance(fixed[0], int):  # the model was exported for one size
        return fixed[1], fixed[0]
    if not rule:
        return size
    scale = min(max(rule["fit"]) / max(size), min(rule["fit"]) / min(size))
    return tuple(max(1, int(side * scale + 0.5)) for side in size)


def segment(session, picture):
    """The label map of an RGB picture, with the palette of the classes; and the metadata."""
    properties = session.get_modelmeta().custom_metadata_map
    told = {key: json.loads(value) for key, value in properties.items()}
    if told["task"] != "segmentation":
        raise ValueError(f"the model is for {told['task']}, not for segmentation")
    (entry,) = session.get_inputs()
    taken = resized(picture, input_size(picture.size, told["resize"], entry.shape[2:]))
    array = np.asarray(taken)[..., :: -1 if told["channel_order"] == "BGR" else 1]
    images = np.ascontiguousarray(array.transpose(2, 0, 1)[None])
    logits = [Image.fromarray(one) for one in session.run(None, {entry.name: images})[0][0]]
    aligned = told["align_corners"]
    back = [np.asarray(resized(one, picture.size, aligned=aligned)) for one in logits]
    labels = Image.fromarray(np.argmax(back, axis=0).astype(np.uint8))
    labels.putpalette(np.asarray(told["colors"], np.uint8).tobytes())
    return labels, told


if __name__ == "__main__":
    model, source, target = sys.argv[1:]
    loaded = onnxruntime.InferenceSession(model, providers=onnxruntime.get_available_providers())
    result, metadata = segment(loaded, ImageOps.exif_transpose(Image.open(source)).convert("RGB"))
    result.save(target)
    for count, label in sorted(result.getcolors(), reverse=True):
        print(f"{count / (result.width * result.height):6.1%}  {metadata['classes'][label]}")
