"""A fleet under a seeded mix of deaths, freezes, outages and deploys, and what must be true of it afterwards."""
