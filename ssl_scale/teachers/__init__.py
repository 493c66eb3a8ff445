"""Where targets come from: copies of the student, or of others, that gradients do not train."""
