"""Entry point of tools that call setup.py; pyproject.toml describes the package."""

from setuptools import setup

setup()
