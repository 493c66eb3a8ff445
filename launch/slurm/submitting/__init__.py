"""From recipes to jobs: checked, planned, rendered and submitted; and submitted again."""
