"""Video-LDM: image diffusion aligned in time (arXiv:2304.08818)."""
