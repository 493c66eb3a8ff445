"""Views: from batch fields to what encoders are given, on the device, random per sample."""
