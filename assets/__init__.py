"""Files the project ships: models with their cards, and sample clips. ``assets/README.md`` says how each was made."""
