"""cffi_modules is read from here only: setuptools drops it from setup.cfg without a word."""

from setuptools import setup

setup(cffi_modules=["cext/build.py:ffibuilder"])
