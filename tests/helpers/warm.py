"""Imports of the fork server of server.py: modules that take long to import and start no threads.

A fork does not copy threads, so a module with threads would not work in the forked processes.
"""

import os

import sklearn.datasets  # noqa: F401
import torch

import imbalance.training.loop  # noqa: F401

torch.set_num_threads(1)
os.fsync = os.fstat  # as in tests/conftest.py
torch.optim.SGD([torch.zeros(1)], lr=0.1)  # imports most of torch on its first use
