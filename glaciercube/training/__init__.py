"""Training: samples, losses, augmentation, fitting and evaluation."""
