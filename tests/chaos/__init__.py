"""Chaos: verified load on a proxy while everything around it goes wrong, and a judge who excuses next to nothing."""
