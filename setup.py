"""Builds the wheel of the project's packages, which Beam workers and containers install."""

from setuptools import find_packages, setup

DATA = ["*.pbtxt", "configs/*.yaml", "tensorflow_serving/*"]

setup(
    packages=find_packages(include=["components*", "pipeline*", "serving*", "trainers*", "transform*"]),
    package_data={"": DATA},
)
