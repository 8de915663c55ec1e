"""App. A: nets that tell boxes: trained, applied everywhere, merged, tested."""
