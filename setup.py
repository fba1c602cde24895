"""What pyproject.toml cannot say: where the configs go."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CONFIGS = "dnl_d2.model_zoo.configs"


class BuildWithConfigs(build_py):
    """Puts configs/ into dnl_d2/model_zoo; an editable install reads them where they are."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if not self.editable_mode:
            self.packages = [*self.packages, CONFIGS]
            self.package_dir = {**self.package_dir, CONFIGS: "configs"}
            # Also those of the subfolders, whose names are none of packages.
            self.package_data = {**self.package_data, CONFIGS: ["*/**/*.py", "*/**/*.yaml"]}


setup(
    packages=find_packages(include=["dnl_d2", "dnl_d2.*"]),
    cmdclass={"build_py": BuildWithConfigs},
)
