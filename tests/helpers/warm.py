"""What the fork server of jobs.py imports once for all: everything that takes long, and nothing that starts threads."""

import sklearn.datasets  # noqa: F401
import torch

import imbalance.training.loop  # noqa: F401

torch.set_num_threads(1)
torch.optim.SGD([torch.zeros(1)], lr=0.1)  # imports most of torch on its first use
