"""Packaging of dnl_d2.

Detectron2 is no requirement here: it comes under more than one name (a source checkout, a
re-packed wheel), and ``dnl_d2.layers`` runs without it. The README gives both ways to install it.
OpenCV is none either: ``opencv-python`` and ``opencv-python-headless`` must not be mixed, so the
choice stays with the environment.
"""

from setuptools import find_packages, setup

setup(
    name="dnl_d2",
    version="0.1.0",
    description="Disentangled Non-Local networks and their relatives for Detectron2",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["dnl_d2", "dnl_d2.*"]),
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy",
        "pillow",
        "matplotlib",
        "fvcore",
        "safetensors",
        "scipy",
        "pycocotools",
        "cityscapesscripts",
        "tabulate",
        "tensorboard",
        "tqdm",
    ],
    extras_require={
        "test": ["pytest"],
        # The same COCO figures, faster.
        "coco": ["faster-coco-eval"],
        # What the tests compare with. It brings opencv-python and more that is not needed: better
        # install requirements/parity.txt without dependencies, as the Makefile does.
        "parity": ["mmsegmentation==1.2.2", "mmdet==3.3.0", "mmcv-lite==2.1.0", "mmengine", "timm"],
    },
)
