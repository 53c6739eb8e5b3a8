"""How good a model is on labelled data: measured through the run-time pipeline, as JSON and as a page to read."""
