"""What every room uses and no room of its own has: profiles, records, files, statistics."""
