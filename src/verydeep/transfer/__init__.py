"""App. B: descriptors of photos, and linear SVMs on them."""
