"""What judges a face: finding it, cropping it, scoring it, and saying what the scores mean."""
