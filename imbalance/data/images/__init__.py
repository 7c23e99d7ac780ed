"""Images: lists of files, decoding, the store of decoded images, augmentation."""
