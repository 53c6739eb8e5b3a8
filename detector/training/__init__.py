"""Building and training the detector. torch lives here and in ``compression`` only."""
