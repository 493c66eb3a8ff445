"""Where targets come from: copies of the student that train by other means than gradients."""
