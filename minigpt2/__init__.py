"""GPT-2 in plain sight."""
