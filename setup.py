"""What pyproject.toml cannot say: configs/ lies in the package dnl_d2.model_zoo once installed."""

from setuptools import find_packages, setup

CONFIGS = "dnl_d2.model_zoo.configs"

setup(
    packages=[*find_packages(include=["dnl_d2", "dnl_d2.*"]), CONFIGS],
    package_dir={CONFIGS: "configs"},
    # The files of subfolders, whose names are none of packages, are data of this one.
    package_data={
        "dnl_d2": ["py.typed", "checkpoint/*.yaml"],
        CONFIGS: ["*/**/*.py", "*/**/*.yaml"],
    },
)
