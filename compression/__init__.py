"""Makes the detector small and fast, and keeps the frame budget."""
