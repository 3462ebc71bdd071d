"""Parts of the task that classifies images."""
