import torch

torch.set_num_threads(1)  # these networks are tiny: on a busy machine more threads wait for each other
