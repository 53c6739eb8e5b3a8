"""Commands that need the extra [train]: preparing data, training, calibrating."""
