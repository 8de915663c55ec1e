"""Images: data sets, annotations, decoding, augmentation, loading."""
