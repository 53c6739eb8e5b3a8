"""From a source of frames to a stream of results."""
